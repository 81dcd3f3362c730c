//! Delivery and renewal, on a clock that is moved by hand.

use std::time::Duration;

use super::*;
use crate::store::Capabilities;

// So long that the real time of a test is nothing beside it.
const TERM_MS: u64 = 10_000_000;
const REDELIVER_MS: u64 = 4_000_000;
const MOMENT_MS: u64 = 1_000_000;

fn leader() -> (Leader, WorkerId) {
    let leader = Leader::new(Clock::system(), TERM_MS, REDELIVER_MS);
    let worker: WorkerId = "w_a".parse().unwrap();
    leader.enter(&worker, Machine { n_slots: 2, capabilities: Capabilities::of_a_cpu(1) });
    assert!(leader.activate(&worker));
    (leader, worker)
}

fn granted(token: u64, worker: &WorkerId) -> Granted {
    Granted {
        token: LeaseToken(token),
        work: format!("r_{token}").parse().unwrap(),
        attempt: domain::ids::AttemptNumber(1),
        worker: worker.clone(),
        members: Vec::new(),
    }
}

fn advance(leader: &Leader, ms: u64) {
    leader.clock.advance(Duration::from_millis(ms));
}

#[test]
fn only_a_worker_that_waits_has_free_slots() {
    let (leader, worker) = leader();
    assert!(leader.seats().free.is_empty());
    let poll = leader.open_poll(&worker, 2).unwrap();
    assert_eq!(leader.seats().free[0].n_free_slots, 2);
    leader.granted(&[granted(1, &worker)]);
    assert_eq!(leader.seats().free[0].n_free_slots, 1);
    leader.close_poll(&worker, &poll);
    assert!(leader.seats().free.is_empty());
}

#[test]
fn slots_with_live_leases_are_not_free_whatever_the_poll_says() {
    let (leader, worker) = leader();
    leader.granted(&[granted(1, &worker)]);
    leader.open_poll(&worker, 2).unwrap();
    assert_eq!(leader.seats().free[0].n_free_slots, 1);
}

#[test]
fn an_assignment_whose_answer_was_lost_is_handed_over_again() {
    let (leader, worker) = leader();
    let poll = leader.open_poll(&worker, 2).unwrap();
    leader.granted(&[granted(1, &worker)]);
    assert_eq!(leader.take_mail(&worker, &poll).unwrap().tokens, [LeaseToken(1)]);
    let poll = leader.open_poll(&worker, 2).unwrap();
    assert!(leader.take_mail(&worker, &poll).unwrap().is_empty());
    advance(&leader, REDELIVER_MS);
    assert_eq!(leader.take_mail(&worker, &poll).unwrap().tokens, [LeaseToken(1)]);
}

#[test]
fn an_assignment_that_never_arrives_runs_out_however_often_it_is_handed_over() {
    let (leader, worker) = leader();
    let poll = leader.open_poll(&worker, 2).unwrap();
    leader.granted(&[granted(1, &worker)]);
    for _ in 0..=TERM_MS / REDELIVER_MS {
        assert_eq!(leader.begin_to_end(), []);
        assert_eq!(leader.take_mail(&worker, &poll).unwrap().tokens, [LeaseToken(1)]);
        advance(&leader, REDELIVER_MS);
    }
    assert_eq!(leader.begin_to_end(), [LeaseToken(1)]);
}

#[test]
fn an_assignment_that_was_mentioned_is_not_handed_over_again() {
    let (leader, worker) = leader();
    let poll = leader.open_poll(&worker, 2).unwrap();
    leader.granted(&[granted(1, &worker)]);
    leader.take_mail(&worker, &poll).unwrap();
    assert!(leader.renew(&worker, &[LeaseToken(1)]).unwrap().stale.is_empty());
    advance(&leader, REDELIVER_MS);
    assert!(leader.take_mail(&worker, &poll).unwrap().is_empty());
}

/// Aim: a poll sleeps until something falls due, however many polls are open.
#[test]
fn a_poll_is_told_when_what_was_handed_over_falls_due_again() {
    let (leader, worker) = leader();
    let due = |leader: &Leader| leader.mail_due_in(&worker);
    // The real time of the test goes by too.
    let is_due_in = |leader: &Leader, ms: u64| {
        let passed = Duration::from_millis(ms).checked_sub(due(leader).unwrap()).unwrap();
        assert!(passed < Duration::from_mins(1), "{passed:?}");
    };
    let poll = leader.open_poll(&worker, 2).unwrap();
    assert_eq!(due(&leader), None);
    leader.granted(&[granted(1, &worker)]);
    leader.take_mail(&worker, &poll).unwrap();
    advance(&leader, MOMENT_MS);
    is_due_in(&leader, REDELIVER_MS - MOMENT_MS);
    assert!(leader.renew(&worker, &[LeaseToken(1)]).unwrap().stale.is_empty());
    assert_eq!(due(&leader), None);
    assert!(leader.drain(&worker));
    assert_eq!(leader.take_mail(&worker, &poll).unwrap().directives, [Directive::Drain]);
    is_due_in(&leader, REDELIVER_MS);
}

/// Aim: a slot that becomes free while somebody looks is looked at, and one that becomes free while
/// nothing is queued wakes nobody.
#[test]
fn something_may_be_queued_until_a_look_has_found_nothing() {
    let (leader, _) = leader();
    assert!(leader.may_have_queued());
    leader.begin_look();
    leader.end_look(false);
    assert!(!leader.may_have_queued());
    leader.begin_look();
    assert!(leader.may_have_queued());
    leader.end_look(true);
    assert!(leader.may_have_queued());
}

