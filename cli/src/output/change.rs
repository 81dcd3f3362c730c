//! What a change changed.

use api::ChangeView;

use super::View;

impl View for ChangeView {
    fn table(&self) -> String {
        match self.run_ids.len() {
            0 => "no run changed its state".to_owned(),
            1 => format!("1 run changed its state:\n{}", self.run_ids.join("\n")),
            n => format!("{n} runs changed their state:\n{}", self.run_ids.join("\n")),
        }
    }

    fn names(&self) -> Vec<String> {
        self.run_ids.clone()
    }
}
