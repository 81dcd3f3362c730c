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

#[cfg(test)]
mod tests {
    use api::TableRowsView;
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn a_copy_shows_its_rows_and_where_the_artifacts_are() {
        let table = |name: &str, n_rows| TableRowsView { name: name.into(), n_rows };
        let copied = StoreCopyView {
            from: ".gradus/store.db".into(),
            to: "backup.db".into(),
            is_dry_run: false,
            tables: vec![table("studies", 2), table("point_chunks", 1234)],
            artifacts: Some(".gradus/artifacts".into()),
        };
        assert_snapshot!(copied.table(), @r"
        TABLE         ROWS
        studies          2
        point_chunks  1234

        from       .gradus/store.db
        to         backup.db
        artifacts  not copied; those of the source are in `.gradus/artifacts`
        ");
        let planned = StoreCopyView { is_dry_run: true, artifacts: None, ..copied };
        assert!(planned.table().contains("would go to  backup.db"), "{}", planned.table());
    }
}
