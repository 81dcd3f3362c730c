//! The next, larger study: an isoFLOP design around the best sizes that the fit predicts, as a study file.
//!
//! Whether it is valid, what its cells are and what they cost, is the planner's word and not a formula here.

use std::fmt::Write as _;

use anyhow::Context;
use api::PlanView;
use domain::ids::ContentHash;
use domain::model::{Architecture, Preset};
use planner::{CorpusHashes, plan_view};
use scaling::interval::Estimate;

use crate::args::SuggestArgs;
use crate::fit_document::Restored;
use crate::output::suggest::SuggestionView;

/// Budgets of the design, each this many times the one below it: a line through them needs three.
const N_BUDGETS: i32 = 4;
const BUDGET_STEP: f64 = 3.0;
/// Sizes at each budget lie within such a factor of the predicted best, so that a parabola has both its sides; the
/// first that gives every budget enough sizes is taken.
const SIZE_WINDOWS: [f64; 3] = [3.0, 4.0, 5.5];
/// Fewest sizes of a parabola at each budget.
const LEAST_CELLS: usize = 4;
/// Least factor between neighbouring sizes.
const SIZE_STEP: f64 = 1.4;
/// Longest sequence for a width: beyond it attention costs more than everything else.
const SEQUENCE_PER_WIDTH: u64 = 4;
/// Steps of the shortest run, and the share of them that warms up.
const LEAST_STEPS: f64 = 2000.0;
const WARMUP_SHARE: f64 = 0.05;
/// What the total may miss of the budget, and how often it is tried.
const CLOSE: f64 = 0.9;
const MOST_DRAFTS: usize = 20;

/// A study file with what is known about it.
pub(super) struct Suggestion {
    pub(super) text: String,
    pub(super) view: SuggestionView,
}

pub(super) fn suggest(args: &SuggestArgs, fit: &Restored) -> anyhow::Result<Suggestion> {
    let preset = preset(args, fit)?;
    let kappa = fit.saved.conventions.flops_per_parameter_token;
    let kappa =
        kappa.context("the fit does not know N and D of its rows; fit with `--n` and `--d`")?;
    let draft = Draft { args, fit, preset, kappa };
    // About five sizes at each budget, and budgets that sum to one and a half times the largest.
    let mut top = args.budget / 7.5;
    let mut best: Option<Suggestion> = None;
    let mut last_error = None;
    for _ in 0..MOST_DRAFTS {
        let made = match draft.at(top) {
            Ok(made) => made,
            Err(error) => {
                // Rounding to shapes may fail at one size and not at the next.
                last_error = Some(error);
                top *= 0.93;
                continue;
            }
        };
        let share = made.view.flops_exact_total / args.budget;
        let known = best.as_ref().map_or(0.0, |one| one.view.flops_exact_total / args.budget);
        if share <= 1.0 && share > known {
            best = Some(made);
        }
        if (CLOSE..=1.0).contains(&share) {
            break;
        }
        top *= (0.96 / share).clamp(0.2, 5.0);
    }
    match (best, last_error) {
        (Some(best), _) => Ok(best),
        (None, Some(error)) => Err(error.context(format!(
            "no study of {:e} FLOPs could be made; a larger `--budget` may do",
            args.budget
        ))),
        (None, None) => anyhow::bail!("no study fits into {:e} FLOPs", args.budget),
    }
}

/// The preset that was asked for, or the group's name where it is one.
fn preset(args: &SuggestArgs, fit: &Restored) -> anyhow::Result<String> {
    let mut valid: Vec<&str> = Preset::LABELS.to_vec();
    valid.extend(Architecture::LABELS.iter().filter(|name| !Preset::LABELS.contains(name)));
    let group = fit.saved.group.as_deref().filter(|name| valid.contains(name));
    let name = args.preset.as_deref().or(group).unwrap_or("llama_study");
    anyhow::ensure!(
        valid.contains(&name),
        "`--preset {name}` is none; presets are `{}`",
        valid.join("`, `")
    );
    Ok(name.to_owned())
}

/// What every draft has in common.
struct Draft<'a> {
    args: &'a SuggestArgs,
    fit: &'a Restored,
    preset: String,
    kappa: f64,
}

/// The best N and D at a budget.
struct Best {
    flops: f64,
    parameters: f64,
    tokens: f64,
    loss: f64,
}

