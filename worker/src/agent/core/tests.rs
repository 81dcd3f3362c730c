//! The agent's rules, without a coordinator and without trainers.

use proto::v1::{self, directive, event, to_trainer};
use tonic::{Code, Status};

use super::*;
use crate::client::ClientError;

const SETTINGS: Settings = Settings {
    n_slots: 2,
    preempt_deadline_ms: 5_000,
    stop_grace_ms: 1_000,
    leave_timeout_ms: 2_000,
};

/// An agent, what it has asked and not been answered, and what it has told its trainers.
struct Agent {
    core: Core,
    now_ms: u64,
    open: Vec<(CallId, Request)>,
    told: Vec<(usize, to_trainer::Kind)>,
    n_started: usize,
    n_killed: usize,
    exit: Option<Result<(), AgentError>>,
}

impl Agent {
    fn new() -> Self {
        let core = Core::new(SETTINGS, 0);
        let (open, told) = (Vec::new(), Vec::new());
        let mut agent = Self { core, now_ms: 0, open, told, n_started: 0, n_killed: 0, exit: None };
        agent.feed(Input::Tick);
        agent
    }

    /// One that is registered, with both trainers warm and a poll and a heartbeat open.
    fn serving() -> Self {
        let mut agent = Self::new();
        agent.answer("register", Ok(registered("w_1")));
        agent.feed(Input::TrainerReady { slot: 0 });
        agent.feed(Input::TrainerReady { slot: 1 });
        agent
    }

    fn feed(&mut self, input: Input) {
        for effect in self.core.handle(input, self.now_ms) {
            match effect {
                Effect::Call { call, request } => self.open.push((call, request)),
                Effect::GiveUp { call } => self.open.retain(|(open, _)| *open != call),
                Effect::Tell { slot, kind } => self.told.push((slot, kind)),
                Effect::StartTrainer { .. } => self.n_started += 1,
                Effect::KillTrainer { .. } => self.n_killed += 1,
                Effect::Exit(outcome) => self.exit = Some(outcome),
            }
        }
    }

    fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.feed(Input::Tick);
    }

    fn asked(&self, what: &str) -> Option<&Request> {
        self.open.iter().find(|(_, request)| name(request) == what).map(|(_, request)| request)
    }

    fn answer(&mut self, what: &str, answer: Result<Answer, AgentError>) {
        let index = self.open.iter().position(|(_, request)| name(request) == what);
        let index = index.unwrap_or_else(|| panic!("no `{what}` in {:?}", self.open));
        let (call, _) = self.open.remove(index);
        self.feed(Input::Answered { call, answer });
    }

    fn assign(&mut self, tokens: &[u64]) {
        let assignment =
            |token: &u64| v1::Assignment { lease_token: *token, ..v1::Assignment::default() };
        let assignments = tokens.iter().map(assignment).collect();
        let response = v1::NextResponse { assignments, directives: Vec::new() };
        self.answer("next", Ok(Answer::Next(response)));
    }

    fn direct(&mut self, kind: directive::Kind) {
        let directives = vec![v1::Directive { kind: Some(kind) }];
        let response = v1::NextResponse { directives, assignments: Vec::new() };
        self.answer("next", Ok(Answer::Next(response)));
    }

    fn finish(&mut self, slot: usize, token: u64) {
        let end = to_wire::finish(LeaseToken(token), AttemptEnd::Succeeded, "");
        self.feed(Input::TrainerFinished { slot, end });
    }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Register => "register",
        Request::Heartbeat { .. } => "heartbeat",
        Request::Next(_) => "next",
        Request::Report(_) => "report",
        Request::Finish(_) => "finish",
        Request::Deregister { .. } => "deregister",
    }
}

fn registered(worker_id: &str) -> Answer {
    Answer::Registered(Registration {
        worker_id: worker_id.to_owned(),
        lease_term_ms: 4_000,
        heartbeat_interval_ms: 1_000,
        artifact_store_uri: "memory:".to_owned(),
    })
}

fn failed(code: Code) -> Result<Answer, AgentError> {
    Err(ClientError::from_status("test", Status::new(code, "why")).into())
}

fn heard(stale: &[u64]) -> Answer {
    let stale_lease_tokens = stale.to_vec();
    Answer::Heartbeat(v1::HeartbeatResponse { stale_lease_tokens, is_unknown_worker: false })
}

