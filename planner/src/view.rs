//! A plan as the API shows it.

use std::collections::BTreeSet;

use api::{ContinuesView, DroppedCellView, PlanView, PlannedCellView};
use domain::recipe::CellConfig;
use domain::spec::{FlopKind, ParameterKind};

use crate::{Plan, PlannedCell};

/// The plan as `gradus plan --json` and `POST /api/v1/plan` show it. Totals count each run once.
pub fn plan_view(plan: &Plan) -> PlanView {
    let cells: Vec<PlannedCellView> = plan.cells.iter().map(cell_view).collect();
    let mut seen = BTreeSet::new();
    let runs: Vec<&PlannedCellView> =
        cells.iter().filter(|cell| seen.insert(cell.run_id.as_str())).collect();
    let mut seen = BTreeSet::new();
    let distinct = plan.cells.iter().filter(|cell| seen.insert(&cell.run_id));
    let shared = distinct.map(|cell| cell.shared_flops(FlopKind::Exact)).sum();
    PlanView {
        study: plan.study.clone(),
        stage: plan.stage.clone(),
        recipe: plan.cells.first().map_or("pretrain", |cell| cell.config.recipe()).to_owned(),
        n_runs: runs.len() as u64,
        flops_exact_total: runs.iter().map(|cell| cell.flops_exact).sum(),
        flops_exact_shared: shared,
        tokens_total: runs.iter().map(|cell| cell.tokens).sum(),
        dropped: plan.dropped.iter().map(dropped_view).collect(),
        warnings: plan.warnings.clone(),
        cells,
    }
}

fn dropped_view(dropped: &crate::DroppedCell) -> DroppedCellView {
    DroppedCellView { name: dropped.name.clone(), reason: dropped.reason.clone() }
}

fn cell_view(planned: &PlannedCell) -> PlannedCellView {
    let CellConfig::Pretrain(cell) = &planned.config;
    PlannedCellView {
        name: planned.name.clone(),
        axis_values: planned.axis_values.clone(),
        run_id: planned.run_id.to_string(),
        identity_hash: planned.identity.hash.to_string(),
        parameters_non_embedding: cell.parameters(ParameterKind::NonEmbedding),
        parameters_total: cell.parameters(ParameterKind::Total),
        steps: cell.steps,
        tokens: cell.tokens_at(cell.steps),
        flops_exact: cell.flops_at(cell.steps, FlopKind::Exact),
        flops_published: cell.flops_at(cell.steps, FlopKind::Published),
        budget_flops: planned.budget_flops,
        memory_bytes: planned.memory_bytes,
        data_point_steps: planned.data_point_steps.clone(),
        continues: planned
            .trunk
            .as_ref()
            .and_then(|trunk| trunk.from.as_ref())
            .map(|(run_id, step)| ContinuesView { run_id: run_id.to_string(), step: *step }),
    }
}
