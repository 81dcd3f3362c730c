//! A whole study through the real processes: plan, apply, train, evaluate, fit, read.

use std::collections::BTreeMap;

use anyhow::Result;
use e2e::{Cluster, ClusterOptions, TinyStudy, libtorch_is_there, tiny_study};

/// Two architectures of two sizes, trained by two workers.
const STUDY: TinyStudy = TinyStudy {
    name: "pair",
    architectures: &["llama", "tnl"],
    widths: &[16, 24],
    tokens: 128 * 60,
    learning_rate: 3e-3,
    slots: 1,
};

#[test]
fn a_study_goes_from_its_file_to_its_fits_and_a_second_apply_trains_nothing() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    cluster.start_worker();
    cluster.start_worker();
    let file = tiny_study(cluster.path(), &STUDY);
    let applied = cluster.apply(&file);
    assert_eq!(applied["n_new_runs"], 4);
    let summary = cluster.wait_for_end(STUDY.name, 120);
    assert_eq!(summary["state"], "complete", "{}", cluster.logs());
    assert_eq!(summary["runs"]["succeeded"], 4);
    // Four log-spaced checkpoints of each run.
    assert_eq!(summary["evaluations"]["succeeded"], 16, "{}", cluster.logs());
    assert_eq!(summary["flops_done"], summary["flops_total"]);

    let fit = cluster.json(&["fit", STUDY.name]);
    assert_eq!(fit["is_provisional"], false);
    let groups = fit["groups"].as_array().expect("a list");
    assert_eq!(groups.len(), 2);
    for group in groups {
        assert_eq!(group["observations"].as_array().map(Vec::len), Some(8));
        // Two sizes cannot identify an exponent of the optimal size.
        let envelope = &group["fits"][0];
        assert_eq!(envelope["method"], "envelope");
        let statuses: Vec<_> = envelope["coefficients"]
            .as_object()
            .expect("coefficients by name")
            .values()
            .map(|estimate| estimate["status"].clone())
            .collect();
        assert!(statuses.iter().any(|status| status == "not_identified"), "{envelope}");
    }

    exports_every_point(&cluster);
    fits_in_full(&cluster);
    let again = cluster.apply(&file);
    assert_eq!(again["n_new_runs"], 0);
    assert_eq!(again["n_reused_succeeded"], 4);
    assert_eq!(cluster.json(&["status", STUDY.name])["summary"]["state"], "complete");
    Ok(())
}

/// One point a step of each run; another name than that of a series is refused with those there are.
fn exports_every_point(cluster: &Cluster) {
    let out = cluster.path().join("points.csv");
    let out = out.to_str().expect("UTF-8");
    let export = |series| cluster.gradus(&["export", STUDY.name, "--series", series, "--out", out]);
    let refused = export("train_loss");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("`--series train_loss`: no series of the 4 runs; valid: `"), "{said}");
    assert!(said.contains("`train_loss_nats`") && !std::path::Path::new(out).exists(), "{said}");

    assert!(export("train_loss_nats").status.success());
    let text = std::fs::read_to_string(out).expect("points");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("run,series,attempt,step,value,is_current"));
    let mut steps: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for line in lines {
        let [run, series, "1", step, value, "true"] = line.split(',').collect::<Vec<_>>()[..]
        else {
            panic!("`{line}` is no current point of a first attempt");
        };
        assert_eq!(series, "train_loss_nats");
        let loss: f64 = value.parse().expect("a loss");
        assert!(loss > 0.0 && loss < 10.0, "{line}");
        steps.entry(run).or_default().push(step.parse().expect("a step"));
    }
    assert_eq!(steps.len(), 4);
    assert!(steps.values().all(|steps| steps.iter().copied().eq(1..=60)), "{steps:?}");
}

/// The rows of a study are fitted by the command as the coordinator fits them, and with more around.
fn fits_in_full(cluster: &Cluster) {
    let [saved, picture] = ["pair.json", "pair.svg"].map(|name| cluster.path().join(name));
    let [saved, picture] = [&saved, &picture].map(|path| path.to_str().expect("UTF-8"));
    let of_coordinator = cluster.json(&["fit", STUDY.name, "--law", "power"]);
    let asked = ["fit", STUDY.name, "--law", "power", "--out", saved, "--plot", picture];
    let full = cluster.json(&asked);
    for index in 0..2 {
        let (one, other) = (&of_coordinator["groups"][index], &full["groups"][index]);
        assert_eq!((&one["group"], &other["file"]), (&other["group"], &"study pair".into()));
        let [one, other] = [&one["fits"][0], other].map(|fit| &fit["coefficients"]["alpha"]);
        assert_eq!(one, other, "the same rows by the same settings");
        assert_eq!(full["groups"][index]["n_observations"], 8);
    }
    let comparisons = full["comparisons"].as_array().expect("a list");
    assert_eq!(comparisons.len(), 1, "{full}");
    let drawn = std::fs::read_to_string(picture).expect("a picture");
    assert!(drawn.contains("<svg"));
    let again = cluster.json(&["fit", "--again", saved]);
    assert_eq!(again["is_same"], true, "{again}");
}

