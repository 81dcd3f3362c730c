//! A plan as the API shows it.

use std::collections::HashSet;

use api::{ContinuesView, DroppedCellView, PlanView, PlannedCellView};
use domain::recipe::CellConfig;
use domain::spec::FlopKind;

use crate::{Plan, PlannedCell};

/// The plan as `gradus plan --json` and `POST /api/v1/plan` show it. Totals count each run once.
pub fn plan_view(plan: &Plan) -> PlanView {
    PlanView { cells: plan.cells.iter().map(cell_view).collect(), ..plan_outline(plan) }
}

/// The same without its cells, of which there may be a million.
pub fn plan_outline(plan: &Plan) -> PlanView {
    let mut seen = HashSet::new();
    let mut outline = PlanView {
        study: plan.study.clone(),
        stage: plan.stage.clone(),
        recipe: plan.cells.first().map_or("pretrain", |cell| cell.seedless.config.recipe()).into(),
        cells: Vec::new(),
        dropped: plan.dropped.iter().map(dropped_view).collect(),
        warnings: plan.warnings.clone(),
        n_runs: 0,
        flops_exact_total: 0.0,
        flops_exact_shared: 0.0,
        tokens_total: 0,
    };
    for planned in plan.cells.iter().filter(|cell| seen.insert(cell.run_id.as_str())) {
        let CellConfig::Pretrain(cell) = &planned.seedless.config;
        outline.n_runs += 1;
        outline.flops_exact_total += planned.seedless.flops_exact;
        outline.flops_exact_shared += planned.shared_flops(FlopKind::Exact);
        // Each is bounded, but there may be a million of them.
        let tokens = cell.tokens_at(cell.steps);
        outline.tokens_total = outline.tokens_total.saturating_add(tokens);
    }
    outline
}

fn dropped_view(dropped: &crate::DroppedCell) -> DroppedCellView {
    DroppedCellView { name: dropped.name.clone(), reason: dropped.reason.clone() }
}

/// One cell of it.
pub fn cell_view(planned: &PlannedCell) -> PlannedCellView {
    let seedless = &planned.seedless;
    let CellConfig::Pretrain(cell) = &seedless.config;
    let axis_values = planned.axis_values.to_map().into_iter();
    PlannedCellView {
        name: planned.name.clone(),
        axis_values: axis_values.map(|(axis, value)| (axis.into(), value.into())).collect(),
        run_id: planned.run_id.to_string(),
        identity_hash: planned.identity_hash.to_string(),
        parameters_non_embedding: seedless.parameters_non_embedding,
        parameters_total: seedless.parameters_total,
        steps: cell.steps,
        tokens: cell.tokens_at(cell.steps),
        flops_exact: seedless.flops_exact,
        flops_published: seedless.flops_published,
        budget_flops: seedless.budget_flops,
        memory_bytes: seedless.memory_bytes,
        data_point_steps: seedless.data_point_steps.clone(),
        continues: planned
            .trunk
            .as_ref()
            .and_then(|trunk| trunk.from.as_ref())
            .map(|(run_id, step)| ContinuesView { run_id: run_id.to_string(), step: *step }),
    }
}
