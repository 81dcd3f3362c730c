//! The cells that lower the variance of a named quantity most.
//!
//! The method is `scaling::refine`; here are the quantities and the candidates.

use anyhow::Context;
use scaling::interval::{Estimate, Inference};
use scaling::law::{Chinchilla, Coupled, LawName, LogPoint, Quantity, Variable};
use scaling::refine::{Candidate, Criterion, RefineOptions};

use crate::args::SuggestArgs;
use crate::fit_document::{Restored, estimate_view};
use crate::output::suggest::{LimitsView, ProposalView, RefinementView};

/// Candidates in each direction.
const GRID: usize = 32;
/// How far beyond the fitted N and D candidates lie, as a factor at each end: a cell whose worth is
/// a guess about the law far outside the data is no proposal.
const REACH: f64 = 4.0;
/// Largest C of a candidate over the largest fitted one; beyond it `predict` calls an extrapolation
/// far.
const MAX_EXTRAPOLATION: f64 = 10.0;

pub(super) fn refine(args: &SuggestArgs, fit: &Restored) -> anyhow::Result<RefinementView> {
    let asked = args.quantity.as_deref().with_context(|| {
        format!("`--refine` needs `--quantity`; {}", valid_quantities(&fit.inference))
    })?;
    let goal = Goal::parse(asked, fit)?;
    let limits = limits(fit)?;
    let candidates = candidates(args.budget, &limits);
    let options = RefineOptions {
        criterion: if args.per == "run" { Criterion::PerRun } else { Criterion::PerFlop },
        budget_flops: args.budget,
        n_cells: usize::from(args.cells),
    };
    let inference = &fit.inference;
    let law = inference.form.law();
    let value = |theta: &[f64]| goal.value(inference, theta);
    let proposals =
        scaling::refine::refine(law, &inference.resampled, value, &candidates, &options)
            .with_context(|| format!("candidates lie at {}", limits.view.text()))?;
    let cells: Vec<ProposalView> = proposals
        .iter()
        .map(|one| {
            let Candidate { point, cost_flops } = candidates[one.index];
            ProposalView {
                n: point.ln_parameters.exp(),
                d: point.ln_tokens.exp(),
                flops: cost_flops,
                sd_before: one.sd_before,
                sd_after: one.sd_after,
                variance_share_per_flop: (1.0 - (one.sd_after / one.sd_before).powi(2))
                    / cost_flops,
            }
        })
        .collect();
    let estimate = goal.estimate(inference);
    let mut warnings = warnings(fit, asked, &goal);
    warnings.extend(at_limit(&cells, &limits.view));
    Ok(RefinementView {
        group: fit.saved.group.clone(),
        quantity: asked.to_owned(),
        is_logarithm: goal.is_log,
        value: estimate.value(),
        estimate: estimate_view(&estimate),
        per: args.per.clone(),
        budget_flops: args.budget,
        cells,
        n_candidates: candidates.len() as u64,
        limits: limits.view,
        warnings,
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

    /// Value and interval, or why there is none.
    fn estimate(&self, inference: &Inference) -> Estimate {
        let none = || Estimate::not_identified("the law has no best N and D in closed form");
        match self.kind {
            GoalKind::Coefficient(index) => inference.coefficients[index].estimate.clone(),
            // The exponents need no C and no κ.
            GoalKind::Exponent => inference
                .optimum(inference.ranges.flops.1, 6.0)
                .map_or_else(none, |optimum| optimum.parameters_exponent),
            GoalKind::At { what, flops, kappa } => {
                inference.optimum(flops, kappa).map_or_else(none, |optimum| match what {
                    'n' => optimum.parameters,
                    'd' => optimum.tokens,
                    _ => optimum.loss_nats,
                })
            }
        }
    }

    /// As a draw has it, whether or not the data identify it.
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
}

/// Where candidates lie, and FLOPs for each parameter and token.
struct Limits {
    view: LimitsView,
    kappa: f64,
}

fn limits(fit: &Restored) -> anyhow::Result<Limits> {
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
    let wider = |[low, high]: [f64; 2]| [low / REACH, high * REACH];
    let largest = ranges.c.map_or(kappa * n[1] * d[1], |[_, high]| high);
    let view = LimitsView { n: wider(n), d: wider(d), flops: MAX_EXTRAPOLATION * largest };
    Ok(Limits { view, kappa })
}

/// Runs on a grid of N and D within the limits that the budget can pay.
fn candidates(budget: f64, limits: &Limits) -> Vec<Candidate> {
    let axis = |[low, high]: [f64; 2]| {
        let width = (high / low).ln();
        (0..GRID).map(move |i| low * (width * i as f64 / (GRID - 1) as f64).exp())
    };
    let pairs = axis(limits.view.n).flat_map(|n| axis(limits.view.d).map(move |d| (n, d)));
    let all = pairs.map(|(n, d)| {
        let flops = limits.kappa * n * d;
        Candidate { point: LogPoint::new(n, d, flops), cost_flops: flops }
    });
    all.filter(|one| one.cost_flops <= budget.min(limits.view.flops)).collect()
}

/// Says which proposals lie at the end of what was compared: the best place may be farther out.
fn at_limit(cells: &[ProposalView], limits: &LimitsView) -> Option<String> {
    const SAME: f64 = 1e-9;
    let is_end =
        |value: f64, ends: [f64; 2]| ends.iter().any(|end| (value / end - 1.0).abs() < SAME);
    let at_end = cells.iter().filter(|one| is_end(one.n, limits.n) || is_end(one.d, limits.d));
    let n = at_end.count();
    (n > 0).then(|| {
        format!(
            "at-limit: {n} of {} cells lie {REACH} times beyond the fitted N or D; nothing farther was \
             compared, since the law is not known there",
            cells.len()
        )
    })
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
    warnings.extend(fit.saved.own_warnings());
    warnings
}
