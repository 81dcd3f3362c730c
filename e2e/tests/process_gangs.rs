//! Runs that take several slots at a time, on real processes: all members or none, and together to
//! the end, whoever is killed.

mod support;

use e2e::{Cluster, ClusterOptions, TinyStudy, wait_for};
use test_postgres::{Disk, Server};

use support::{
    check_every_point, check_store, cluster_with, runs, table, undisturbed, wait_until_complete,
};

const N_STEPS: u64 = 400;

/// Two runs of two slots each.
const PAIRED: TinyStudy = TinyStudy {
    name: "paired",
    architectures: &["llama"],
    widths: &[16, 32],
    tokens: 128 * N_STEPS,
    learning_rate: 3e-3,
    slots: 2,
};

fn options(database: Option<String>) -> ClusterOptions {
    ClusterOptions {
        database,
        fake_step_ms: Some(10),
        lease_term_ms: 1_500,
        ..ClusterOptions::default()
    }
}

/// The attempts of a run, each with how it ended and how many members it had.
fn attempts(cluster: &Cluster, run: &str) -> Vec<(String, usize)> {
    let view = cluster.json(&["show", run]);
    let attempts = view["attempts"].as_array().expect("a list of attempts").iter();
    attempts
        .map(|attempt| {
            let ended_as = attempt["ended_as"].as_str().unwrap_or("open").to_owned();
            (ended_as, 1 + attempt["members"].as_array().map_or(0, Vec::len))
        })
        .collect()
}

/// A worker that trains a run, and the one that holds a slot for it.
fn wait_for_a_gang(cluster: &Cluster) -> (usize, usize) {
    wait_for("a gang of two workers", 60, || {
        let mut runs = runs(cluster, PAIRED.name).into_iter();
        let run = runs.find(|run| run.step > 0 && run.worker.is_some())?;
        let lead = run.worker?;
        let member = (1..=cluster.n_workers()).find(|number| {
            *number != lead
                && cluster.worker(*number).log().contains(&format!("work.id=\"{}\"", run.id))
        })?;
        Some((lead, member))
    })
}

/// Aim: whichever member is killed, the attempt ends as lost and the run goes on elsewhere, to the
/// same result. Method: three workers of one
/// slot each for two runs of two, so that one waits with a slot kept for it.
fn check_gangs(database: Option<String>) {
    let mut cluster = cluster_with(options(database), &PAIRED, 3);
    let (_, member) = wait_for_a_gang(&cluster);
    cluster.kill_worker_number(member);
    cluster.start_worker_again(member);
    wait_until_complete(&cluster, &PAIRED);
    let mut n_lost = 0;
    for run in runs(&cluster, PAIRED.name) {
        check_every_point(&cluster, &run, N_STEPS);
        let attempts = attempts(&cluster, &run.id);
        assert!(attempts.iter().all(|(_, n_members)| *n_members == 2), "{attempts:?}");
        n_lost += attempts.iter().filter(|(ended_as, _)| ended_as == "worker_lost").count();
        assert_eq!(attempts.last().expect("an attempt").0, "succeeded");
    }
    assert_eq!(n_lost, 1, "{}", cluster.logs());
    let alone = TinyStudy { slots: 1, ..PAIRED };
    assert_eq!(
        table(&cluster, &PAIRED),
        undisturbed(&alone, 1),
        "a gang trains what one slot does"
    );
    check_store(&cluster);
    cluster.stop();
}

#[test]
fn a_gang_is_lost_with_any_member_and_goes_on_to_the_same_result() {
    check_gangs(None);
}

#[test]
fn a_gang_is_lost_with_any_member_and_goes_on_to_the_same_result_on_postgresql() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    check_gangs(Some(server.url()));
}

/// Aim: a study that asks for more slots than there are says so, and runs when they come.
#[test]
fn a_gang_that_is_too_large_waits_and_says_why() {
    let mut cluster = cluster_with(options(None), &PAIRED, 1);
    let code = wait_for("the run to be queued", 60, || {
        let run = runs(&cluster, PAIRED.name).into_iter().find(|run| run.state == "queued")?;
        let view = cluster.json(&["explain", &run.id]);
        let code = view["reasons"][0]["code"].as_str()?.to_owned();
        (code != "about_to_run").then_some(code)
    });
    assert_eq!(code, "gang_too_large");
    cluster.start_worker();
    wait_until_complete(&cluster, &PAIRED);
    cluster.stop();
}