#[tokio::test]
async fn a_newer_poll_ends_the_older_one() {
    let (leader, worker) = leader();
    let older = leader.open_poll(&worker, 2).unwrap();
    let newer = leader.open_poll(&worker, 1).unwrap();
    older.woken().await;
    assert!(leader.take_mail(&worker, &older).is_none());
    leader.close_poll(&worker, &older);
    assert!(leader.take_mail(&worker, &newer).is_some());
}

#[test]
fn a_lease_taken_over_lives_for_one_full_term() {
    let (leader, worker) = leader();
    let lease = LiveLease { token: LeaseToken(9), work: "r_9".parse().unwrap(), worker };
    advance(&leader, MOMENT_MS);
    leader.take_over(Vec::new(), vec![lease]);
    advance(&leader, TERM_MS - MOMENT_MS);
    assert!(leader.begin_to_end().is_empty());
    advance(&leader, MOMENT_MS);
    assert_eq!(leader.begin_to_end(), [LeaseToken(9)]);
}

/// Aim: what a leader did not hear because it stood still is held against nobody; what it did hear is.
#[test]
fn a_leader_that_stood_still_gives_every_lease_and_worker_one_full_term() {
    let (leader, worker) = leader();
    leader.granted(&[granted(1, &worker)]);
    leader.look_at_clock(MOMENT_MS);
    advance(&leader, 3 * TERM_MS);
    assert_eq!(leader.begin_to_end(), []);
    assert_eq!(leader.lost_workers(), []);
    for _ in 1..TERM_MS / MOMENT_MS {
        advance(&leader, MOMENT_MS);
        leader.look_at_clock(MOMENT_MS);
        assert_eq!(leader.begin_to_end(), []);
    }
    advance(&leader, MOMENT_MS);
    assert_eq!(leader.begin_to_end(), [LeaseToken(1)]);
    assert_eq!(leader.lost_workers(), []);
    for _ in 0..=TERM_MS / MOMENT_MS {
        advance(&leader, MOMENT_MS);
        leader.look_at_clock(MOMENT_MS);
    }
    assert_eq!(leader.lost_workers(), [worker]);
}

#[test]
fn a_revoked_lease_is_a_directive_and_then_stale() {
    let (leader, worker) = leader();
    let poll = leader.open_poll(&worker, 2).unwrap();
    leader.granted(&[granted(1, &worker)]);
    leader.revoke(&[(LeaseToken(1), worker.clone())]);
    let mail = leader.take_mail(&worker, &poll).unwrap();
    assert_eq!(mail.directives, [Directive::Stop { token: LeaseToken(1) }]);
    assert!(mail.tokens.is_empty());
    assert_eq!(leader.renew(&worker, &[LeaseToken(1)]).unwrap().stale, [LeaseToken(1)]);
}

#[test]
fn a_silent_worker_is_lost_after_two_terms() {
    let (leader, worker) = leader();
    advance(&leader, 2 * TERM_MS - MOMENT_MS);
    assert!(leader.lost_workers().is_empty());
    advance(&leader, 2 * MOMENT_MS);
    assert_eq!(leader.lost_workers(), std::slice::from_ref(&worker));
    leader.renew(&worker, &[]);
    assert!(leader.lost_workers().is_empty());
}

#[test]
fn points_are_announced_twice_a_second() {
    let (leader, _) = leader();
    let run: RunId = "r_1".parse().unwrap();
    assert!(leader.may_announce_points(&run));
    assert!(!leader.may_announce_points(&run));
    advance(&leader, POINTS_INTERVAL_MS);
    assert!(leader.may_announce_points(&run));
}

#[test]
fn a_back_off_is_over_when_its_pause_has_passed_since_it_was_seen() {
    let (leader, _) = leader();
    let work: WorkId = "r_1".parse().unwrap();
    let backoff = |until_ms| vec![Backoff { work: work.clone(), pause_ms: MOMENT_MS, until_ms }];
    assert!(leader.due_backoffs(backoff(7), true).is_empty());
    advance(&leader, MOMENT_MS);
    assert_eq!(leader.due_backoffs(backoff(7), true), std::slice::from_ref(&work));
    // Another one of the same work.
    assert!(leader.due_backoffs(backoff(8), true).is_empty());
    advance(&leader, MOMENT_MS);
    assert_eq!(leader.due_backoffs(backoff(8), true), std::slice::from_ref(&work));
    assert!(leader.due_backoffs(Vec::new(), true).is_empty());
}

#[test]
fn a_slot_that_does_not_ask_for_a_term_is_silent_until_it_does() {
    let (leader, worker) = leader();
    let silent = || leader.seats().silent.get(&worker).copied().unwrap_or(0);
    leader.open_poll(&worker, 1).unwrap();
    assert_eq!(silent(), 0, "it may be about to ask");
    advance(&leader, TERM_MS);
    assert_eq!(silent(), 1);
    leader.granted(&[granted(1, &worker)]);
    assert_eq!(silent(), 1, "the other one has the lease");
    leader.open_poll(&worker, 1).unwrap();
    assert_eq!(silent(), 0);
    leader.ended(LeaseToken(1));
    advance(&leader, TERM_MS / 2);
    assert_eq!(silent(), 0, "it has just become idle");
}
