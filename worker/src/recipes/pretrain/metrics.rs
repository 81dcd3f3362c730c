//! The metric points of a run: what each value is, and where its time was measured.
//!
//! It trains nothing and waits for nothing.

use std::collections::HashMap;
use std::time::Duration;

use proto::v1::{self, event::Kind};
use tch::Device;
use torch_ext::TorchError;

use super::plan::Plan;
use crate::device;

/// What a step measured. Norm and loss are those before the update; the loss is the mean over the
/// batch in nats per token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) loss_nats: f64,
    pub(super) gradient_norm: f64,
    pub(super) n_skipped_steps: u64,
}

/// Where the time of a step went. The step is loading, forward, backward, clip and update; what a
/// checkpoint holds up lies between two steps and is told with the earlier one. That its writing takes
/// cores from the steps beside it shows in their times, not in its stall.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) step: Duration,
    pub(super) data_wait: Duration,
    pub(super) checkpoint_stall: Duration,
    /// Since this attempt's first step began: with everything that lies between steps.
    pub(super) since_first_step: Duration,
}

/// The denominator of MFU: the fastest product of matrices that the process had seen when the attempt
/// began.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeakRate {
    pub(super) flops_per_second: f64,
}

/// Lets the peak of the memory begin with this attempt. A kernel that cannot forget it goes on with
/// that of the process.
pub(super) fn forget_peak_memory(device: Device) -> Result<(), TorchError> {
    if device == Device::Cpu {
        device::forget_peak_resident();
        return Ok(());
    }
    torch_ext::reset_peak_memory(device)
}

/// What the process holds of the device's memory and the most since the attempt began; of the CPU's,
/// what is in RAM.
fn memory_bytes(device: Device) -> Option<(u64, u64)> {
    if device == Device::Cpu {
        return device::resident_bytes();
    }
    let memory = torch_ext::device_memory(device).ok()?;
    Some((memory.reserved_bytes, memory.reserved_peak_bytes))
}

impl Plan {
    /// The point of a step, counted from 1. A step that broke off has no times.
    pub(super) fn point(
        &self,
        step: u64,
        measured: Measured,
        times: Option<Times>,
        peak: PeakRate,
    ) -> Kind {
        let tokens = self.cell.tokens_at(step) as f64;
        let mut values = vec![
            ("train_loss_nats", measured.loss_nats),
            ("gradient_norm", measured.gradient_norm),
            ("learning_rate", self.cell.learning_rate(step - 1)),
            ("tokens", tokens),
            ("flops", self.step_flops() * step as f64),
        ];
        if self.may_skip_steps() {
            values.push(("skipped_steps", measured.n_skipped_steps as f64));
        }
        for (name, flops_per_token) in &self.flop_terms {
            values.push((name.as_str(), flops_per_token * tokens));
        }
        if let Some((bytes, peak_bytes)) = memory_bytes(self.device) {
            values
                .extend([("memory_bytes", bytes as f64), ("memory_peak_bytes", peak_bytes as f64)]);
        }
        if let Some(times) = times {
            let seconds = times.step.as_secs_f64().max(1e-9);
            let flops_per_second = self.step_flops() / seconds;
            values.extend([
                ("tokens_per_second", self.cell.batch_tokens() as f64 / seconds),
                ("flops_per_second", flops_per_second),
                ("mfu", flops_per_second / peak.flops_per_second),
                ("peak_flops_per_second", peak.flops_per_second),
                ("data_wait_seconds", times.data_wait.as_secs_f64()),
                ("checkpoint_stall_seconds", times.checkpoint_stall.as_secs_f64()),
                ("elapsed_seconds", times.since_first_step.as_secs_f64()),
            ]);
        }
        let values: HashMap<String, f64> =
            values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Kind::Point(v1::MetricPoint { step, values })
    }
}
