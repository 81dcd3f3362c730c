//! The whole table of state × event, so that every change of rule is seen in a diff.

use std::fmt::Write as _;

use super::*;
use crate::spec::RetryRules;

const NOW_MS: u64 = 1_000_000;

/// The usual rule of an end, at its first time.
fn first_time(end: AttemptEnd) -> Tries {
    let rule = RetryRules::default().rule(end).unwrap_or(RetryRule::at_once(1));
    Tries { rule, ..Tries::none(NOW_MS) }
}

fn tries(event: &RunEvent) -> Tries {
    match event {
        RunEvent::AttemptEnded { end, .. } => first_time(*end),
        _ => Tries::none(NOW_MS),
    }
}

fn states() -> Vec<RunState> {
    let leased = RunState::Leased {
        token: LeaseToken(5),
        attempt: AttemptNumber(1),
        worker: "w_a".parse().unwrap(),
    };
    vec![
        RunState::Waiting,
        RunState::Queued,
        leased,
        RunState::Backoff { until_ms: 999_999 },
        RunState::Succeeded,
        RunState::Failed { end: AttemptEnd::Bug },
        RunState::Cancelled,
        RunState::Diverged,
    ]
}

fn events() -> Vec<RunEvent> {
    let mut events = vec![
        RunEvent::DependencySucceeded,
        RunEvent::DependencyFailed,
        RunEvent::DependencyRemade,
        RunEvent::Granted {
            token: LeaseToken(6),
            attempt: AttemptNumber(2),
            worker: "w_b".parse().unwrap(),
        },
        RunEvent::BackoffElapsed,
        RunEvent::CancelRequested,
        RunEvent::RetryRequested,
        RunEvent::RemakeRequested,
        RunEvent::AttemptEnded { token: LeaseToken(4), end: AttemptEnd::Succeeded },
    ];
    events.extend(AttemptEnd::ALL.map(|end| RunEvent::AttemptEnded { token: LeaseToken(5), end }));
    events
}

fn name(event: &RunEvent) -> String {
    match event {
        RunEvent::AttemptEnded { token: LeaseToken(4), .. } => "ended (old token)".into(),
        RunEvent::AttemptEnded { end, .. } => format!("ended {}", end.label()),
        RunEvent::Granted { .. } => "granted".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_table_of_transitions() {
    let mut table = String::new();
    for event in events() {
        write!(table, "{:<22}", name(&event)).unwrap();
        for state in states() {
            let cell = match state.on(event.clone(), tries(&event)) {
                Ok(Transition::To { state, .. }) => state.label(),
                Ok(Transition::Stale) => "·",
                Err(_) => "ERROR",
            };
            write!(table, " {}>{cell:<10}", &state.label()[..2]).unwrap();
        }
        table.truncate(table.trim_end().len());
        table.push('\n');
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_failure_backs_off_longer_each_time_and_then_ends_the_run() {
    let leased = &states()[2];
    let ended = || RunEvent::AttemptEnded { token: LeaseToken(5), end: AttemptEnd::Bug };
    let state_after = |n_alike| {
        let tries = Tries { n_alike, ..first_time(AttemptEnd::Bug) };
        match leased.on(ended(), tries) {
            Ok(Transition::To { state, .. }) => state,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(state_after(0), RunState::Backoff { until_ms: 1_001_000 });
    assert_eq!(state_after(1), RunState::Backoff { until_ms: 1_002_000 });
    assert_eq!(state_after(2), RunState::Failed { end: AttemptEnd::Bug });
}

#[test]
fn a_lost_worker_is_not_charged_to_the_run() {
    let leased = &states()[2];
    let lost = RunEvent::AttemptEnded { token: LeaseToken(5), end: AttemptEnd::WorkerLost };
    let tries = Tries { n_alike: 50, ..first_time(AttemptEnd::WorkerLost) };
    let transition = leased.on(lost, tries).unwrap();
    let Transition::To { state, charge, .. } = transition else { panic!("stale") };
    assert_eq!((state, charge), (RunState::Queued, Charge::Loss));
}

#[test]
fn a_timer_that_rings_after_a_retry_by_hand_changes_nothing() {
    let queued = RunState::Queued;
    assert_eq!(queued.on(RunEvent::BackoffElapsed, Tries::none(NOW_MS)), Ok(Transition::Stale));
}

#[test]
fn every_state_has_its_label_in_the_list() {
    for (state, label) in states().iter().zip(LABELS) {
        assert_eq!(state.label(), label);
        assert_eq!(state.is_terminal(), TERMINAL.contains(&label));
    }
}
