//! Predictions from a saved fit, for people and programs.
//!
//! It predicts nothing.

use api::EstimateView;
use serde::Serialize;

use super::fit_parts::{Footnotes, compute, number, warnings};
use super::ladder::{self, LadderView};
use super::{View, sections, table};

/// What a saved fit says. `gradus predict --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictionList {
    /// The saved fit.
    pub fit: String,
    /// The file that it was made from, and BLAKE3 of its bytes.
    pub input: String,
    /// The hash.
    pub input_blake3: String,
    /// One prediction a group.
    pub predictions: Vec<PredictionView>,
}

/// What the fit of one group says about one place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictionView {
    /// The group; not there without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The law's name.
    pub law: String,
    /// Its formula.
    pub formula: String,
    /// How N and C were counted.
    pub conventions: crate::fit_document::Conventions,
    /// What was asked for: the given N, D and C, and what follows from them by κ.
    pub at: PlaceView,
    /// The compute-optimal N and D; only where a budget alone was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimum: Option<OptimumView>,
    /// The same along the fitted sizes, each with its own FLOPs for a token; only where a budget
    /// alone was given and the fit knows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub along_sizes: Option<LadderView>,
    /// The law's loss in nats per token; of `sigmoid` the accuracy.
    pub curve: EstimateView,
    /// The same with the interval of one new measurement.
    pub measured: EstimateView,
    /// The accuracy that a second fit has at this loss; only with `--then`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyView>,
    /// How far beyond the fitted rows this is.
    pub extrapolation: Vec<ExtrapolationView>,
    /// Nominal coverage of the intervals.
    pub level: f64,
    /// How the intervals were made; empty when there are none.
    pub intervals: String,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}

/// Where a loss is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PlaceView {
    /// N; `null` where it is not known.
    pub n: Option<f64>,
    /// D.
    pub d: Option<f64>,
    /// C.
    pub c: Option<f64>,
}

/// How a budget is spent best.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimumView {
    /// N_opt.
    pub n: EstimateView,
    /// D_opt.
    pub d: EstimateView,
    /// D_opt / N_opt.
    pub tokens_per_parameter: EstimateView,
    /// a of N_opt ∝ C^a.
    pub n_exponent: EstimateView,
}

/// The accuracy at a predicted task loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccuracyView {
    /// The saved fit of `sigmoid`.
    pub fit: String,
    /// The file that it was made from.
    pub input: String,
    /// BLAKE3 of its bytes.
    pub input_blake3: String,
    /// Its formula.
    pub formula: String,
    /// The accuracy that both laws give.
    pub curve: EstimateView,
    /// The same with the interval of one new measurement.
    pub measured: EstimateView,
    /// How the intervals of the second fit were made; empty when there are none.
    pub intervals: String,
}

/// How far a variable is from the fitted ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExtrapolationView {
    /// The letter, or the words for it.
    pub variable: String,
    /// Its value here.
    pub value: f64,
    /// Smallest fitted one.
    pub low: f64,
    /// Largest fitted one.
    pub high: f64,
    /// Whether it lies among the fitted ones.
    pub is_inside: bool,
    /// Value over the largest above it, over the smallest below it, 1 among the fitted ones; `null` where one is not
    /// above zero.
    pub factor: Option<f64>,
}

impl View for PredictionList {
    fn table(&self) -> String {
        let head = format!("from `{}`, fitted to `{}`", self.fit, self.input);
        let parts = std::iter::once(head).chain(self.predictions.iter().map(one));
        sections(&parts.collect::<Vec<_>>())
    }

    fn names(&self) -> Vec<String> {
        let value = |one: &PredictionView| match &one.curve {
            EstimateView::Identified { value, .. } => value.to_string(),
            EstimateView::NotIdentified { .. } => "not identified".to_owned(),
        };
        self.predictions.iter().map(value).collect()
    }
}

fn one(view: &PredictionView) -> String {
    let group = view.group.as_ref().map(|name| format!("group `{name}`, "));
    let conventions = &view.conventions;
    let title = format!(
        "{}{}: {}\nN: {}; C: {}",
        group.unwrap_or_default(),
        view.law,
        view.formula,
        conventions.n_counts,
        compute(&conventions.c_source, &conventions.c_counts),
    );
    let mut notes = Footnotes::default();
    let mut rows = Vec::new();
    let at = [("N", view.at.n), ("D", view.at.d), ("C", view.at.c)];
    let given = at.into_iter().filter(|(name, _)| view.optimum.is_none() || *name == "C");
    for (name, value) in given {
        if let Some(value) = value {
            rows.push(vec![name.to_owned(), number(value), String::new()]);
        }
    }
    let mut push = |name: &str, estimate: &EstimateView| {
        let (value, interval) = match estimate {
            EstimateView::Identified { value, low, high } => {
                (shown(name, *value), format!("[{}, {}]", shown(name, *low), shown(name, *high)))
            }
            EstimateView::NotIdentified { reason } => {
                ("not identified".to_owned(), notes.mark(reason))
            }
        };
        rows.push(vec![name.to_owned(), value, interval]);
    };
    if let Some(optimum) = &view.optimum {
        push("best N", &optimum.n);
        push("best D", &optimum.d);
        push("D / N there", &optimum.tokens_per_parameter);
    }
    let what = if view.law == "sigmoid" { "accuracy" } else { "loss" };
    push(what, &view.curve);
    push(&format!("{what}, measured once"), &view.measured);
    let then = view.accuracy.as_ref();
    if let Some(accuracy) = then {
        push("accuracy", &accuracy.curve);
        push("accuracy, measured once", &accuracy.measured);
    }
    let sizes = view.along_sizes.as_slice();
    let along = ladder::along("best N and D along the fitted sizes", sizes, &mut notes);
    let made = |text: &str| if text.is_empty() { "none can be made" } else { text }.to_owned();
    let of_accuracy = then.map_or_else(String::new, |accuracy| {
        let AccuracyView { fit, input, .. } = accuracy;
        let made = made(&accuracy.intervals);
        format!("\naccuracy from `{fit}`, fitted to `{input}`: {made}, independent of the first")
    });
    let made = made(&view.intervals);
    let intervals = format!("{:.0} % intervals: {made}{of_accuracy}", 100.0 * view.level);
    sections(&[
        title,
        table(&["", ">VALUE", "INTERVAL"], rows),
        along,
        intervals,
        notes.text(),
        warnings(&view.warnings),
    ])
}

/// Losses and accuracies to a ten thousandth: the third digit is what models differ in.
fn shown(name: &str, value: f64) -> String {
    if name.starts_with("loss") || name.starts_with("accuracy") {
        format!("{value:.4}")
    } else {
        number(value)
    }
}
