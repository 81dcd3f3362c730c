use super::*;
use proto::v1::event;

const TOKEN: LeaseToken = LeaseToken(7);
const GRACE_MS: u64 = 100;

fn point(step: u64) -> v1::Event {
    let point = v1::MetricPoint { step, values: std::iter::once(("x".to_owned(), 1.0)).collect() };
    to_wire::event(event::Kind::Point(point))
}

fn checkpoint() -> v1::Event {
    to_wire::event(event::Kind::Checkpoint(v1::Checkpoint::default()))
}

fn end(end: AttemptEnd) -> v1::FinishRequest {
    to_wire::finish(TOKEN, end, "")
}

fn gone() -> Input {
    Input::ChildGone { end: AttemptEnd::Bug, message: "died".into() }
}

fn stop() -> Input {
    Input::Stop { reason: "expired".into() }
}

fn attempt() -> Attempt {
    Attempt::new(TOKEN, GRACE_MS)
}

/// Feeds the inputs at the given times and returns the effects of the last.
fn after(inputs: &[(u64, Input)]) -> (Attempt, Vec<Effect>) {
    let mut attempt = attempt();
    let mut effects = Vec::new();
    for (now_ms, input) in inputs {
        effects = attempt.handle(input.clone(), *now_ms);
    }
    (attempt, effects)
}

#[test]
fn points_wait_for_company_and_then_go_together() {
    let (mut attempt, effects) = after(&[(0, Input::Event(point(1))), (9, Input::Event(point(2)))]);
    assert_eq!(effects, []);
    assert_eq!(attempt.deadline_ms(), Some(FLUSH_MS));
    let effects = attempt.handle(Input::Tick, FLUSH_MS);
    assert_eq!(effects, [Effect::Report(vec![point(1), point(2)])]);
    assert_eq!(attempt.deadline_ms(), None, "one report at a time");
}

#[test]
fn a_checkpoint_takes_the_waiting_points_with_it_at_once() {
    let (_, effects) = after(&[(0, Input::Event(point(1))), (1, Input::Event(checkpoint()))]);
    assert_eq!(effects, [Effect::Report(vec![point(1), checkpoint()])]);
}

#[test]
fn the_end_waits_until_every_event_is_stored() {
    let finished = Input::Finished(end(AttemptEnd::Succeeded));
    let (mut attempt, effects) =
        after(&[(0, Input::Event(checkpoint())), (1, Input::Event(point(2))), (2, finished)]);
    assert_eq!(effects, [], "the checkpoint is still on its way");
    assert_eq!(attempt.handle(Input::Reported, 3), [Effect::Report(vec![point(2)])]);
    assert_eq!(attempt.handle(Input::Reported, 4), [Effect::Finish(end(AttemptEnd::Succeeded))]);
    let effects = attempt.handle(Input::FinishAnswered, 5);
    assert_eq!(effects, [Effect::Over(ChildFate::Keep)]);
}

#[test]
fn after_a_stop_nothing_is_reported_and_the_trainer_is_kept_if_it_obeys() {
    let (mut attempt, effects) = after(&[(0, Input::Event(point(1))), (5, stop())]);
    let told = v1::StopAttempt { lease_token: TOKEN.0, reason: "expired".into() };
    assert_eq!(effects, [Effect::Tell(to_trainer::Kind::Stop(told))]);
    assert_eq!(attempt.handle(Input::Event(checkpoint()), 6), []);
    let effects = attempt.handle(Input::Finished(end(AttemptEnd::Cancelled)), 7);
    assert_eq!(effects, [Effect::Over(ChildFate::Keep)]);
}

#[test]
fn a_trainer_that_does_not_stop_is_killed_once_and_replaced() {
    let (mut attempt, _) = after(&[(5, stop())]);
    assert_eq!(attempt.deadline_ms(), Some(5 + GRACE_MS));
    assert_eq!(attempt.handle(Input::Tick, 5 + GRACE_MS), [Effect::KillChild]);
    assert_eq!(attempt.deadline_ms(), None);
    assert_eq!(attempt.handle(Input::Tick, 9_999), []);
    assert_eq!(attempt.handle(gone(), 9_999), [Effect::Over(ChildFate::Replace)]);
}

#[test]
fn a_preempted_trainer_that_checkpoints_in_time_ends_as_it_says() {
    let (mut attempt, effects) = after(&[(0, Input::Preempt { deadline_ms: 50 })]);
    let told = v1::PreemptAttempt { lease_token: TOKEN.0, deadline_ms: 50 };
    assert_eq!(effects, [Effect::Tell(to_trainer::Kind::Preempt(told))]);
    let effects = attempt.handle(Input::Finished(end(AttemptEnd::Preempted)), 49);
    assert_eq!(effects, [Effect::Finish(end(AttemptEnd::Preempted))]);
}

