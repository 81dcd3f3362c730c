//! Every point of a series, whatever has become of the row it came in: chunks and tails must look
//! like the one table of points that they stand for.

use std::collections::BTreeMap;

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, RunId};

use proto::MAX_EVENTS_PER_REPORT;

use super::fixture::{Fixture, last_step, placement, point, run_of};
use crate::store::read::{ALL_STEPS, CurveQuery, CurveScope, ReadStore};
use crate::store::{Granted, Numerics, ReportEvent, Store};

const LOSS: &str = "train_loss_nats";

/// The naive twin: the first value of each step and attempt.
type Twin = BTreeMap<(u64, u32), Option<u64>>;

fn started(step: u64) -> ReportEvent {
    ReportEvent::Started { numerics: Numerics::of_a_cpu(1), resumed_from_step: step }
}

/// A value for each number, some of them special.
fn value(number: u64) -> f64 {
    match number % 97 {
        0 => f64::NAN,
        1 => -0.0,
        // Not a 32-bit float.
        2 => 0.1 + number as f64,
        _ => f64::from(3.0 + 1.0 / (number + 1) as f32),
    }
}

/// What is compared: every bit, but for the sign of a zero. A map of protobuf leaves zeros out, so that
/// they come over gRPC without one; that chunks keep it is their own tests'.
fn bits(value: f64) -> u64 {
    if value == 0.0 { 0 } else { value.to_bits() }
}

/// Reports a value for each step, and what the twin says of it.
async fn report(
    f: &Fixture<impl Store + ReadStore>,
    twin: &mut Twin,
    (token, attempt): (LeaseToken, u32),
    steps: impl IntoIterator<Item = u64>,
    salt: u64,
) {
    let mut events = Vec::new();
    for step in steps {
        let value = value(step.wrapping_mul(31).wrapping_add(salt));
        events.push(point(step, value));
        twin.entry((step, attempt)).or_insert(value.is_finite().then(|| bits(value)));
    }
    // More does not fit into one report of a worker.
    for some in events.chunks(MAX_EVENTS_PER_REPORT) {
        f.store.report(token, some.to_vec()).await.unwrap();
    }
}

async fn check(f: &Fixture<impl Store + ReadStore>, run: &RunId, twin: &Twin) {
    let points = f.store.points(run, LOSS).await.unwrap();
    let found: Twin =
        points.iter().map(|point| ((point.step, point.attempt), point.value.map(bits))).collect();
    assert!(found == *twin, "{} points are not the {} of the twin", found.len(), twin.len());
    // What is said to be current is what a curve shows that leaves nothing out.
    let scope = CurveScope::Run(run.clone());
    let whole =
        CurveQuery { scope, series: LOSS.to_owned(), max_points: usize::MAX, steps: ALL_STEPS };
    let curves = f.store.curves(&whole).await.unwrap().curves;
    let shown: Vec<u64> = curves.iter().flat_map(|curve| curve.steps.clone()).collect();
    let current = points.iter().filter(|point| point.is_current).map(|point| point.step);
    assert!(current.eq(shown), "the current points are not those of the curve");
}

/// A run in its first attempt.
async fn begun(f: &Fixture<impl Store + ReadStore>) -> Granted {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    f.store.report(granted.token, vec![started(0)]).await.unwrap();
    granted
}

/// Aim: a report may come again at any time and with whatever values, and changes nothing. Method:
/// enough points for packed chunks, chunks and a tail; then all of it once more.
pub(in crate::store) async fn points_that_come_again_change_nothing(
    f: &Fixture<impl Store + ReadStore>,
) {
    let granted = begun(f).await;
    let (run, mut twin) = (run_of(&granted.work), Twin::new());
    let steps = 1..=20_000_u64;
    let reports: Vec<u64> = steps.clone().step_by(700).collect();
    for salt in 0..2 {
        for first in &reports {
            let some = *first..=(*first + 699).min(*steps.end());
            report(f, &mut twin, (granted.token, 1), some, salt).await;
        }
        check(f, &run, &twin).await;
    }
    assert_eq!(twin.len(), 20_000);
}

