//! The dashboard in a real browser while a study is being trained.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use e2e::{Cluster, ClusterOptions, TinyStudy, libtorch_is_there, tiny_study};

/// Long enough to be live while the pages are read, short enough for a test.
const STUDY: TinyStudy = TinyStudy {
    name: "seen",
    architectures: &["llama", "tnl"],
    widths: &[16, 32],
    tokens: 128 * 500,
    learning_rate: 3e-3,
    slots: 1,
};

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("CHROMIUM").map_or("/usr/bin/chromium".into(), PathBuf::from);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: no Chromium at {}; `apt-get install chromium`", path.display());
    None
}

#[test]
fn a_person_can_follow_a_live_study_in_the_dashboard() -> Result<()> {
    let Some(chromium) = chromium() else { return Ok(()) };
    if !libtorch_is_there() {
        return Ok(());
    }
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/web");
    if !web.join("node_modules/playwright-core").is_dir() {
        eprintln!("SKIPPED: the web application's packages are missing; run `make setup`");
        return Ok(());
    }
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    cluster.start_worker();
    cluster.apply(&tiny_study(cluster.path(), &STUDY));
    // Screenshots are kept where somebody wants to look at them.
    let screenshots = std::env::var_os("GRADUS_SCREENSHOTS")
        .map_or_else(|| cluster.path().join("screenshots"), PathBuf::from);
    let output = Command::new("node")
        .arg("browser/click-through.mjs")
        .arg(&cluster.endpoint().http)
        .arg(STUDY.name)
        .arg(&chromium)
        .arg(&screenshots)
        .current_dir(&web)
        .output()?;
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        cluster.logs()
    );
    Ok(())
}
