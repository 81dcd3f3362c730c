//! What a change changed.

use api::ChangeView;

use super::View;

impl View for ChangeView {
    fn table(&self) -> String {
        match self.run_ids.len() {
            0 => "no run is concerned".to_owned(),
            1 => format!("1 run is concerned:\n{}", self.run_ids.join("\n")),
            n => format!("{n} runs are concerned:\n{}", self.run_ids.join("\n")),
        }
    }

    fn names(&self) -> Vec<String> {
        self.run_ids.clone()
    }
}
