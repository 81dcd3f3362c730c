//! The cells that lower the variance of a named quantity most.
//!
//! The method is `scaling::refine`; here are the quantities and the candidates.

use anyhow::Context;
use scaling::interval::Inference;
use scaling::law::{Chinchilla, Coupled, LawName, LogPoint, Quantity, Variable};
use scaling::refine::{Candidate, Criterion, RefineOptions};

use crate::args::SuggestArgs;
use crate::fit_document::Restored;
use crate::output::suggest::{ProposalView, RefinementView};

/// Candidates in each direction.
const GRID: usize = 32;
/// How far beyond the fitted N and D candidates lie: below by the first factor, above by the second.
const REACH: (f64, f64) = (2.0, 16.0);

pub(super) fn refine(args: &SuggestArgs, fit: &Restored) -> anyhow::Result<RefinementView> {
    let asked = args.quantity.as_deref().with_context(|| {
        format!("`--refine` needs `--quantity`; {}", valid_quantities(&fit.inference))
    })?;
    let goal = Goal::parse(asked, fit)?;
    let candidates = candidates(args.budget, fit)?;
    let options = RefineOptions {
        criterion: if args.per == "run" { Criterion::PerRun } else { Criterion::PerFlop },
        budget_flops: args.budget,
        n_cells: usize::from(args.cells),
    };
    let inference = &fit.inference;
    let law = inference.form.law();
    let value = |theta: &[f64]| goal.value(inference, theta);
    let proposals =
        scaling::refine::refine(law, &inference.resampled, value, &candidates, &options)?;
    let cells = proposals.iter().map(|one| {
        let Candidate { point, cost_flops } = candidates[one.index];
        ProposalView {
            n: point.ln_parameters.exp(),
            d: point.ln_tokens.exp(),
            flops: cost_flops,
            sd_before: one.sd_before,
            sd_after: one.sd_after,
            variance_share_per_flop: (1.0 - (one.sd_after / one.sd_before).powi(2)) / cost_flops,
        }
    });
    Ok(RefinementView {
        group: fit.saved.group.clone(),
        quantity: asked.to_owned(),
        is_logarithm: goal.is_log,
        value: goal.shown(value(&inference.resampled.theta)),
        per: args.per.clone(),
        budget_flops: args.budget,
        cells: cells.collect(),
        n_candidates: candidates.len() as u64,
        warnings: warnings(fit, asked, &goal),
    })
}

/// A quantity whose variance is to fall.
struct Goal {
    kind: GoalKind,
    /// Whether its logarithm counts, since it is positive and of any size.
    is_log: bool,
}

enum GoalKind {
    /// A coefficient, by its position.
    Coefficient(usize),
    /// a of N_opt ∝ C^a.
    Exponent,
    /// Best loss, N or D at C.
    At { what: char, flops: f64, kappa: f64 },
}

fn valid_quantities(inference: &Inference) -> String {
    let names = inference.coefficients.iter().map(|one| format!("`{}`", one.name));
    let mut names: Vec<String> = names.collect();
    if has_optimum(inference.law) {
        names.extend(["`n_exponent`", "`loss@C`", "`n@C`", "`d@C`"].map(str::to_owned));
    }
    format!("it may be {}", names.join(", "))
}

fn has_optimum(law: LawName) -> bool {
    matches!(law, LawName::Chinchilla | LawName::Coupled)
}

