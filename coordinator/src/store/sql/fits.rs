//! `save_fit`: a fitted report beside what it was made from.
//!
//! It does not fit; stored fits are read in `read`.

use serde_json::json;

use super::database::query;
use super::error::from_driver;
use super::writer::{Command, Tx};
use crate::store::{FitToSave, StoreError};

pub(super) struct SaveFit(pub(super) FitToSave);

impl Command for SaveFit {
    type Answer = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        let fit = self.0;
        let inserted = query(
            "INSERT INTO fits (id, study_id, inputs_hash, inputs_json, report_json, summary_json,
    created_at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING",
        )
        .bind(fit.id.as_str())
        .bind(fit.study.as_str())
        .bind(fit.inputs_hash.as_str())
        .bind(&fit.inputs_json)
        .bind(&fit.report_json)
        .bind(&fit.summary_json)
        .bind(tx.now_ms)
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
        if inserted.rows_affected() > 0 {
            let detail = json!({ "fit": fit.id.as_str() });
            tx.record(fit.study.as_str(), "study_fitted", &detail);
        }
        Ok(())
    }
}
