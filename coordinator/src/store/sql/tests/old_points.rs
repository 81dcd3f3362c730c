//! Points as an older build stored them, and what must be found of them.

use domain::ids::RunId;

use crate::store::conformance::fixture::run_ids;
use crate::store::read::ReadStore;

pub(super) struct OldPoint {
    pub(super) attempt: i64,
    pub(super) name: &'static str,
    pub(super) step: i64,
    pub(super) value: Option<f64>,
}

pub(super) fn run() -> RunId {
    run_ids(&[]).remove(0)
}

/// Two series; one of them has two attempts and more points than a tail takes.
pub(super) fn rows() -> Vec<OldPoint> {
    let losses = (1..=2_000).map(|step| (1, "train_loss_nats", step, Some(1.0 / step as f64)));
    let again = (1_001..=1_100).map(|step| (2, "train_loss_nats", step, Some(step as f64)));
    let rates = [(1, "tokens_per_second", 7, None), (1, "tokens_per_second", 8, Some(-0.0))];
    let all = losses.chain(again).chain(rates);
    all.map(|(attempt, name, step, value)| OldPoint { attempt, name, step, value }).collect()
}

/// Every one is there.
pub(super) async fn check(store: &impl ReadStore) {
    let view = store.run_view(&run()).await.unwrap().unwrap();
    assert_eq!(view.series, ["tokens_per_second", "train_loss_nats"]);
    for name in view.series {
        let mut expected: Vec<(u64, u32, Option<f64>)> = rows()
            .into_iter()
            .filter(|row| row.name == name)
            .map(|row| (row.step.try_into().unwrap(), row.attempt.try_into().unwrap(), row.value))
            .collect();
        expected.sort_by_key(|(step, attempt, _)| (*step, *attempt));
        let points = store.points(&run(), &name).await.unwrap().into_iter();
        let found: Vec<_> = points.map(|p| (p.step, p.attempt, p.value)).collect();
        assert_eq!(found, expected);
    }
}
