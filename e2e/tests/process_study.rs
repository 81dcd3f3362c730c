//! A whole study through the real processes: plan, apply, train, evaluate, fit, read.

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

    let again = cluster.apply(&file);
    assert_eq!(again["n_new_runs"], 0);
    assert_eq!(again["n_reused_succeeded"], 4);
    assert_eq!(cluster.json(&["status", STUDY.name])["summary"]["state"], "complete");
    Ok(())
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
