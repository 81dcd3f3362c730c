//! Runs as tables: the list, one of them, its log.

use api::{
    AttemptView, CheckpointView, EvaluationView, LogLineView, LogList, RunList, RunSummary, RunView,
};

use super::{View, format, pairs, rows_or_nothing, sections, table};

impl View for RunList {
    fn table(&self) -> String {
        if self.runs.is_empty() {
            return "no runs yet".to_owned();
        }
        let mut studies: Vec<&str> = self.runs.iter().map(|run| run.study.as_str()).collect();
        studies.sort_unstable();
        studies.dedup();
        table_of(&self.runs, studies.len() > 1)
    }

    fn names(&self) -> Vec<String> {
        self.runs.iter().map(|run| run.id.clone()).collect()
    }
}

/// Runs, one a line.
pub(crate) fn table_of(runs: &[RunSummary], with_study: bool) -> String {
    let mut columns = vec!["RUN", "STATE", ">STEP", ">N", ">FLOPS", ">TRAIN", ">VALID", ">TOK/S"];
    if with_study {
        columns.insert(1, "STUDY");
    }
    let row = |run: &RunSummary| {
        let mut row = vec![
            run.name.clone(),
            run.state.clone(),
            format!("{}/{}", run.step, run.steps),
            format::count(run.parameters_non_embedding as f64),
            format::flops(run.flops_exact),
            format::loss(run.train_loss_nats),
            format::loss(run.validation_loss_nats),
            format::optional(run.tokens_per_second, format::count),
        ];
        if with_study {
            row.insert(1, run.study.clone());
        }
        row
    };
    let lines = table(&columns, runs.iter().map(row).collect());
    let messages: Vec<String> = runs
        .iter()
        .filter(|run| !run.message.is_empty() && run.state != "succeeded")
        .map(|run| format!("`{}`: {}", run.name, first_line(&run.message)))
        .collect();
    sections(&[lines, messages.join("\n")])
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

impl View for RunView {
    fn table(&self) -> String {
        let run = &self.summary;
        let axes: Vec<String> =
            run.axis_values.iter().map(|(axis, value)| format!("{axis} = {value}")).collect();
        let cells: Vec<String> =
            self.cells.iter().map(|cell| format!("{}/{}", cell.study, cell.cell)).collect();
        let continues = self.continues.as_ref().map_or_else(String::new, |from| {
            format!("step {} of {}, whose trunk it shares", from.step, from.run_id)
        });
        let changed = "an attempt changed threads or device; equal to rounding only";
        let facts = pairs(&[
            ("run", format!("{} ({})", run.name, run.id)),
            ("state", run.state.clone()),
            ("message", run.message.clone()),
            ("worker", run.worker.clone().unwrap_or_default()),
            ("step", format!("{} of {}", run.step, run.steps)),
            (
                "parameters",
                format!(
                    "{} without embeddings and head, {} in all",
                    run.parameters_non_embedding, run.parameters_total
                ),
            ),
            ("tokens", run.tokens.to_string()),
            (
                "FLOPs",
                format!(
                    "{} exact, {} published",
                    format::flops(run.flops_exact),
                    format::flops(run.flops_published)
                ),
            ),
            ("training loss", format::loss(run.train_loss_nats)),
            ("validation loss", format::loss(run.validation_loss_nats)),
            ("goes on from", continues),
            ("axes", axes.join(", ")),
            ("cells", cells.join(", ")),
            ("identity", self.identity_hash.clone()),
            ("numerics", if run.has_changed_numerics { changed.to_owned() } else { String::new() }),
        ]);
        let config = serde_json::to_string_pretty(&self.config).unwrap_or_default();
        sections(&[
            facts,
            attempts(&self.attempts),
            checkpoints(&self.checkpoints),
            evaluations(&self.evaluations),
            format!("configuration\n{config}"),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.summary.id.clone()]
    }
}

fn attempts(attempts: &[AttemptView]) -> String {
    let row = |attempt: &AttemptView| {
        let ended = attempt.ended_as.clone().unwrap_or_else(|| attempt.state.clone());
        let seconds = attempt.ended_at_ms.zip(attempt.started_at_ms);
        vec![
            attempt.attempt.to_string(),
            ended,
            workers(attempt),
            attempt.resumed_from_step.map_or_else(|| "–".to_owned(), |step| step.to_string()),
            format::time(attempt.granted_at_ms),
            format::optional(
                seconds.map(|(end, start)| (end - start) as f64 / 1000.0),
                format::duration,
            ),
            first_line(&attempt.message).to_owned(),
        ]
    };
    let columns = [">ATTEMPT", "END", "WORKER", ">FROM STEP", "GRANTED", ">TOOK", "MESSAGE"];
    rows_or_nothing(&columns, attempts.iter().map(row).collect())
}

/// Who had it: of a gang rank 0, and how many slots each other worker gave beside it.
fn workers(attempt: &AttemptView) -> String {
    let mut slots: Vec<(&str, usize)> = vec![(&attempt.worker, 1)];
    for member in &attempt.members {
        match slots.iter_mut().find(|(worker, _)| worker == member) {
            Some((_, n)) => *n += 1,
            None => slots.push((member, 1)),
        }
    }
    let named = |(worker, n): &(&str, usize)| match n {
        1 => (*worker).to_owned(),
        n => format!("{worker} ×{n}"),
    };
    slots.iter().map(named).collect::<Vec<_>>().join(", ")
}

fn checkpoints(checkpoints: &[CheckpointView]) -> String {
    let row = |checkpoint: &CheckpointView| {
        let kind = match (checkpoint.is_data_point, checkpoint.is_superseded) {
            (true, _) => "data point",
            (false, false) => "rolling",
            (false, true) => "superseded",
        };
        vec![
            checkpoint.step.to_string(),
            kind.to_owned(),
            checkpoint.attempt.to_string(),
            format::bytes(checkpoint.n_bytes),
            checkpoint.weights_hash.get(..12).unwrap_or_default().to_owned(),
            checkpoint.refused_reason.clone().unwrap_or_default(),
        ]
    };
    let columns = [">CHECKPOINT", "KIND", ">ATTEMPT", ">SIZE", "WEIGHTS", "REFUSED"];
    rows_or_nothing(&columns, checkpoints.iter().map(row).collect())
}

fn evaluations(evaluations: &[EvaluationView]) -> String {
    let row = |evaluation: &EvaluationView| {
        vec![
            evaluation.step.to_string(),
            evaluation.task.clone(),
            evaluation.state.clone(),
            format::loss(evaluation.value),
            format::optional(evaluation.standard_error, |error| format!("±{error:.4}")),
            format::count(evaluation.tokens as f64),
            format::flops(evaluation.flops_exact),
        ]
    };
    let columns = [">STEP", "EVALUATION", "STATE", ">VALUE", ">ERROR", ">D", ">FLOPS"];
    rows_or_nothing(&columns, evaluations.iter().map(row).collect())
}

impl View for LogList {
    fn table(&self) -> String {
        let lines: Vec<String> = self.lines.iter().map(log_line).collect();
        lines.join("\n")
    }

    fn names(&self) -> Vec<String> {
        self.lines.iter().map(|line| line.text.clone()).collect()
    }
}

/// A log line for people. What would command the terminal is written out, as in `\u{1b}`: the text is
/// whatever a trainer printed.
pub(crate) fn log_line(line: &LogLineView) -> String {
    let mut text = String::with_capacity(line.text.len());
    for letter in line.text.chars() {
        if letter.is_control() && letter != '\t' {
            text.extend(letter.escape_default());
        } else {
            text.push(letter);
        }
    }
    format!("{} [{}] {:5} {text}", format::time(line.at_ms), line.attempt, line.level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_command_the_terminal_is_written_out_in_a_log() {
        let text = "a\tb \u{1b}[2J\r\u{9b}é".to_owned();
        let line = LogLineView { id: 1, attempt: 2, at_ms: 0, level: "info".to_owned(), text };
        assert!(log_line(&line).ends_with("[2] info  a\tb \\u{1b}[2J\\r\\u{9b}é"));
    }
}
