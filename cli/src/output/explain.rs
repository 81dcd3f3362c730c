//! Why something is not running, in sentences.

use api::{ExplainView, ReasonView};

use super::{View, pairs, sections};

impl View for ExplainView {
    fn table(&self) -> String {
        let name = if self.name == self.id {
            self.name.clone()
        } else {
            format!("{} ({})", self.name, self.id)
        };
        let facts = pairs(&[(self.kind.as_str(), name), ("state", self.state.clone())]);
        let reasons: Vec<String> = self.reasons.iter().map(reason).collect();
        sections(&[facts, reasons.join("\n")])
    }

    fn names(&self) -> Vec<String> {
        self.reasons.iter().map(|reason| reason.code.clone()).collect()
    }
}

fn reason(reason: &ReasonView) -> String {
    if reason.remedy.is_empty() {
        format!("- {}", reason.message)
    } else {
        format!("- {}\n  to change that: {}", reason.message, reason.remedy)
    }
}