impl Draft<'_> {
    /// The study whose largest budget is `top`, with as narrow a window of sizes as gives each budget enough of them.
    fn at(&self, top: f64) -> anyhow::Result<Suggestion> {
        let budgets = (0..N_BUDGETS).rev().map(|i| rounded(top / BUDGET_STEP.powi(i)));
        let bests = budgets.map(|flops| self.best(flops)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut short = 0.0;
        for window in SIZE_WINDOWS {
            let (text, plan) = self.planned(&bests, window)?;
            let n_cells = |flops: f64| {
                plan.cells.iter().filter(|cell| cell.budget_flops == Some(flops)).count()
            };
            match bests.iter().find(|one| n_cells(one.flops) < LEAST_CELLS) {
                Some(one) => short = one.flops,
                None => return Ok(self.suggestion(&bests, text, plan)),
            }
        }
        anyhow::bail!("the budget {short:e} has fewer than {LEAST_CELLS} sizes around its best")
    }

    /// The study file and its cells by the planner.
    fn planned(&self, bests: &[Best], window: f64) -> anyhow::Result<(String, PlanView)> {
        let text = self.text(bests, window)?;
        let parsed = domain::spec::parse(&text, "the suggested study")?;
        let sources = parsed.spec.data.corpora.iter().map(|corpus| CorpusHashes {
            corpus: corpus.name.clone(),
            // Which bytes they are changes no cell's shape, length or cost.
            file_hashes: vec![ContentHash::of(b"not read yet")],
        });
        let plan = plan_view(&planner::plan(&parsed, &sources.collect::<Vec<_>>())?);
        Ok((text, plan))
    }

    fn suggestion(&self, bests: &[Best], text: String, plan: PlanView) -> Suggestion {
        let mut warnings = self.warnings(bests);
        warnings.extend(plan.warnings);
        let view = SuggestionView {
            study: plan.study,
            text: text.clone(),
            flops_exact_total: plan.flops_exact_total,
            budget_flops: self.args.budget,
            n_cells: plan.cells.len() as u64,
            n_dropped: plan.dropped.len() as u64,
            budgets: bests.iter().map(|one| one.flops).collect(),
            warnings,
        };
        Suggestion { text, view }
    }

    fn best(&self, flops: f64) -> anyhow::Result<Best> {
        let inference = &self.fit.inference;
        let optimum = inference.optimum(flops, self.kappa).with_context(|| {
            format!(
                "`{}` has no best size for a budget in closed form; a study is suggested from \
                 `chinchilla` or `coupled`",
                inference.law
            )
        })?;
        let known = |name: &str, estimate: &Estimate| match estimate {
            Estimate::Identified { value, .. } => Ok(*value),
            Estimate::NotIdentified { reason } => Err(anyhow::anyhow!(
                "the best {name} at C = {flops:.3e} is not identified: {reason}; `--refine` says \
                 which cells would narrow it"
            )),
        };
        Ok(Best {
            flops,
            parameters: known("N", &optimum.parameters)?,
            tokens: known("D", &optimum.tokens)?,
            loss: known("loss", &optimum.loss_nats)?,
        })
    }

    fn warnings(&self, bests: &[Best]) -> Vec<String> {
        let mut warnings = Vec::new();
        let top = bests.last().map_or(f64::NAN, |one| one.flops);
        if let Some([_, high]) = self.fit.saved.ranges.c {
            if top <= high {
                warnings.push(format!(
                    "not-larger: the largest budget, {top:.3e}, is not above the largest fitted C, {high:.3e}"
                ));
            } else if top > 10.0 * high {
                warnings.push(format!(
                    "far-extrapolation: the largest budget is {:.3} times the largest fitted C",
                    top / high
                ));
            }
        }
        warnings.push(format!(
            "the corpus is `{}` and the tokenizer `byte`: put those of the fitted runs there, or \
             the losses cannot be compared",
            self.args.data
        ));
        let group = self.fit.saved.group.as_deref();
        if self.args.preset.is_none() && group != Some(self.preset.as_str()) {
            warnings.push(format!(
                "the models are of the preset `{}`, for the fit does not say which it was fitted to: \
                 give `--preset` for others",
                self.preset
            ));
        }
        warnings.extend(flop_count(&self.fit.saved.conventions.c_counts));
        warnings.extend(self.fit.saved.own_warnings());
        warnings
    }

    fn text(&self, bests: &[Best], window: f64) -> anyhow::Result<String> {
        let sizes = sizes(bests, window)?;
        let ratio = |one: &Best| one.tokens / one.parameters;
        let low = bests.iter().map(ratio).fold(f64::INFINITY, f64::min) / (window * window);
        let high = bests.iter().map(ratio).fold(0.0, f64::max) * window * window;
        let shortest = bests[0].tokens / window;
        let (sequence, batch) = batch(shortest, u64::from(sizes[0].d_model));
        let steps = shortest / (sequence * batch) as f64;
        let warmup = (WARMUP_SHARE * steps).floor().max(1.0);
        let mut text = self.head(bests);
        // Writing to a string cannot fail.
        _ = write!(
            text,
            "version: 1\nname: {}\ndescription: {}\n\n\
             data:\n  corpora:\n    - name: corpus\n      files: [{}]\n  tokenizer: byte\n\n\
             stages:\n  - name: pretrain\n    recipe:\n      pretrain:\n        model: {{preset: {}}}\n        \
             training:\n          sequence_length: {sequence}\n          batch_sequences: {batch}\n          \
             schedule: {{cosine: {{warmup_steps: {warmup}, final_share: 0.1}}}}\n        axes:\n          \
             - name: size\n            values:\n",
            quoted(&self.args.name),
            quoted("Sizes around the best that a fit predicts at each budget"),
            quoted(&self.args.data),
            self.preset
        );
        for (index, shape) in sizes.iter().enumerate() {
            _ = writeln!(text, "              - {}", shape.entry(index + 1));
        }
        let budgets: Vec<String> = bests.iter().map(|one| format!("{:e}", one.flops)).collect();
        let kind = match self.fit.saved.conventions.n_counts.as_str() {
            "total" => "total",
            _ => "non_embedding",
        };
        let flops = match self.fit.saved.conventions.c_counts.as_str() {
            "published" => "published",
            _ => "exact",
        };
        _ = write!(
            text,
            "        design:\n          isoflop:\n            budgets: [{}]\n            \
             min_tokens_per_parameter: {:e}\n            max_tokens_per_parameter: {:e}\n        \
             checkpoints: final\n        evaluate:\n          - {{task: validation_loss}}\n\n\
             fit:\n  methods: [isoflop, chinchilla]\n  parameters: {kind}\n  flops: {flops}\n",
            budgets.join(", "),
            rounded(low),
            rounded(high)
        );
        Ok(text)
    }

    /// Where it comes from, and what the fit predicts for it.
    fn head(&self, bests: &[Best]) -> String {
        let group = self.fit.saved.group.as_ref().map(|name| format!(", group {name:?}"));
        let mut text = format!(
            "# Suggested by `gradus suggest {} --budget {:e}`{}.\n\
             # Law: {}; N: {}; C of the fit: {}, {}.\n\
             # The losses below are those of the fit; they can be compared only with the same text,\n\
             # tokenizer and way of training. Budgets count FLOPs by the tensor shapes, head included.\n#\n",
            one_line(&self.args.file.display().to_string()),
            self.args.budget,
            one_line(&group.unwrap_or_default()),
            self.fit.saved.formula,
            self.fit.saved.conventions.n_counts,
            one_line(&self.fit.saved.conventions.c_source),
            self.fit.saved.conventions.c_counts,
        );
        for one in bests {
            _ = writeln!(
                text,
                "# At C = {:.3e} the best are N = {:.3e} and D = {:.3e}, with L = {:.4}.",
                one.flops, one.parameters, one.tokens, one.loss
            );
        }
        text
    }
}