fn checkpoint() -> v1::Event {
    to_wire::event(event::Kind::Checkpoint(v1::Checkpoint::default()))
}

#[test]
fn it_registers_until_it_is_taken_and_then_asks_with_its_warm_slots() {
    let mut agent = Agent::new();
    agent.answer("register", failed(Code::Unavailable));
    assert!(agent.asked("register").is_none(), "after a pause");
    agent.at(50);
    agent.answer("register", Ok(registered("w_1")));
    assert_eq!(agent.n_started, 2);
    let Some(Request::Next(next)) = agent.asked("next") else { panic!("{:?}", agent.open) };
    assert_eq!((next.worker_id.as_str(), next.n_free_slots), ("w_1", 0));
    agent.feed(Input::TrainerReady { slot: 1 });
    let Some(Request::Next(next)) = agent.asked("next") else { panic!("{:?}", agent.open) };
    assert_eq!(next.n_free_slots, 1, "the poll for nothing is given up");
    assert_eq!(agent.open.iter().filter(|(_, request)| name(request) == "next").count(), 1);
}

#[test]
fn a_refusal_ends_it() {
    let mut agent = Agent::new();
    agent.answer("register", failed(Code::Unauthenticated));
    assert!(matches!(agent.exit, Some(Err(AgentError::Coordinator(_)))), "{:?}", agent.exit);
}

/// Aim: no answer throws away the attempts that are here. Method: each call is refused for good, or
/// answered with a code that nobody expects, while an attempt runs; afterwards it exits.
#[test]
fn a_refusal_ends_it_only_when_it_has_no_attempt() {
    let mut agent = Agent::serving();
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.assign(&[1]);
    agent.at(1_000);
    for code in [Code::OutOfRange, Code::Unimplemented, Code::Unauthenticated, Code::Internal] {
        agent.answer("next", failed(code));
        agent.answer("heartbeat", failed(code));
        assert!(agent.exit.is_none() && agent.asked("next").is_none(), "{code:?}: after a pause");
        agent.at(agent.now_ms + 1_000);
    }
    agent.answer("next", failed(Code::NotFound));
    agent.answer("heartbeat", failed(Code::NotFound));
    let source = object_store::Error::NotImplemented {
        operation: "get".to_owned(),
        implementer: "test".to_owned(),
    };
    let away = AgentError::ArtifactStore { uri: "memory:".to_owned(), source };
    agent.answer("register", Err(away));
    agent.at(agent.now_ms + 1_000);
    agent.answer("register", Ok(registered("w_2")));
    assert!(agent.exit.is_none());
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.finish(0, 1);
    agent.answer("finish", Ok(Answer::Finished));
    agent.answer("next", failed(Code::Unauthenticated));
    assert!(matches!(agent.exit, Some(Err(AgentError::Coordinator(_)))), "{:?}", agent.exit);
}

/// Aim: an attempt whose report the coordinator can never store ends, with the reason, while
/// heartbeats renew its lease.
#[test]
fn a_report_that_breaks_the_coordinator_again_and_again_ends_the_attempt() {
    let mut agent = Agent::serving();
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.assign(&[1]);
    agent.feed(Input::TrainerSaid { slot: 0, event: checkpoint() });
    let mut n_sent = 0;
    // One that is away in between is no error of the coordinator's own.
    let codes = [Code::Internal, Code::Unavailable].into_iter().chain([Code::Internal; 500]);
    for code in codes {
        if agent.asked("report").is_none() {
            agent.at(agent.now_ms + 1_000);
            if agent.asked("heartbeat").is_some() {
                agent.answer("heartbeat", Ok(heard(&[])));
            }
        }
        if agent.asked("report").is_none() {
            break;
        }
        n_sent += 1;
        agent.answer("report", failed(code));
    }
    assert!((60..=100).contains(&n_sent), "{n_sent}");
    assert!(matches!(agent.told.last(), Some((0, to_trainer::Kind::Stop(_)))), "{:?}", agent.told);
    agent.finish(0, 1);
    let Some(Request::Finish(finish)) = agent.asked("finish") else { panic!("{:?}", agent.open) };
    assert_eq!(finish.end, "bug");
    assert!(finish.message.contains("the coordinator refused a report"), "{}", finish.message);
    // An end that it cannot store either is left to the end of the lease.
    for _ in 0..200 {
        if agent.asked("finish").is_none() {
            agent.at(agent.now_ms + 1_000);
            if agent.asked("heartbeat").is_some() {
                agent.answer("heartbeat", Ok(heard(&[])));
            }
        }
        if agent.asked("finish").is_none() {
            break;
        }
        agent.answer("finish", failed(Code::Internal));
    }
    assert_eq!(agent.core.tokens(), [0; 0]);
}

