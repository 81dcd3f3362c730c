//! What a training step's loss and gradient say about the run: go on, leave the update out, or end.
//!
//! It computes no loss and makes no update.

use serde::{Deserialize, Serialize};

use crate::spec::{LossSpikeSpec, StabilitySpec, UnstableStep};

/// What becomes of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its update is made.
    Update,
    /// Its batch is passed over: no update, and the optimizer's state stays as it is.
    Skip {
        /// Why, as a clause for a log line.
        reason: String,
    },
    /// The run ends as diverged.
    Diverge {
        /// Why, as a clause for the attempt's message.
        reason: String,
    },
}

/// What has been seen of a run so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Stability {
    spec: StabilitySpec,
    state: StabilityState,
}

/// The part of [`Stability`] that a checkpoint keeps.
///
/// A number with digits after the point is kept by its bits, so that a resumed run judges exactly
/// as an undisturbed one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StabilityState {
    /// Bits of the running mean of the loss, in nats.
    mean_loss_bits: u64,
    /// Steps that the mean was made from, at most the window.
    n_in_mean: u32,
    /// Steps passed over since the last update.
    n_skipped_in_a_row: u32,
    /// Steps passed over in all.
    n_skipped: u64,
}

impl Stability {
    /// A run that begins, or goes on from what a checkpoint kept.
    pub fn new(spec: StabilitySpec, state: StabilityState) -> Self {
        Self { spec, state }
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> StabilityState {
        self.state
    }

    /// Steps passed over so far.
    pub fn n_skipped(&self) -> u64 {
        self.state.n_skipped
    }

    /// Judges a step by its mean loss in nats per token and the norm of its gradient before it was
    /// clipped, and remembers it.
    pub fn judge(&mut self, loss_nats: f64, gradient_norm: f64) -> Verdict {
        if !(loss_nats.is_finite() && gradient_norm.is_finite()) {
            let reason = format!("the loss is {loss_nats} and the gradient's norm {gradient_norm}");
            return self.pass_over(self.spec.non_finite, reason);
        }
        if let Some(spike) = self.spec.loss_spike
            && let Some(reason) = self.spike(spike, loss_nats)
        {
            return self.pass_over(spike.then, reason);
        }
        self.remember(loss_nats);
        self.state.n_skipped_in_a_row = 0;
        Verdict::Update
    }

    fn spike(&self, spike: LossSpikeSpec, loss_nats: f64) -> Option<String> {
        let mean = f64::from_bits(self.state.mean_loss_bits);
        let is_spike =
            self.state.n_in_mean >= spike.window_steps && loss_nats > mean + spike.above_nats;
        is_spike.then(|| {
            format!(
                "the loss is {loss_nats}, more than {} above the mean {mean} of the last {} steps",
                spike.above_nats, spike.window_steps
            )
        })
    }

    /// The mean weights its last `window_steps` steps by 1 / window, as an exponential average.
    fn remember(&mut self, loss_nats: f64) {
        let Some(spike) = self.spec.loss_spike else { return };
        let state = &mut self.state;
        state.n_in_mean = (state.n_in_mean + 1).min(spike.window_steps);
        let mean = f64::from_bits(state.mean_loss_bits);
        let mean = mean + (loss_nats - mean) / f64::from(state.n_in_mean);
        state.mean_loss_bits = mean.to_bits();
    }

    fn pass_over(&mut self, step: UnstableStep, reason: String) -> Verdict {
        let UnstableStep::Skip { at_most_in_a_row } = step else {
            return Verdict::Diverge { reason };
        };
        if self.state.n_skipped_in_a_row >= at_most_in_a_row {
            let reason = format!("{reason}, after {at_most_in_a_row} steps in a row passed over");
            return Verdict::Diverge { reason };
        }
        self.state.n_skipped_in_a_row += 1;
        self.state.n_skipped += 1;
        Verdict::Skip { reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKIP_TWO: UnstableStep = UnstableStep::Skip { at_most_in_a_row: 2 };

    fn stability(non_finite: UnstableStep, loss_spike: Option<LossSpikeSpec>) -> Stability {
        Stability::new(StabilitySpec { non_finite, loss_spike }, StabilityState::default())
    }

    /// `u` update, `s` skip, `d` diverge.
    fn verdicts(stability: &mut Stability, losses: &[f64]) -> String {
        let letter = |verdict| match verdict {
            Verdict::Update => 'u',
            Verdict::Skip { .. } => 's',
            Verdict::Diverge { .. } => 'd',
        };
        losses.iter().map(|loss| letter(stability.judge(*loss, 1.0))).collect()
    }

    #[test]
    fn a_number_that_is_not_finite_ends_the_run_unless_the_study_says_otherwise() {
        let mut usual = Stability::new(StabilitySpec::default(), StabilityState::default());
        assert_eq!(verdicts(&mut usual, &[3.0, f64::NAN]), "ud");
        assert!(matches!(usual.judge(3.0, f64::INFINITY), Verdict::Diverge { .. }));
        let mut skipping = stability(SKIP_TWO, None);
        let nan = f64::NAN;
        assert_eq!(verdicts(&mut skipping, &[nan, nan, 3.0, nan, nan, nan]), "ssussd");
        assert_eq!(skipping.n_skipped(), 4);
    }

    #[test]
    fn a_spike_is_measured_against_the_mean_once_the_window_is_full() {
        let spike = LossSpikeSpec { above_nats: 1.0, window_steps: 2, then: SKIP_TWO };
        let mut stability = stability(UnstableStep::Stop, Some(spike));
        // 9 comes before the window is full; then the mean is 6, and 7.1 is above 6 + 1.
        assert_eq!(verdicts(&mut stability, &[3.0, 9.0, 7.1, 7.0]), "uusu");
        // What was passed over is not in the mean: (6 + 7) / 2.
        assert_eq!(f64::from_bits(stability.state().mean_loss_bits), 6.5);
    }

    #[test]
    fn a_spike_ends_the_run_unless_the_study_says_otherwise() {
        let keys = r#"{"loss_spike": {"above_nats": 1.0, "window_steps": 2}}"#;
        let spec: StabilitySpec = serde_json::from_str(keys).unwrap();
        let mut stability = Stability::new(spec, StabilityState::default());
        assert_eq!(verdicts(&mut stability, &[3.0, 3.0, 3.9, 4.9]), "uuud");
        assert_eq!(stability.n_skipped(), 0);
    }

    #[test]
    fn a_resumed_run_judges_as_an_undisturbed_one() {
        let spike = LossSpikeSpec { above_nats: 0.01, window_steps: 3, then: SKIP_TWO };
        let losses: Vec<f64> = (0..40).map(|n| 5.0 + f64::sin(f64::from(n) * 2.1) * 0.02).collect();
        let mut straight = stability(UnstableStep::Stop, Some(spike));
        let undisturbed = verdicts(&mut straight, &losses);
        assert!(undisturbed.contains('s') && !undisturbed.contains('d'), "{undisturbed}");
        for cut in 0..losses.len() {
            let mut first = stability(UnstableStep::Stop, Some(spike));
            let before = verdicts(&mut first, &losses[..cut]);
            let kept = serde_json::to_string(&first.state()).unwrap();
            let state = serde_json::from_str(&kept).unwrap();
            let spec = StabilitySpec { non_finite: UnstableStep::Stop, loss_spike: Some(spike) };
            let mut second = Stability::new(spec, state);
            assert_eq!(before + &verdicts(&mut second, &losses[cut..]), undisturbed);
            assert_eq!(second.state(), straight.state());
        }
    }
}