#[test]
fn the_loss_of_every_architecture_falls() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let study = TinyStudy {
        name: "learn",
        architectures: &["llama_study", "tnl", "hgrn2", "cosformer2"],
        widths: &[16],
        tokens: 128 * 150,
        learning_rate: 5e-3,
        slots: 1,
    };
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    cluster.start_worker();
    cluster.apply(&tiny_study(cluster.path(), &study));
    let summary = cluster.wait_for_end(study.name, 120);
    assert_eq!(summary["state"], "complete", "{}", cluster.logs());
    for run in cluster.json(&["runs", study.name])["runs"].as_array().expect("a list") {
        let view = cluster.json(&["show", run["id"].as_str().expect("an id")]);
        let losses: Vec<f64> = view["evaluations"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|evaluation| evaluation["value"].as_f64())
            .collect();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        // The text has few words: far below the uniform loss ln 257 = 5.55 after 150 steps.
        assert!(first > last && last < 4.0, "{}: {losses:?}", run["name"]);
    }
    Ok(())
}

/// Three lengths of one configuration of each architecture; the file of the tiny study, changed.
fn three_lengths(cluster: &Cluster, shares_trunks: bool) -> Result<std::path::PathBuf> {
    let study = TinyStudy {
        name: "ladder",
        architectures: &["llama", "hgrn2"],
        widths: &[16],
        ..TinyStudy::default()
    };
    let file = tiny_study(cluster.path(), &study);
    let mut text = std::fs::read_to_string(&file)?;
    let share = format!("runtime: {{share_trunks: {shares_trunks}, ");
    for (from, to) in [
        ("{constant: {warmup_steps: 4}}", "{wsd: {warmup_steps: 4, decay_share: 0.25}}"),
        ("fixed_tokens: {tokens: 16384}", "isoflop: {budgets: [3e8, 5e8, 1e9]}"),
        ("{log_spaced: {count: 4}}", "final"),
        ("runtime: {", share.as_str()),
    ] {
        assert!(text.contains(from), "`{from}` is not in the file");
        text = text.replacen(from, to, 1);
    }
    std::fs::write(&file, text)?;
    Ok(file)
}

#[test]
fn runs_that_share_a_trunk_come_to_what_they_would_apart_bit_for_bit() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let mut tables = Vec::new();
    for shares_trunks in [false, true] {
        let mut cluster = Cluster::start(ClusterOptions::default())?;
        cluster.start_worker();
        cluster.start_worker();
        let plan = cluster.apply(&three_lengths(&cluster, shares_trunks)?)["plan"].clone();
        let summary = cluster.wait_for_end("ladder", 120);
        assert_eq!(summary["state"], "complete", "{}", cluster.logs());
        tables.push(cluster.results("ladder"));
        let (mut n_trained, mut n_shared, mut n_steps) = (0, 0, 0);
        for run in cluster.json(&["runs", "ladder"])["runs"].as_array().expect("a list") {
            let view = cluster.json(&["show", run["id"].as_str().expect("an id")]);
            let begun = view["attempts"][0]["resumed_from_step"].as_u64().expect("it began");
            assert_eq!(begun, view["continues"]["step"].as_u64().unwrap_or(0), "{view}");
            n_shared += u64::from(begun > 0);
            let steps = run["steps"].as_u64().expect("a number");
            (n_steps, n_trained) = (n_steps + steps, n_trained + steps - begun);
        }
        assert_eq!(n_shared, if shares_trunks { 4 } else { 0 });
        let saved = plan["flops_exact_shared"].as_f64().expect("a number");
        let total = plan["flops_exact_total"].as_f64().expect("a number");
        let share = 1.0 - f64::from(u32::try_from(n_trained)?) / f64::from(u32::try_from(n_steps)?);
        assert!((saved / total - share).abs() < 0.05, "{saved} of {total}, {share} of the steps");
    }
    assert_eq!(tables[0], tables[1]);
    assert!(tables[0].len() >= 12, "{:?}", tables[0]);
    Ok(())
}