#[test]
fn an_assignment_goes_to_a_warm_slot_once_and_what_does_not_fit_goes_back() {
    let mut agent = Agent::serving();
    agent.assign(&[1, 2]);
    agent.assign(&[1, 3]);
    assert_eq!(agent.core.tokens(), [1, 2]);
    assert_eq!(agent.told.len(), 2);
    let Some(Request::Finish(finish)) = agent.asked("finish") else { panic!("{:?}", agent.open) };
    assert_eq!((finish.lease_token, finish.end.as_str()), (3, "preempted"));
    agent.answer("finish", failed(Code::Unavailable));
    agent.at(50);
    agent.answer("finish", Ok(Answer::Finished));
    assert!(agent.asked("finish").is_none());
}

#[test]
fn a_heartbeat_names_what_is_held_and_stops_what_is_stale() {
    let mut agent = Agent::serving();
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.assign(&[1, 2]);
    agent.at(1_000);
    let Some(Request::Heartbeat { request, .. }) = agent.asked("heartbeat") else { panic!() };
    assert_eq!(request.lease_tokens, [1, 2]);
    agent.answer("heartbeat", Ok(heard(&[2])));
    let stops = agent.told.iter().filter(|(_, kind)| matches!(kind, to_trainer::Kind::Stop(_)));
    assert_eq!(stops.map(|(slot, _)| *slot).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_coordinator_that_forgot_it_is_registered_with_once_and_the_leases_stay() {
    let mut agent = Agent::serving();
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.assign(&[1]);
    agent.at(1_000);
    agent.answer("next", failed(Code::NotFound));
    agent.answer("register", Ok(registered("w_2")));
    // Asked before the registration, under the old name.
    agent.answer("heartbeat", failed(Code::NotFound));
    assert!(agent.asked("register").is_none());
    agent.at(2_000);
    let Some(Request::Heartbeat { request, .. }) = agent.asked("heartbeat") else { panic!() };
    assert_eq!((request.worker_id.as_str(), &request.lease_tokens[..]), ("w_2", &[1][..]));
}

#[test]
fn a_report_is_sent_until_it_is_stored_and_the_end_comes_after_it() {
    let mut agent = Agent::serving();
    agent.assign(&[1]);
    agent.feed(Input::TrainerSaid { slot: 0, event: checkpoint() });
    agent.finish(0, 1);
    agent.answer("report", failed(Code::Unavailable));
    assert!(agent.asked("report").is_none() && agent.asked("finish").is_none());
    agent.at(50);
    agent.answer("report", Ok(Answer::Reported { is_stale: false }));
    agent.answer("finish", Ok(Answer::Finished));
    assert_eq!(agent.core.tokens(), [0; 0]);
    let Some(Request::Next(next)) = agent.asked("next") else { panic!("{:?}", agent.open) };
    assert_eq!(next.n_free_slots, 1, "a further free slot does not end a poll for one");
}

/// It trains on while the coordinator is away, and what it has to say waits until a heartbeat has said
/// that the lease still lives.
#[test]
fn nothing_is_written_under_a_lease_that_may_have_ended() {
    let mut agent = Agent::serving();
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.assign(&[1]);
    agent.at(3_499);
    agent.feed(Input::TrainerSaid { slot: 0, event: checkpoint() });
    agent.answer("report", failed(Code::Unavailable));
    agent.answer("heartbeat", failed(Code::Unavailable));
    agent.at(3_600);
    assert!(agent.asked("report").is_none(), "the term ends at 4000");
    assert_eq!(agent.core.tokens(), [1]);
    agent.at(4_600);
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.answer("report", Ok(Answer::Reported { is_stale: false }));
}

#[test]
fn a_trainer_that_died_before_it_saw_its_assignment_costs_the_attempt_nothing() {
    let mut agent = Agent::serving();
    agent.assign(&[7]);
    let (end, message) = (AttemptEnd::Bug, "died".to_owned());
    agent.feed(Input::TrainerGone { slot: 0, last_token: None, end, message });
    assert_eq!(agent.core.tokens(), [7]);
    assert_eq!(agent.n_started, 3);
    agent.feed(Input::TrainerReady { slot: 0 });
    let given = agent.told.iter().filter(|(_, k)| matches!(k, to_trainer::Kind::Assignment(_)));
    assert_eq!(given.count(), 2);
    assert!(agent.asked("finish").is_none());
}

#[test]
fn a_trainer_that_dies_in_its_attempt_is_replaced_when_its_end_is_stored() {
    let mut agent = Agent::serving();
    agent.assign(&[7]);
    let (end, message) = (AttemptEnd::Bug, "died".to_owned());
    agent.feed(Input::TrainerGone { slot: 0, last_token: Some(7), end, message });
    assert_eq!(agent.n_started, 2);
    let Some(Request::Finish(finish)) = agent.asked("finish") else { panic!("{:?}", agent.open) };
    assert_eq!((finish.lease_token, finish.end.as_str()), (7, "bug"));
    agent.answer("finish", Ok(Answer::Finished));
    assert_eq!((agent.n_started, agent.core.tokens().len()), (3, 0));
}

#[test]
fn a_stop_while_no_trainer_has_the_assignment_ends_the_attempt_at_once() {
    let mut agent = Agent::serving();
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.assign(&[7]);
    let (end, message) = (AttemptEnd::Bug, "died".to_owned());
    agent.feed(Input::TrainerGone { slot: 0, last_token: None, end, message });
    agent.at(1_000);
    agent.answer("heartbeat", Ok(heard(&[7])));
    assert_eq!(agent.core.tokens(), [0; 0]);
    assert!(agent.asked("finish").is_none(), "without a lease nothing is reported");
}

#[test]
fn an_attempt_whose_trainer_does_not_start_goes_back() {
    let mut agent = Agent::serving();
    agent.assign(&[7]);
    let (end, message) = (AttemptEnd::Bug, "died".to_owned());
    agent.feed(Input::TrainerGone { slot: 0, last_token: None, end, message });
    agent.feed(Input::TrainerFailed { slot: 0, message: "no memory".to_owned() });
    let Some(Request::Finish(finish)) = agent.asked("finish") else { panic!("{:?}", agent.open) };
    assert_eq!(finish.end, "preempted");
    agent.answer("finish", Ok(Answer::Finished));
    assert_eq!(agent.core.tokens(), [0; 0]);
    assert_eq!(agent.n_started, 3, "after a pause");
    agent.at(1_000);
    assert_eq!(agent.n_started, 4);
}

#[test]
fn an_attempt_that_goes_back_is_not_begun_by_the_next_trainer() {
    let mut agent = Agent::serving();
    agent.assign(&[7]);
    let died = || "died".to_owned();
    let (end, message) = (AttemptEnd::Bug, died());
    agent.feed(Input::TrainerGone { slot: 0, last_token: None, end, message });
    agent.feed(Input::TrainerFailed { slot: 0, message: "no memory".to_owned() });
    agent.at(1_000);
    let n_told = agent.told.len();
    agent.feed(Input::TrainerReady { slot: 0 });
    assert_eq!(agent.told.len(), n_told, "its end is on the way");
    agent.answer("finish", Ok(Answer::Finished));
    agent.assign(&[8]);
    let Some((0, to_trainer::Kind::Assignment(told))) = agent.told.last() else {
        panic!("{:?}", agent.told)
    };
    assert_eq!((told.lease_token, agent.told.len()), (8, n_told + 1));
}

/// The last lines of the trainer before, for instance.
#[test]
fn a_refused_report_of_an_attempt_that_no_trainer_has_ends_it() {
    let mut agent = Agent::serving();
    agent.assign(&[7]);
    let line = v1::LogLine { text: "bye".to_owned(), ..v1::LogLine::default() };
    let event = to_wire::event(event::Kind::Log(line));
    agent.feed(Input::TrainerSaid { slot: 0, event });
    let (end, message) = (AttemptEnd::Bug, "died".to_owned());
    agent.feed(Input::TrainerGone { slot: 0, last_token: None, end, message });
    agent.at(1_500);
    agent.answer("report", failed(Code::InvalidArgument));
    let Some(Request::Finish(finish)) = agent.asked("finish") else { panic!("{:?}", agent.open) };
    assert_eq!((finish.lease_token, finish.end.as_str()), (7, "bug"));
    agent.answer("finish", Ok(Answer::Finished));
    assert_eq!(agent.core.tokens(), [0; 0]);
}

#[test]
fn an_attempt_that_is_to_end_ends_with_the_trainer_that_never_saw_it() {
    let mut agent = Agent::serving();
    agent.assign(&[7]);
    let preempt = v1::PreemptAttempt { lease_token: 7, deadline_ms: 60_000 };
    agent.direct(directive::Kind::Preempt(preempt));
    let n_started = agent.n_started;
    let (end, message) = (AttemptEnd::Bug, "died".to_owned());
    agent.feed(Input::TrainerGone { slot: 0, last_token: None, end, message });
    let Some(Request::Finish(finish)) = agent.asked("finish") else { panic!("{:?}", agent.open) };
    assert_eq!((finish.lease_token, finish.end.as_str()), (7, "preempted"));
    assert_eq!(agent.n_started, n_started, "not before the slot is in order");
}

#[test]
fn a_trainer_that_ends_another_attempt_is_killed_and_ends_nothing() {
    let mut agent = Agent::serving();
    agent.assign(&[7]);
    agent.finish(0, 6);
    assert!(agent.asked("finish").is_none(), "{:?}", agent.open);
    assert_eq!((agent.n_killed, agent.core.tokens()), (1, vec![7]));
}

#[test]
fn a_drained_worker_ends_what_it_has_and_leaves() {
    let mut agent = Agent::serving();
    agent.assign(&[1]);
    agent.direct(directive::Kind::Drain(v1::Drain {}));
    assert!(agent.asked("deregister").is_none());
    agent.finish(0, 1);
    agent.answer("finish", Ok(Answer::Finished));
    agent.answer("deregister", failed(Code::Unavailable));
    assert!(matches!(agent.exit, Some(Ok(()))), "{:?}", agent.exit);
}

#[test]
fn told_to_stop_it_lets_its_attempts_write_checkpoints_and_told_twice_it_goes() {
    let mut agent = Agent::serving();
    agent.assign(&[1]);
    agent.feed(Input::Stop);
    assert!(matches!(agent.told.last(), Some((0, to_trainer::Kind::Preempt(_)))));
    assert!(agent.exit.is_none() && agent.asked("deregister").is_none());
    agent.feed(Input::Stop);
    assert!(matches!(agent.exit, Some(Ok(()))), "{:?}", agent.exit);
}

#[test]
fn it_leaves_when_an_attempt_does_not_end_in_time() {
    let mut agent = Agent::serving();
    agent.assign(&[1]);
    agent.feed(Input::Stop);
    agent.at(5_000);
    assert!(agent.asked("deregister").is_none());
    agent.at(6_000);
    assert!(agent.asked("deregister").is_some());
}

/// Neither before it is registered nor afterwards, with a coordinator that is away all the time.
#[test]
fn it_is_never_due_at_a_time_that_has_passed() {
    let mut busy = Agent::serving();
    busy.assign(&[1, 2]);
    for mut agent in [Agent::new(), busy] {
        for _ in 0..200 {
            if let Some(due_ms) = agent.core.deadline_ms() {
                assert!(due_ms > agent.now_ms, "due at {due_ms}, now {}", agent.now_ms);
                agent.at(due_ms);
            }
            while let Some((call, _)) = agent.open.pop() {
                agent.feed(Input::Answered { call, answer: failed(Code::Unavailable) });
            }
        }
    }
}

/// A report that was to be sent again while the worker stood still is not due for ever: nothing may be
/// written until a heartbeat is answered, however long that takes.
#[test]
fn what_it_may_not_write_any_more_is_not_due() {
    let mut agent = Agent::serving();
    agent.answer("heartbeat", Ok(heard(&[])));
    agent.assign(&[1]);
    agent.at(3_400);
    agent.feed(Input::TrainerSaid { slot: 0, event: checkpoint() });
    // It is to be sent again before 3500, when writing ends.
    agent.answer("report", failed(Code::Unavailable));
    for now_ms in [3_600, 3_700] {
        agent.at(now_ms);
        assert!(agent.asked("report").is_none() && agent.asked("heartbeat").is_some());
        assert!(agent.core.deadline_ms().is_none_or(|due_ms| due_ms > now_ms));
    }
    agent.answer("heartbeat", Ok(heard(&[])));
    assert!(agent.asked("report").is_some());
}
