//! What a study file may say and yet seldom means.

use std::collections::BTreeMap;

use domain::recipe::CellConfig;
use domain::spec::{DesignSpec, FitMethod, PretrainSpec, ScheduleSpec, StudySpec};

use crate::{Plan, PlannedCell};

/// The warnings of a plan, each a sentence.
pub(crate) fn of(spec: &StudySpec, pretrain: &PretrainSpec, plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(unlike_checkpoints(spec, &plan.cells));
    warnings.extend(points_in_warm_up(&plan.cells));
    if spec.fit.methods.contains(&FitMethod::Isoflop)
        && !matches!(pretrain.design, DesignSpec::Isoflop { .. })
    {
        warnings.push(
            "`fit.methods` has `isoflop`, but the design has no budgets at which sizes could be \
             compared"
                .to_owned(),
        );
    }
    warnings.extend(shared_runs(&plan.cells));
    warnings
}

/// Under a decaying schedule a checkpoint on the way is not what a shorter run would have been.
fn unlike_checkpoints(spec: &StudySpec, cells: &[PlannedCell]) -> Option<String> {
    let is_decaying = |planned: &&PlannedCell| {
        let CellConfig::Pretrain(cell) = &planned.config;
        !matches!(cell.training.schedule, ScheduleSpec::Constant { .. })
            && planned.data_point_steps.len() > 1
    };
    if !spec.fit.methods.contains(&FitMethod::Envelope) {
        return None;
    }
    cells.iter().find(is_decaying).map(|cell| {
        format!(
            "`fit.methods` has `envelope`, but the learning rate of `{}` decays: its checkpoints on \
             the way are not comparable with the ends of shorter runs; use a constant schedule, or \
             `checkpoints: final`",
            cell.name
        )
    })
}

fn points_in_warm_up(cells: &[PlannedCell]) -> Option<String> {
    let inside = |planned: &&PlannedCell| {
        let CellConfig::Pretrain(cell) = &planned.config;
        planned.data_point_steps[0] < cell.training.schedule.warmup_steps()
    };
    let n = cells.iter().filter(inside).count();
    cells.iter().find(inside).map(|cell| {
        format!(
            "{n} of {} cells have a data point inside the warm-up (`{}` at step {}), where the loss \
             says little; set `checkpoints.log_spaced.first_step`",
            cells.len(),
            cell.name,
            cell.data_point_steps[0]
        )
    })
}

fn shared_runs(cells: &[PlannedCell]) -> Vec<String> {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    let mut warnings = Vec::new();
    for cell in cells {
        let earlier = *first.entry(cell.run_id.as_str()).or_insert(&cell.name);
        if earlier != cell.name {
            warnings.push(format!(
                "`{}` is the same configuration as `{earlier}`; it is trained once",
                cell.name
            ));
        }
    }
    warnings
}
