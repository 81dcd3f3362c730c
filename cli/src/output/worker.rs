//! Workers as tables.

use api::{AssignmentView, WorkerList, WorkerView};

use super::{View, format, table};

impl View for WorkerList {
    fn table(&self) -> String {
        if self.workers.is_empty() { "no workers yet".to_owned() } else { table_of(&self.workers) }
    }

    fn names(&self) -> Vec<String> {
        self.workers.iter().map(|worker| worker.id.clone()).collect()
    }
}

/// Workers, one a line, with what they do.
pub(crate) fn table_of(workers: &[WorkerView]) -> String {
    let row = |worker: &WorkerView| {
        let doing: Vec<String> = worker.assignments.iter().map(assignment).collect();
        vec![
            worker.name.clone(),
            worker.state.clone(),
            worker.n_slots.to_string(),
            format!("{} ×{}", worker.device_kind, worker.threads_per_slot),
            if doing.is_empty() { "idle".to_owned() } else { doing.join("\n") },
        ]
    };
    table(&["WORKER", "STATE", ">SLOTS", "DEVICE", "DOING"], workers.iter().map(row).collect())
}

/// What a slot is doing, in a line.
pub(crate) fn assignment(assignment: &AssignmentView) -> String {
    let name = if assignment.name.is_empty() { &assignment.work_id } else { &assignment.name };
    if assignment.rank > 0 {
        return format!("holds a slot for {name} (rank {})", assignment.rank);
    }
    let what = match assignment.kind.as_str() {
        "run" => name.clone(),
        "evaluation" => format!("evaluating {name}"),
        "preparation" => "preparing data".to_owned(),
        other => format!("{other} {name}"),
    };
    let mut parts = vec![what];
    if let Some((step, steps)) = assignment.step.zip(assignment.steps) {
        parts.push(format!("{step}/{steps}"));
    }
    if let Some(loss) = assignment.train_loss_nats {
        parts.push(format!("loss {loss:.3}"));
    }
    if let Some(speed) = assignment.tokens_per_second {
        parts.push(format!("{} tok/s", format::count(speed)));
    }
    if let Some(eta) = assignment.eta_seconds {
        parts.push(format!("{} left", format::duration(eta)));
    }
    parts.join(" ")
}
