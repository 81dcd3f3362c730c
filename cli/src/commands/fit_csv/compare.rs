//! The groups of a file beside each other: loss at a budget, compute for equal loss, where they cross.
//!
//! The comparison itself is `scaling::compare`.

use api::{BudgetView, ComparisonView};
use scaling::compare::{LawComparison, Side, compare_pair};
use scaling::interval::have_same_places;
use scaling::law::LawName;

use super::{Fitted, Groups, Job, alike, keep};
use crate::failure::Failure;
use crate::fit_document::estimate_view;

/// Every pair of groups at the budgets asked for; without any at the largest that both were fitted to.
pub(super) fn compare(job: &Job<'_>, groups: &Groups) -> Result<Vec<ComparisonView>, Failure> {
    let (fits, asked) = (&groups.fits, &job.args.compare_at);
    for flops in asked {
        if !(flops.is_finite() && *flops > 0.0) {
            let text = format!("`--compare-at` must be finite and above zero, found {flops}");
            return Err(Failure::wrong(text));
        }
    }
    if let Some(reason) = refusal(job, fits) {
        // Where too few of several groups have a fit, the warning `unfitted-groups` says so.
        let is_said = fits.len() < 2 && !groups.unfitted.is_empty();
        if asked.is_empty() || is_said {
            return Ok(Vec::new());
        }
        return Err(Failure::wrong(format!("`--compare-at` needs {reason}")));
    }
    let pairs = (0..fits.len()).flat_map(|i| (i + 1..fits.len()).map(move |j| (i, j)));
    Ok(pairs.filter_map(|(i, j)| pair(job, &fits[i], &fits[j])).collect())
}

/// Why these fits cannot be compared, if so.
fn refusal(job: &Job<'_>, fits: &[Fitted]) -> Option<String> {
    if job.args.columns.group_by.is_none() {
        return Some("groups, such as those of `--group-by COLUMN`".to_owned());
    }
    if fits.len() < 2 {
        let found = fits.first().and_then(|one| one.report.group.clone()).unwrap_or_default();
        return Some(format!("two groups; there is only `{found}`"));
    }
    let choice = job.table.choice;
    let is_known = match choice.name {
        LawName::Chinchilla | LawName::Coupled => true,
        LawName::Power | LawName::PowerFloor | LawName::BrokenPower => {
            choice.axis == scaling::law::Axis::Flops && job.table.has_flops()
        }
        _ => false,
    };
    (!is_known).then(|| {
        format!(
            "a law that says the loss at a budget: `chinchilla`, `coupled`, or `power`, \
             `power_floor` or `broken_power` of C; this is `{}` of {}",
            choice.name,
            choice.law().variables().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        )
    })
}

fn pair(job: &Job<'_>, first: &Fitted, second: &Fitted) -> Option<ComparisonView> {
    // A law of C alone needs no κ.
    let side = |one: &'_ Fitted| {
        keep::conventions(job, &one.dataset).flops_per_parameter_token.unwrap_or(6.0)
    };
    let (kappas, is_paired) =
        ([side(first), side(second)], have_same_places(&first.dataset, &second.dataset));
    let sides = [
        Side { inference: &first.inference, flops_per_parameter_token: kappas[0] },
        Side { inference: &second.inference, flops_per_parameter_token: kappas[1] },
    ];
    let names = [first.report.group.clone()?, second.report.group.clone()?];
    let group_by = job.args.columns.group_by.as_deref();
    let mut warnings = alike::unlike(job.table, group_by, &names, [&first.alike, &second.alike]);
    for (name, side) in names.iter().zip([first, second]) {
        warnings.extend(keep::one_kappa(job, &side.dataset, Some(name)));
    }
    let both = [names[0].as_str(), names[1].as_str()];
    let found = compare_pair(both, sides, is_paired, &job.args.compare_at);
    warnings.extend(found.warnings);
    let crossing = found.crossover;
    Some(ComparisonView {
        method: job.table.choice.name.to_string(),
        crossover_flops: estimate_view(&crossing.flops),
        crossover_is_inside_both: crossing.is_inside_both,
        other_crossovers_flops: crossing.others,
        is_at_best_sizes: matches!(job.table.choice.name, LawName::Chinchilla | LawName::Coupled),
        budgets: found.budgets.iter().map(budget).collect(),
        flops_per_parameter_token: kappas,
        is_paired,
        level: first.inference.resampled.level,
        warnings,
        names,
    })
}

fn budget(one: &LawComparison) -> BudgetView {
    BudgetView {
        flops: one.flops,
        loss_difference_nats: estimate_view(&one.loss_difference_nats),
        loss_ratio: estimate_view(&one.loss_ratio),
        flops_ratio: estimate_view(&one.flops_ratio),
        first_is_better: one.first_is_better,
        is_inside_both: one.is_inside_both,
    }
}
