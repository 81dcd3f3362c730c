//! The points that both sides store. It knows no store.

use std::collections::BTreeMap;

/// A loss that falls and trembles, computed with 32 bits as trainers do. The noise is a twentieth of
/// a nat, some twenty of the bits of each value.
#[expect(clippy::cast_possible_truncation, reason = "trainers compute with 32 bits")]
pub(super) fn loss(series: u32, step: u64) -> f64 {
    let mut state = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(series);
    let mut noise = -6.0;
    // A sum of twelve uniform numbers is nearly normal; the generator is Knuth's.
    for _ in 0..12 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise += (state >> 11) as f64 / (1_u64 << 53) as f64;
    }
    f64::from((3.0 + 5.0 * (-(step as f64) / 2000.0).exp() + 0.05 * noise) as f32)
}

/// The name of a series; the first is the one that charts show.
pub(super) fn name(series: u32) -> String {
    if series == 0 { "train_loss_nats".to_owned() } else { format!("layer_{series}_loss_nats") }
}

/// The values of a step.
pub(super) fn values(n_series: u32, step: u64) -> BTreeMap<String, f64> {
    (0..n_series).map(|series| (name(series), loss(series, step))).collect()
}

/// The value below which 95 of 100 lie.
pub(super) fn p95(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 95 / 100).or(values.last()).copied().unwrap_or(f64::NAN)
}
