//! The median of repeated measurements, with the range that they had.

/// What was measured several times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) n: usize,
}

impl Spread {
    /// Of at least one finite value.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        assert!(sorted.iter().all(|value| value.is_finite()), "not finite: {values:?}");
        sorted.sort_by(f64::total_cmp);
        let (&low, &high) = (sorted.first().expect("a measurement"), sorted.last().expect("one"));
        Self { median: middle(&sorted), low, high, n: sorted.len() }
    }

    /// Of the ratios of what was measured in the same rounds: what slows a whole round down is in both
    /// and goes out.
    pub(crate) fn of_ratios(values: &[f64], peers: &[f64]) -> Self {
        assert_eq!(values.len(), peers.len(), "both sides take part in every round");
        let ratios: Vec<f64> = values.iter().zip(peers).map(|(value, peer)| value / peer).collect();
        Self::of(&ratios)
    }
}

/// The median of at least one finite value.
pub(crate) fn median(values: &[f64]) -> f64 {
    Spread::of(values).median
}

fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(Spread::of(&[5.0, 1.0, 3.0]), Spread { median: 3.0, low: 1.0, high: 5.0, n: 3 });
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), 3.0);
        assert_eq!(median(&[7.0]), 7.0);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // A machine that is twice as slow in the second round has the same ratio there.
        let spread = Spread::of_ratios(&[10.0, 5.0, 11.0], &[5.0, 2.5, 5.0]);
        assert_eq!((spread.median, spread.low, spread.high), (2.0, 2.0, 2.2));
    }

    #[test]
    #[should_panic(expected = "not finite")]
    fn a_measurement_that_is_no_number_is_not_hidden() {
        Spread::of(&[1.0, f64::NAN]);
    }
}