impl Goal {
    fn parse(text: &str, fit: &Restored) -> anyhow::Result<Self> {
        let inference = &fit.inference;
        let wrong = || {
            format!(
                "`{text}` is no quantity of `{}`; {}",
                inference.law,
                valid_quantities(inference)
            )
        };
        if let Some(index) = inference.coefficients.iter().position(|one| one.name == text) {
            let law = inference.form.law();
            let quantity = law.coefficients(&inference.resampled.theta)[index].quantity;
            let is_log = matches!(quantity, Quantity::Scale | Quantity::Floor);
            return Ok(Self { kind: GoalKind::Coefficient(index), is_log });
        }
        anyhow::ensure!(has_optimum(inference.law), wrong());
        if text == "n_exponent" {
            return Ok(Self { kind: GoalKind::Exponent, is_log: false });
        }
        let (what, flops) = text.split_once('@').with_context(wrong)?;
        let flops: f64 = flops.trim().parse().ok().with_context(wrong)?;
        let what = match what.trim() {
            "loss" => 'l',
            "n" => 'n',
            "d" => 'd',
            _ => anyhow::bail!(wrong()),
        };
        let is_valid = flops.is_finite() && flops > 0.0;
        anyhow::ensure!(is_valid, "the C of `{text}` must be finite and above zero");
        let kappa = fit.saved.conventions.flops_per_parameter_token.with_context(wrong)?;
        Ok(Self { kind: GoalKind::At { what, flops, kappa }, is_log: true })
    }

    fn value(&self, inference: &Inference, theta: &[f64]) -> f64 {
        let value = match self.kind {
            GoalKind::Coefficient(index) => inference.form.law().coefficients(theta)[index].value,
            GoalKind::Exponent => Chinchilla::optimum_exponents(theta).0,
            GoalKind::At { what, flops, kappa } => {
                let optimum = if inference.law == LawName::Coupled {
                    Coupled::optimum(theta, flops, kappa)
                } else {
                    Chinchilla::optimum(theta, flops, kappa)
                };
                match what {
                    'n' => optimum.parameters,
                    'd' => optimum.tokens,
                    _ => optimum.loss_nats,
                }
            }
        };
        if self.is_log { value.ln() } else { value }
    }

    fn shown(&self, value: f64) -> f64 {
        if self.is_log { value.exp() } else { value }
    }
}

/// Runs on a grid of N and D around the fitted ones that the budget can pay.
fn candidates(budget: f64, fit: &Restored) -> anyhow::Result<Vec<Candidate>> {
    let law = fit.inference.form.law();
    let known = [Variable::Parameters, Variable::Tokens, Variable::Flops];
    if let Some(other) = law.variables().iter().find(|one| !known.contains(one)) {
        anyhow::bail!(
            "`{}` also looks at the {other}, which cells of N and D do not say; \
             `--refine` takes laws of N, D and C",
            law.name()
        );
    }
    let ranges = &fit.saved.ranges;
    let kappa = fit.saved.conventions.flops_per_parameter_token;
    let (Some(n), Some(d), Some(kappa)) = (ranges.n, ranges.d, kappa) else {
        anyhow::bail!("the fit does not know N and D of its rows; fit with `--n` and `--d`");
    };
    let axis = |[low, high]: [f64; 2]| {
        let (low, high) = ((low / REACH.0).ln(), (high * REACH.1).ln());
        let at = move |i: usize| (low + (high - low) * i as f64 / (GRID - 1) as f64).exp();
        (0..GRID).map(at)
    };
    let pairs = axis(n).flat_map(|n| axis(d).map(move |d| (n, d)));
    let all = pairs.map(|(n, d)| {
        let flops = kappa * n * d;
        Candidate { point: LogPoint::new(n, d, flops), cost_flops: flops }
    });
    Ok(all.filter(|one| one.cost_flops <= budget).collect())
}

fn warnings(fit: &Restored, asked: &str, goal: &Goal) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(reason) = &fit.inference.whole {
        warnings.push(format!("whole-law: {reason}; what is proposed here rests on draws of it"));
    }
    if let GoalKind::At { flops, .. } = goal.kind
        && let Some([_, high]) = fit.saved.ranges.c
        && flops > high
    {
        warnings.push(format!(
            "outside-data: `{asked}` is at {:.3} times the largest fitted C; the law must hold there",
            flops / high
        ));
    }
    warnings
}
