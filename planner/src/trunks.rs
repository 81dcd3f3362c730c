//! Which runs of a study go on from another's checkpoint: under a rate that stays constant until
//! its decay, runs of one configuration are one run up to where the shorter decays.
//!
//! It trains nothing and changes no identity: a run that goes on is bit for bit what it would have
//! been from scratch.

use std::collections::BTreeMap;

use domain::ids::{ContentHash, RunId};
use domain::recipe::{CellConfig, Trunk};
use domain::spec::FlopKind;

use crate::PlannedCell;

/// Where a run stands in its trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTrunk {
    /// The step after which it leaves the trunk and a checkpoint is kept for longer runs.
    pub steps: u64,
    /// The run whose checkpoint it goes on from, and that checkpoint's step.
    pub from: Option<(RunId, u64)>,
}

impl PlannedCell {
    /// FLOPs that it need not spend, because another run of its trunk does.
    pub fn shared_flops(&self, kind: FlopKind) -> f64 {
        let CellConfig::Pretrain(cell) = &self.seedless.config;
        let from = self.trunk.as_ref().and_then(|trunk| trunk.from.as_ref());
        from.map_or(0.0, |(_, step)| cell.flops_at(*step, kind))
    }
}

/// The runs of a trunk by the step that leaves it and by their length, each with its cells.
type OfTrunk = BTreeMap<(u64, u64, RunId), Vec<usize>>;

/// Lets each run of a trunk go on from the longest one that leaves it earlier; of those that leave
/// it at one step the shortest goes there, and the others from it.
///
/// A run with a data point on the way to that step trains it itself, or its data point would be
/// missing.
pub(crate) fn link(cells: &mut [PlannedCell], trunks: &[Option<Trunk>]) {
    let mut runs: BTreeMap<&ContentHash, OfTrunk> = BTreeMap::new();
    for (index, trunk) in trunks.iter().enumerate() {
        let Some(trunk) = trunk else { continue };
        let CellConfig::Pretrain(cell) = &cells[index].seedless.config;
        let place = (trunk.steps, cell.steps, cells[index].run_id.clone());
        runs.entry(&trunk.hash).or_default().entry(place).or_default().push(index);
    }
    for of_trunk in runs.into_values() {
        let mut earlier: Option<(RunId, u64)> = None;
        let mut here: Option<(RunId, u64)> = None;
        for ((steps, _, run_id), indexes) in of_trunk {
            if here.as_ref().is_some_and(|(_, step)| *step < steps) {
                earlier = here.take();
            }
            let source = here.as_ref().or(earlier.as_ref());
            for index in indexes {
                let first_data_point = cells[index].seedless.data_point_steps.first().copied();
                let passes_none = |(_, step): &&(RunId, u64)| {
                    first_data_point.is_none_or(|data_point| *step < data_point)
                };
                let from = source.filter(passes_none).cloned();
                cells[index].trunk = Some(Box::new(PlannedTrunk { steps, from }));
            }
            here.get_or_insert((run_id, steps));
        }
    }
}
