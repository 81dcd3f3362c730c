//! The groups of a file: those that are fitted, and those that cannot be.
//!
//! The fit of one of them is `super`'s.

use scaling::fit::FitError;
use scaling::ladder::LadderError;
use scaling::noise::TooFewSeeds;

use super::{Fitted, Job};
use crate::failure::Failure;
use crate::output::file_fit::UnfittedGroup;

/// What became of the groups of a file, each list in the order of their names.
pub(super) struct Groups {
    /// At least one.
    pub(super) fits: Vec<Fitted>,
    /// Empty without `--group-by`.
    pub(super) unfitted: Vec<UnfittedGroup>,
}

/// No row is left to be fitted.
#[derive(Debug, thiserror::Error)]
#[error("every row is held out")]
pub(super) struct NothingLeft;

impl Groups {
    /// That groups are missing, and what the others are then not.
    pub(super) fn warning(&self) -> Option<String> {
        let names: Vec<String> =
            self.unfitted.iter().map(|one| format!("`{}`", one.group)).collect();
        let n_groups = self.fits.len() + names.len();
        let is_alone = self.fits.len() < 2;
        let alone =
            if is_alone { "; fewer than two are left, so that none are compared" } else { "" };
        (!names.is_empty()).then(|| {
            format!(
                "unfitted-groups: {} of {n_groups} groups could not be fitted: {}{alone}",
                names.len(),
                names.join(", ")
            )
        })
    }
}

impl Job<'_> {
    /// The fits of the groups that have one.
    pub(super) fn groups(&self) -> Result<Vec<Fitted>, Failure> {
        Ok(self.by_group()?.fits)
    }

    /// Every group by itself; what is wrong with the command or with a row is no matter of one group.
    pub(super) fn by_group(&self) -> Result<Groups, Failure> {
        let mut groups = Groups { fits: Vec::new(), unfitted: Vec::new() };
        if self.args.columns.group_by.is_none() {
            groups.fits.push(self.fit(&self.table.rows)?);
            return Ok(groups);
        }
        // The table has the rows of a group beside each other.
        for rows in self.table.rows.chunk_by(|one, other| one.group == other.group) {
            let group = rows[0].group.clone();
            match self.fit(rows) {
                Ok(mut fitted) => {
                    fitted.report.group = Some(group);
                    groups.fits.push(fitted);
                }
                Err(failure) => match too_little(&failure) {
                    Some(reason) => groups.unfitted.push(UnfittedGroup { group, reason }),
                    None => return Err(failure.context(format!("group `{group}`"))),
                },
            }
        }
        if groups.fits.is_empty() {
            return Err(none_fitted(self, &groups.unfitted));
        }
        Ok(groups)
    }
}

/// Why a group has no fit, where it has too little for one.
fn too_little(failure: &Failure) -> Option<String> {
    let (Failure::Failed(error) | Failure::Wrong(error) | Failure::Unreachable(error)) = failure;
    if let Some(reason @ (FitError::TooFewPoints { .. } | FitError::NotConverged { .. })) =
        error.downcast_ref::<FitError>()
    {
        return Some(reason.to_string());
    }
    if let Some(reason @ LadderError::TooFew { .. }) = error.downcast_ref::<LadderError>() {
        return Some(format!("`--flops-per-token`: {reason}"));
    }
    if let Some(reason) = error.downcast_ref::<TooFewSeeds>() {
        return Some(format!("`--seed-noise`: {reason}"));
    }
    error.downcast_ref::<NothingLeft>().map(ToString::to_string)
}

/// The failure of a file none of whose groups has a fit, with the reason of each.
fn none_fitted(job: &Job<'_>, unfitted: &[UnfittedGroup]) -> Failure {
    let reasons = unfitted.iter().map(|one| format!("  group `{}`: {}", one.group, one.reason));
    Failure::wrong(format!(
        "`{}` has no group that can be fitted\n{}",
        job.file.display(),
        reasons.collect::<Vec<_>>().join("\n")
    ))
}
