//! What has happened, a line each.

use api::{HistoryEvent, HistoryPage};

use super::{View, format, table};

impl View for HistoryPage {
    fn table(&self) -> String {
        let row = |event: &HistoryEvent| {
            vec![
                format::time(event.at_ms),
                event.actor.clone(),
                event.kind.replace('_', " "),
                event.subject.clone(),
                detail(event),
            ]
        };
        table(&["when", "who", "what", "of", ""], self.events.iter().map(row).collect())
    }

    fn names(&self) -> Vec<String> {
        self.events.iter().map(|event| event.kind.clone()).collect()
    }
}

/// What people want to know of it; the rest is in `--json`.
fn detail(event: &HistoryEvent) -> String {
    ["reason", "why", "pattern", "ended_as", "priority", "step"]
        .into_iter()
        .filter_map(|key| match event.detail.get(key)? {
            serde_json::Value::String(text) if text.is_empty() => None,
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(format!("{key} {other}")),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_when_who_what_and_why() {
        let event = |id, kind: &str, actor: &str, detail| HistoryEvent {
            id,
            at_ms: 0,
            subject: "s_1".into(),
            kind: kind.into(),
            actor: actor.into(),
            detail,
        };
        let page = HistoryPage {
            events: vec![
                event(1, "study_applied", "user ada", json!({ "n_new_runs": 3 })),
                event(2, "study_paused", "user bob", json!({ "reason": "lunch" })),
                event(3, "run_queued", "coordinator", json!({ "ended_as": "worker_lost" })),
            ],
        };
        let text = page.table();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("user ada") && lines[1].contains("study applied"), "{text}");
        assert!(lines[2].ends_with("lunch") && lines[3].ends_with("worker_lost"), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    }
}
