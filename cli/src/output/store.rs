//! A copied store.

use api::StoreCopyView;

use super::{View, pairs, sections, table};

impl View for StoreCopyView {
    fn table(&self) -> String {
        let rows = self.tables.iter().map(|one| vec![one.name.clone(), one.n_rows.to_string()]);
        let artifacts = match &self.artifacts {
            Some(folder) => format!("not copied; those of the source are in `{folder}`"),
            None => "not copied; those of the source are where `gradus-coordinator --artifacts` \
                     says"
                .to_owned(),
        };
        sections(&[
            table(&["TABLE", ">ROWS"], rows.collect()),
            pairs(&[
                ("from", self.from.clone()),
                (if self.is_dry_run { "would go to" } else { "to" }, self.to.clone()),
                ("artifacts", artifacts),
            ]),
        ])
    }

    fn names(&self) -> Vec<String> {
        vec![self.to.clone()]
    }
}
