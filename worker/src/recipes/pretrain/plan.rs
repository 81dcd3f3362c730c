//! What a training assignment asks for, decoded and checked once.
//!
//! It computes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::cell::Identity;
use domain::recipe::{CellConfig, NUMERICS_VERSION, PretrainCell};
use domain::spec::{FlopKind, UnstableStep};
use proto::v1;
use tch::Device;

use super::super::{Context, RecipeError};
use crate::checkpoint::Owner;

/// A decoded training assignment.
#[derive(Debug)]
pub(super) struct Plan {
    /// What is trained, and how.
    pub(super) cell: PretrainCell,
    /// What checkpoints say that they belong to.
    pub(super) owner: Owner,
    /// What it is trained on.
    pub(super) device: Device,
    /// What decides the rounding.
    pub(super) numerics: v1::Numerics,
    /// How often a checkpoint is written for recovery only; absent means never.
    pub(super) rolling: Option<Duration>,
    /// Where this attempt's checkpoints lie; ends in `/`.
    pub(super) key_prefix: String,
    /// The named terms of `flops_exact` for each token, by the names of their metrics.
    pub(super) flop_terms: Vec<(String, f64)>,
    data_point_steps: BTreeSet<u64>,
    branch_step: u64,
    flops_per_token: f64,
}

impl Plan {
    /// Decodes the assignment; warns when what the first attempt fixed cannot be had here.
    pub(super) fn new(context: &mut Context<'_>, work: &v1::Train) -> Result<Self, RecipeError> {
        let config: CellConfig = Identity::parse(&work.config_json)?;
        let owner = Owner::new(&config)?;
        let CellConfig::Pretrain(cell) = config;
        if cell.numerics_version != NUMERICS_VERSION {
            return Err(RecipeError::Version {
                what: "the trainer's arithmetic".to_owned(),
                expected: cell.numerics_version,
                found: NUMERICS_VERSION,
            });
        }
        let numerics = numerics(context, work, &cell);
        if let Some(fixed) = &work.numerics
            && *fixed != numerics
        {
            let text = format!(
                "the numerics are not those of the first attempt ({}): the result is equal to \
                 rounding only",
                differences(&numerics, fixed)
            );
            context.report.log("warn", text);
        }
        let rolling = u64::from(work.rolling_checkpoint_seconds);
        Ok(Self {
            flop_terms: flop_terms(&cell),
            flops_per_token: cell.flops_per_token(FlopKind::Exact),
            data_point_steps: work.data_point_steps.iter().copied().collect(),
            rolling: (rolling > 0).then(|| Duration::from_secs(rolling)),
            key_prefix: key_prefix(context.assignment),
            device: context.host.compute.device,
            branch_step: work.branch_step,
            cell,
            owner,
            numerics,
        })
    }

    /// Whether the checkpoint after so many updates is a data point. The last one always is.
    pub(super) fn is_data_point(&self, step: u64) -> bool {
        step == self.cell.steps || self.data_point_steps.contains(&step)
    }

    /// Whether a checkpoint is due after so many updates, however long ago the last one was.
    pub(super) fn needs_checkpoint(&self, step: u64) -> bool {
        self.is_data_point(step) || step == self.branch_step
    }

    /// Whether the study lets steps be passed over.
    pub(super) fn may_skip_steps(&self) -> bool {
        let stability = &self.cell.training.stability;
        let spike = stability.loss_spike.map(|spike| spike.then);
        [Some(stability.non_finite), spike]
            .into_iter()
            .flatten()
            .any(|step| matches!(step, UnstableStep::Skip { .. }))
    }

    /// FLOPs of the step's forward and backward passes, from the tensor shapes.
    pub(super) fn step_flops(&self) -> f64 {
        self.flops_per_token * self.cell.batch_tokens() as f64
    }
}

fn flop_terms(cell: &PretrainCell) -> Vec<(String, f64)> {
    let count = cell.model.flops_exact(u64::from(cell.training.sequence_length));
    count.terms.iter().map(|term| (format!("flops_{}", term.name), term.flops)).collect()
}

/// What the first attempt fixed as far as it can be had, else what this machine offers.
fn numerics(context: &Context<'_>, work: &v1::Train, cell: &PretrainCell) -> v1::Numerics {
    let fixed = work.numerics.as_ref();
    let here = context.numerics();
    let batch = cell.training.batch_sequences;
    let given = |count: u32| (count > 0).then_some(count);
    let micro_batch = fixed
        .and_then(|fixed| given(fixed.micro_batch_sequences))
        .or(given(work.micro_batch_sequences))
        .map_or(batch, |sequences| sequences.min(batch));
    let threads = fixed.and_then(|fixed| given(fixed.intra_op_threads));
    v1::Numerics {
        intra_op_threads: threads.unwrap_or(here.intra_op_threads),
        micro_batch_sequences: micro_batch,
        ..here
    }
}

/// What differs, each as `what HERE instead of THERE`.
fn differences(here: &v1::Numerics, fixed: &v1::Numerics) -> String {
    let values = |numerics: &v1::Numerics| {
        let v1::Numerics {
            device_kind,
            intra_op_threads,
            micro_batch_sequences,
            cpu_capability,
            libtorch_version,
        } = numerics.clone();
        [
            ("device", device_kind),
            ("threads", intra_op_threads.to_string()),
            ("micro-batch", micro_batch_sequences.to_string()),
            ("capability", cpu_capability),
            ("libtorch", libtorch_version),
        ]
    };
    let pairs = values(here).into_iter().zip(values(fixed));
    let differing = pairs.filter(|(here, fixed)| here != fixed);
    let texts =
        differing.map(|((what, here), (_, fixed))| format!("{what} {here} instead of {fixed}"));
    texts.collect::<Vec<_>>().join(", ")
}

/// The folder of the attempt. Its token stands in the name too: a store that was restored counts
/// attempts again from where it was, and tokens never.
fn key_prefix(assignment: &v1::Assignment) -> String {
    format!("runs/{}/{}-{}/", assignment.work_id, assignment.attempt, assignment.lease_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let here = v1::Numerics {
            device_kind: "cpu".into(),
            intra_op_threads: 1,
            micro_batch_sequences: 2,
            cpu_capability: "AVX512".into(),
            libtorch_version: "2.11.0".into(),
        };
        let fixed = v1::Numerics { device_kind: "cuda".into(), ..here.clone() };
        assert_eq!(differences(&here, &fixed), "device cpu instead of cuda");
        let fixed =
            v1::Numerics { intra_op_threads: 4, cpu_capability: "AVX2".into(), ..here.clone() };
        let expected = "threads 1 instead of 4, capability AVX512 instead of AVX2";
        assert_eq!(differences(&here, &fixed), expected);
    }
}