/// Aim: points may come in any order, several times, and with gaps. Method: reports of a fixed but
/// disorderly sequence, compared with the naive twin after each.
pub(in crate::store) async fn points_in_any_order_are_all_kept(
    f: &Fixture<impl Store + ReadStore>,
) {
    let granted = begun(f).await;
    let (run, mut twin) = (run_of(&granted.work), Twin::new());
    let holder = (granted.token, 1);
    report(f, &mut twin, holder, (0..3_000).step_by(2), 1).await;
    report(f, &mut twin, holder, (0..3_000).rev(), 2).await;
    check(f, &run, &twin).await;
    let mut state = 7_u64;
    for salt in 3..40 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (first, width) = ((state >> 40) % 9_000, (state >> 20) % 900);
        let steps = (first..first + width).filter(|step| !(step ^ state).is_multiple_of(3));
        report(f, &mut twin, holder, steps, salt).await;
        check(f, &run, &twin).await;
    }
    report(f, &mut twin, holder, 0..30_000, 50).await;
    check(f, &run, &twin).await;
    f.finish(granted.token, AttemptEnd::Diverged).await;
    check(f, &run, &twin).await;
}

/// Aim: a restart neither forks nor hides a curve, whichever of its points are in chunks. Method: a
/// first attempt that is packed when its lease runs out, and a second one that has a tail.
pub(in crate::store) async fn a_restart_is_seen_across_chunks(f: &Fixture<impl Store + ReadStore>) {
    let first = begun(f).await;
    let (run, mut twin) = (run_of(&first.work), Twin::new());
    report(f, &mut twin, (first.token, 1), 1..=3_000, 1).await;
    f.store.expire_leases(&[first.token]).await.unwrap();
    let worker = f.worker().await;
    let second = f.store.grant(&[placement(&first.work, &worker)]).await.unwrap().remove(0);
    f.store.report(second.token, vec![started(1_500)]).await.unwrap();
    let before = curve(f, &run).await;
    assert_eq!(before.len(), 3_000, "a restart that has not reported hides nothing");
    report(f, &mut twin, (second.token, 2), 1_501..=1_600, 2).await;
    check(f, &run, &twin).await;
    let truth: Vec<(u64, Option<u64>)> = twin
        .iter()
        .filter(|((step, attempt), _)| *attempt == 2 || *step <= 1_500)
        .map(|((step, _), value)| (*step, *value))
        .collect();
    assert_eq!(truth.len(), 1_600);
    assert!(curve(f, &run).await == truth);
    report(f, &mut twin, (second.token, 2), 1_601..=4_000, 2).await;
    assert_eq!(curve(f, &run).await.len(), 4_000);
    check(f, &run, &twin).await;
}

/// Every point of the current truth.
async fn curve(f: &Fixture<impl ReadStore>, run: &RunId) -> Vec<(u64, Option<u64>)> {
    let scope = CurveScope::Run(run.clone());
    let query =
        CurveQuery { scope, series: LOSS.to_owned(), max_points: 100_000, steps: ALL_STEPS };
    let curves = f.store.curves(&query).await.unwrap().curves;
    let points = curves.into_iter().flat_map(|curve| curve.steps.into_iter().zip(curve.values));
    points.map(|(step, value)| (step, value.map(bits))).collect()
}

/// Aim: a thinned curve has the exact extremes and the last point, whether they are in a chunk or in
/// the tail; and a run that is over shows the same as before.
pub(in crate::store) async fn a_thinned_curve_is_exact_across_chunks(
    f: &Fixture<impl Store + ReadStore>,
) {
    let granted = begun(f).await;
    let run = run_of(&granted.work);
    let loss = |step: u64| match step {
        777 => -2.5,
        1_999 => 99.0,
        step => 1.0 / step as f64,
    };
    for first in (1..=2_000).step_by(100) {
        let events = (first..first + 100).map(|step| point(step, loss(step))).collect();
        f.store.report(granted.token, events).await.unwrap();
    }
    let thinned = async || {
        let scope = CurveScope::Run(run.clone());
        let query = CurveQuery { scope, series: LOSS.to_owned(), max_points: 50, steps: ALL_STEPS };
        f.store.curves(&query).await.unwrap().curves.remove(0)
    };
    let during = thinned().await;
    assert!(during.steps.len() <= 50, "{}", during.steps.len());
    for step in [777, 1_999, 2_000] {
        let index = during.steps.binary_search(&step).unwrap();
        assert_eq!(during.values[index], Some(loss(step)));
    }
    f.succeed(granted.token, last_step()).await;
    assert_eq!(thinned().await, during);
}