#[test]
fn a_preempted_trainer_that_is_too_slow_is_killed_and_still_ends_as_preempted() {
    let (mut attempt, _) = after(&[(0, Input::Preempt { deadline_ms: 50 })]);
    assert_eq!(attempt.handle(Input::Tick, 50), [Effect::KillChild]);
    let effects = attempt.handle(gone(), 51);
    let Some(Effect::Finish(finish)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(finish.end, "preempted");
    let effects = attempt.handle(Input::FinishAnswered, 52);
    assert_eq!(effects, [Effect::Over(ChildFate::Replace)]);
}

#[test]
fn a_trainer_that_dies_ends_its_attempt_with_what_its_death_means() {
    let (mut attempt, effects) = after(&[(0, gone())]);
    let bug = to_wire::finish(TOKEN, AttemptEnd::Bug, "died");
    assert_eq!(effects, [Effect::Finish(bug)]);
    let effects = attempt.handle(Input::FinishAnswered, 1);
    assert_eq!(effects, [Effect::Over(ChildFate::Replace)]);
}

#[test]
fn a_trainer_that_dies_after_its_end_keeps_its_result_and_is_replaced() {
    let finished = Input::Finished(end(AttemptEnd::Succeeded));
    let (mut attempt, effects) = after(&[(0, finished)]);
    assert_eq!(effects, [Effect::Finish(end(AttemptEnd::Succeeded))]);
    assert_eq!(attempt.handle(gone(), 1), []);
    let effects = attempt.handle(Input::FinishAnswered, 2);
    assert_eq!(effects, [Effect::Over(ChildFate::Replace)]);
}

#[test]
fn a_stale_lease_ends_an_attempt_whose_report_is_on_its_way() {
    let finished = Input::Finished(end(AttemptEnd::Succeeded));
    let (_, effects) = after(&[(0, Input::Event(checkpoint())), (1, finished), (2, stop())]);
    assert_eq!(effects, [Effect::Over(ChildFate::Keep)]);
}

#[test]
fn a_refused_report_ends_the_attempt_as_a_bug() {
    let (mut attempt, effects) = after(&[
        (0, Input::Event(checkpoint())),
        (1, Input::Refused { message: "no such step".into() }),
    ]);
    assert!(matches!(effects[..], [Effect::Tell(to_trainer::Kind::Stop(_))]), "{effects:?}");
    let effects = attempt.handle(Input::Finished(end(AttemptEnd::Succeeded)), 2);
    let Some(Effect::Finish(finish)) = effects.first() else { panic!("{effects:?}") };
    assert_eq!(finish.end, "bug");
    assert!(finish.message.contains("no such step"));
}

#[test]
fn a_coordinator_that_is_away_makes_the_trainer_wait() {
    let mut attempt = attempt();
    attempt.handle(Input::Event(checkpoint()), 0);
    for step in 1..MAX_BUFFERED_EVENTS as u64 {
        assert!(attempt.wants_messages());
        attempt.handle(Input::Event(point(step)), 0);
    }
    assert!(!attempt.wants_messages());
    attempt.handle(Input::Reported, 1);
    assert!(attempt.wants_messages(), "one was stored");
}

#[test]
fn every_event_is_sent_once_and_in_order() {
    let mut attempt = attempt();
    let n_events = 3 * MAX_EVENTS_PER_BATCH as u64 + 1;
    let mut sent = Vec::new();
    let keep = |effects: Vec<Effect>, sent: &mut Vec<v1::Event>| {
        for effect in effects {
            if let Effect::Report(events) = effect {
                assert!(events.len() <= MAX_EVENTS_PER_BATCH);
                sent.extend(events);
            }
        }
    };
    for step in 0..n_events {
        keep(attempt.handle(Input::Event(point(step)), 0), &mut sent);
    }
    keep(attempt.handle(Input::Finished(end(AttemptEnd::Succeeded)), 0), &mut sent);
    for _ in 0..4 {
        keep(attempt.handle(Input::Reported, 0), &mut sent);
    }
    assert_eq!(sent, (0..n_events).map(point).collect::<Vec<_>>());
}

/// Every state meets every input: none panics, nothing is reported without a lease, and `Over`
/// comes once. The table is the random walk's, so that crossings are met too.
#[test]
fn no_order_of_messages_reports_after_a_stop_or_ends_twice() {
    let inputs = [
        Input::Event(point(1)),
        Input::Event(checkpoint()),
        Input::Finished(end(AttemptEnd::Succeeded)),
        gone(),
        stop(),
        Input::Preempt { deadline_ms: 10 },
        Input::Reported,
        Input::Refused { message: "no".into() },
        Input::FinishAnswered,
        Input::Tick,
    ];
    // All sequences of five inputs, with the time moving a grace time each.
    let n_sequences = inputs.len().pow(5);
    for number in 0..n_sequences {
        let mut attempt = attempt();
        let (mut rest, mut n_over, mut is_stopped) = (number, 0, false);
        for turn in 0..5 {
            let input = inputs[rest % inputs.len()].clone();
            rest /= inputs.len();
            is_stopped |= matches!(input, Input::Stop { .. });
            for effect in attempt.handle(input, turn * GRACE_MS) {
                match effect {
                    Effect::Over(_) => n_over += 1,
                    Effect::Report(_) | Effect::Finish(_) => {
                        assert!(!is_stopped, "sequence {number} reports after its stop");
                    }
                    Effect::Tell(_) | Effect::KillChild => {}
                }
            }
        }
        assert!(n_over <= 1, "sequence {number} is over {n_over} times");
    }
}

/// Aim: what stops a service or a job may end trainers too, which is charged to nobody.
#[test]
fn a_trainer_that_dies_when_it_is_to_leave_was_preempted() {
    let preempt = || Input::Preempt { deadline_ms: 50 };
    let ended = |input: Input| {
        let (_, effects) = after(&[(0, preempt()), (1, input)]);
        let [Effect::Finish(end)] = &effects[..] else { panic!("{effects:?}") };
        (end.end.clone(), end.message.clone())
    };
    assert_eq!(ended(gone()), ("preempted".to_owned(), "died".to_owned()));
    let no_memory = Input::ChildGone { end: AttemptEnd::OutOfMemory, message: "killed".into() };
    assert_eq!(ended(no_memory).0, "out_of_memory");
    let (_, effects) = after(&[(0, gone())]);
    let [Effect::Finish(end)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(end.end, "bug", "nobody had asked it to leave");
}
