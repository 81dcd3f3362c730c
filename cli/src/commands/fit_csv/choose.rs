//! The law beside others, by their errors on rows that each has not seen.
//!
//! The choice itself is `scaling::select`.

use scaling::fit::FitOptions;
use scaling::observation::Dataset;
use scaling::select::{Basis, Candidate, Split, select};

use super::read::Table;
use crate::output::file_fit::{CandidateView, SelectedBy, SplitView};

/// One view a law, the fitted one first, and by what one of them is preferred; empty where there is
/// nothing to compare with.
pub(super) fn choose(
    table: &Table,
    dataset: &Dataset,
    options: &FitOptions,
) -> anyhow::Result<(Vec<CandidateView>, Option<SelectedBy>)> {
    if table.against.is_empty() {
        return Ok((Vec::new(), None));
    }
    let laws: Vec<_> = std::iter::once(table.choice).chain(table.against.iter().copied()).collect();
    let selection = select(&laws, dataset, options)?;
    let views = selection.candidates.iter().enumerate();
    let views = views.map(|(index, one)| view(one, selection.preferred == Some(index))).collect();
    let by = selection.basis.map(|basis| match basis {
        Basis::Compute => SelectedBy::Compute,
        Basis::Sizes => SelectedBy::Sizes,
    });
    Ok((views, by))
}

fn view(candidate: &Candidate, is_preferred: bool) -> CandidateView {
    let splits = candidate.held_out.iter().filter_map(|one| one.as_ref().ok()).map(|one| {
        let split = match one.split {
            Split::Beyond { factor } => format!("C beyond 1/{factor} of the largest"),
            Split::LargestCompute => "the largest C".to_owned(),
            Split::Size { parameters } => format!("N = {parameters:.4e}"),
        };
        SplitView {
            split,
            n_fitted: one.n_fitted as u64,
            n_predicted: one.n_predicted as u64,
            mean_absolute_error: one.mean_absolute_error,
            bias: one.bias,
            worst_error: one.worst_error,
            error_at_largest: one.error_at_largest,
            coverage: one.coverage,
        }
    });
    CandidateView {
        law: candidate.choice.name.to_string(),
        n_parameters: candidate.n_parameters as u64,
        mean_absolute_error: candidate.error,
        mean_absolute_size_error: candidate.size_error,
        coverage: candidate.coverage,
        is_preferred,
        splits: splits.collect(),
    }
}
