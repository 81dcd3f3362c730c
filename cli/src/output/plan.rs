//! Plans as tables, and what applying one did.

use std::collections::BTreeMap;

use api::{ApplyView, PlanView, PlannedCellView};

use super::{View, format, sections, table};

impl View for PlanView {
    fn table(&self) -> String {
        let mut columns =
            vec!["CELL", ">N", ">STEPS", ">D", ">D/N", ">FLOPS", ">MEMORY", ">POINTS"];
        let mut rows: Vec<Vec<String>> = self.cells.iter().map(row).collect();
        if self.cells.iter().any(|cell| cell.continues.is_some()) {
            columns.push("GOES ON FROM");
            let names: BTreeMap<&str, &str> =
                self.cells.iter().map(|cell| (cell.run_id.as_str(), cell.name.as_str())).collect();
            for (row, cell) in rows.iter_mut().zip(&self.cells) {
                row.push(cell.continues.as_ref().map_or(String::new(), |from| {
                    let name = names.get(from.run_id.as_str()).copied().unwrap_or(&from.run_id);
                    format!("{name} at {}", from.step)
                }));
            }
        }
        let dropped: Vec<String> = self
            .dropped
            .iter()
            .map(|cell| format!("dropped `{}`: {}", cell.name, cell.reason))
            .collect();
        let warnings: Vec<String> =
            self.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        let title = format!("study `{}`, stage `{}` ({})", self.study, self.stage, self.recipe);
        sections(&[
            title,
            table(&columns, rows),
            dropped.join("\n"),
            warnings.join("\n"),
            total(self),
        ])
    }

    fn names(&self) -> Vec<String> {
        self.cells.iter().map(|cell| cell.name.clone()).collect()
    }
}

fn row(cell: &PlannedCellView) -> Vec<String> {
    let parameters = cell.parameters_non_embedding as f64;
    let tokens = cell.tokens as f64;
    vec![
        cell.name.clone(),
        format::count(parameters),
        cell.steps.to_string(),
        format::count(tokens),
        format!("{:.1}", tokens / parameters),
        format::flops(cell.flops_exact),
        format::bytes(cell.memory_bytes),
        cell.data_point_steps.len().to_string(),
    ]
}

/// The totals in a sentence, and what the columns count.
fn total(plan: &PlanView) -> String {
    let shared = match plan.flops_exact_shared {
        0.0 => String::new(),
        shared => format!(
            "{} FLOPs of these are saved: runs go on from others of their trunk\n",
            format::flops(shared)
        ),
    };
    format!(
        "{} cells, {} runs, {} dropped; {} tokens, {} FLOPs (exact, head included)\n{shared}\
         N without embeddings and head; D training tokens; memory estimated, beside libtorch",
        plan.cells.len(),
        plan.n_runs,
        plan.dropped.len(),
        format::count(plan.tokens_total as f64),
        format::flops(plan.flops_exact_total),
    )
}

impl View for ApplyView {
    fn table(&self) -> String {
        let verb = if self.is_update { "updated" } else { "applied" };
        let mut lines = vec![format!(
            "study `{}` {verb}: {} cells, {} new runs, {} runs that were there ({} with their \
             result)",
            self.study,
            self.plan.cells.len(),
            self.n_new_runs,
            self.n_reused_runs,
            self.n_reused_succeeded
        )];
        if self.n_missed_data_points > 0 {
            lines.push(format!(
                "warning: {} data points are never measured: the runs that were there have passed \
                 them without a checkpoint",
                self.n_missed_data_points
            ));
        }
        if self.n_removed_cells > 0 {
            lines.push(format!("{} cells are no longer part of it", self.n_removed_cells));
        }
        lines.extend(self.plan.warnings.iter().map(|warning| format!("warning: {warning}")));
        let spent = self.plan.flops_exact_total - self.plan.flops_exact_shared;
        let shared = match self.plan.flops_exact_shared {
            0.0 => String::new(),
            _ => format!(", {} of them to be spent: the rest is shared", format::flops(spent)),
        };
        lines.push(format!(
            "{} FLOPs{shared}, {} tokens in all",
            format::flops(self.plan.flops_exact_total),
            format::count(self.plan.tokens_total as f64)
        ));
        lines.join("\n")
    }

    fn names(&self) -> Vec<String> {
        vec![self.study.clone()]
    }
}