/// What C of the fit counts, where budgets of a study count something else, or may.
fn flop_count(counts: &str) -> Option<String> {
    let budgets = "the budgets of a study are `exact` FLOPs";
    let result = "its cells train on other D than the best ones named here";
    match counts {
        "exact" => None,
        "published" | "6ND" => {
            Some(format!("flop-count: the fit counts C as `{counts}`, and {budgets}: {result}"))
        }
        _ => Some(format!(
            "flop-count: what C of the fit counts is {counts}, and {budgets}: where these are not the \
             same, {result}; `gradus fit --c-counts` says it"
        )),
    }
}

/// Shapes from below the best of the smallest budget to above that of the largest.
fn sizes(bests: &[Best], window: f64) -> anyhow::Result<Vec<Shape>> {
    let smallest = bests.iter().map(|one| one.parameters).fold(f64::INFINITY, f64::min);
    let largest = bests.iter().map(|one| one.parameters).fold(0.0, f64::max);
    let mut kept: Vec<Shape> = Vec::new();
    for shape in widths().map(Shape::of) {
        let parameters = shape.parameters();
        if parameters < smallest / window {
            continue;
        }
        if parameters > largest * window {
            break;
        }
        if kept.last().is_none_or(|last| parameters >= SIZE_STEP * last.parameters()) {
            kept.push(shape);
        }
    }
    anyhow::ensure!(
        kept.len() >= 4,
        "between N = {:.3e} and {:.3e} there are {} shapes of the width and depth rule, of at least 4",
        smallest / window,
        largest * window,
        kept.len()
    );
    Ok(kept)
}