/// The naive twin of a window: for buckets of so many steps, counted from step 0, the first of the
/// least, the first of the greatest and the last point.
fn bucketed(points: &[(u64, f64)], width: u64) -> Vec<(u64, f64)> {
    let mut kept = Vec::new();
    for bucket in points.chunk_by(|one, next| one.0 / width == next.0 / width) {
        let first_of = |is_ahead: fn(f64, f64) -> bool| {
            let ahead = |best: (u64, f64), one: &(u64, f64)| {
                if is_ahead(one.1, best.1) { *one } else { best }
            };
            bucket[1..].iter().fold(bucket[0], ahead)
        };
        let mut points = vec![first_of(|a, b| a < b), first_of(|a, b| a > b)];
        points.extend(bucket.last());
        points.sort_by_key(|(step, _)| *step);
        points.dedup();
        kept.extend(points);
    }
    kept
}

/// Aim: a part of a curve has the exact minimum, maximum and last point of each bucket, as finely as
/// the points allow, and nothing from outside. Method: windows that begin and end in chunks, in the
/// tail and beyond it, over a restart, against a computation over all points.
pub(in crate::store) async fn a_window_of_a_curve_is_exact(f: &Fixture<impl Store + ReadStore>) {
    let loss = |step: u64, attempt: u32| {
        f64::from(attempt) + ((step * 7_919 % 1_013) as f64) / 64.0 + 500.0 / (step + 1) as f64
    };
    let reported = async |token, attempt, steps: std::ops::RangeInclusive<u64>| {
        let points: Vec<ReportEvent> = steps.map(|step| point(step, loss(step, attempt))).collect();
        for some in points.chunks(MAX_EVENTS_PER_REPORT) {
            f.store.report(token, some.to_vec()).await.unwrap();
        }
    };
    let first = begun(f).await;
    let run = run_of(&first.work);
    reported(first.token, 1, 1..=3_000).await;
    f.store.expire_leases(&[first.token]).await.unwrap();
    let worker = f.worker().await;
    let second = f.store.grant(&[placement(&first.work, &worker)]).await.unwrap().remove(0);
    f.store.report(second.token, vec![started(1_500)]).await.unwrap();
    reported(second.token, 2, 1_501..=2_700).await;
    let attempt = |step| if step <= 1_500 { 1 } else { 2 };
    let windows = [(0, 99), (450, 1_100), (1_400, 1_600), (1_500, 1_500), (2_000, u64::MAX)];
    for ((from, to), max_points) in windows.into_iter().flat_map(|w| [(w, 30), (w, 10_000)]) {
        let scope = CurveScope::Run(run.clone());
        let query = CurveQuery { scope, series: LOSS.to_owned(), max_points, steps: from..=to };
        let curve = f.store.curves(&query).await.unwrap().curves.remove(0);
        let found: Vec<(u64, f64)> =
            curve.steps.into_iter().zip(curve.values.into_iter().flatten()).collect();
        let within = from.max(1)..=to.min(2_700);
        let points: Vec<(u64, f64)> =
            within.map(|step| (step, loss(step, attempt(step)))).collect();
        let expected = (0..12)
            .map(|doublings| bucketed(&points, 1 << doublings))
            .find(|kept| kept.len() <= max_points);
        assert_eq!(Some(found), expected, "{from} to {to}, {max_points} points");
    }
    // What a restart has undone is in no window, and no window is no curve.
    for steps in [2_701..=3_000, 5_000..=u64::MAX] {
        let scope = CurveScope::Run(run.clone());
        let query = CurveQuery { scope, series: LOSS.to_owned(), max_points: 100, steps };
        let curves = f.store.curves(&query).await.unwrap().curves;
        assert_eq!(curves, []);
    }
}