/// Width and depth of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    d_model: u32,
    n_layers: u32,
    n_heads: u32,
    ffn_hidden: u32,
}

/// Widths that hardware likes: coarser steps for wider models.
fn widths() -> impl Iterator<Item = u32> {
    let steps = [(16, 128, 16), (128, 256, 32), (256, 1024, 64), (1024, 32_768, 128)];
    steps.into_iter().flat_map(|(low, high, step)| (low..high).step_by(step))
}

impl Shape {
    /// Depth √d / 2, which gives 4 layers at 64, 11 at 512, 32 at 4,096; heads of 64 where the width allows.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a depth from 2 to 90"
    )]
    fn of(d_model: u32) -> Self {
        let n_layers = (0.5 * f64::from(d_model).sqrt()).round().max(2.0) as u32;
        let head = if d_model >= 256 && d_model.is_multiple_of(64) {
            64
        } else if d_model >= 64 && d_model.is_multiple_of(32) {
            32
        } else {
            16
        };
        let ffn_hidden = (8 * d_model / 3).next_multiple_of(8);
        Self { d_model, n_layers, n_heads: d_model / head, ffn_hidden }
    }

    /// About how many: four square matrices in the mixer and three of two thirds of the fourfold width behind it.
    fn parameters(self) -> f64 {
        12.0 * f64::from(self.n_layers) * f64::from(self.d_model).powi(2)
    }

    fn entry(self, number: usize) -> String {
        let Self { d_model, n_layers, n_heads, ffn_hidden } = self;
        format!(
            "{{label: s{number}, model.d_model: {d_model}, model.n_layers: {n_layers}, \
             model.n_heads: {n_heads}, model.ffn_hidden: {ffn_hidden}}}"
        )
    }
}

/// Sequence length and sequences of a batch, so that the shortest run has enough steps.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of sequences between one and a few thousand"
)]
fn batch(shortest_tokens: f64, narrowest: u64) -> (u64, u64) {
    let tokens = shortest_tokens / LEAST_STEPS;
    let lengths = [2048_u64, 1024, 512, 256, 128];
    let is_fit =
        |length: &u64| 8.0 * *length as f64 <= tokens && *length <= SEQUENCE_PER_WIDTH * narrowest;
    let length = lengths.into_iter().find(is_fit).unwrap_or(64);
    let sequences = (tokens / length as f64).clamp(1.0, 2048.0).log2().floor().exp2();
    (length, sequences as u64)
}

/// Three digits: a budget is a plan, not a measurement.
fn rounded(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// A scalar that YAML reads back as this text.
fn quoted(text: &str) -> String {
    format!("'{}'", one_line(text).replace('\'', "''"))
}

/// A comment or a scalar must not end early.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_divide_every_width_and_sizes_only_grow() {
        let shapes: Vec<Shape> = widths().map(Shape::of).collect();
        assert!(shapes.iter().all(|one| one.d_model.is_multiple_of(one.n_heads)), "{shapes:?}");
        assert!(shapes.windows(2).all(|pair| pair[0].parameters() < pair[1].parameters()));
        assert_eq!(Shape::of(4096).n_layers, 32);
    }

    #[test]
    fn the_shortest_run_has_its_steps() {
        for tokens in [1e5, 1e6, 3e7, 1e9, 1e11] {
            let (length, sequences) = batch(tokens, 128);
            assert!(length <= 512);
            assert!(tokens / (length * sequences) as f64 >= LEAST_STEPS || sequences == 1);
        }
    }

    #[test]
    fn names_of_files_cannot_end_a_comment_or_a_scalar() {
        assert_eq!(quoted("it's\na: b"), "'it''s a: b'");
    }
}
