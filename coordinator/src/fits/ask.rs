//! A fit that can be asked: the loss over C, and what a budget or a model comes to.
//! It fits nothing.

use std::sync::{Mutex, PoisonError};

use api::{
    ComparisonList, EstimateView, FitCurve, FitLine, FitPrediction, FitPredictionList, FitReport,
};
use scaling::interval::Estimate;
use scaling::outside::Standing;

use super::compare::{self, Comparing};
use super::method::{LawModel, Predictor};
use super::report::Made;
use super::view;

/// What a prediction is asked about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Question {
    /// A budget of so many FLOPs, split best where the method knows how.
    Budget {
        /// C.
        flops: f64,
    },
    /// A model of so many parameters, trained on so many tokens.
    Model {
        /// N.
        parameters: f64,
        /// D.
        tokens: f64,
    },
}

/// Which lines are wanted; what is left out means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// A group's name.
    pub group: Option<String>,
    /// A method's name.
    pub method: Option<String>,
}

impl Which {
    fn means(&self, group: &str, method: &str) -> bool {
        self.group.as_deref().is_none_or(|wanted| wanted == group)
            && self.method.as_deref().is_none_or(|wanted| wanted == method)
    }
}

/// Answers of each kind that a fit remembers: a dashboard asks the same again and again.
const MAX_ANSWERS: usize = 32;

/// The last answers, by what was asked.
#[derive(Debug)]
struct Answers<Q, A>(Mutex<Vec<(Q, A)>>);

impl<Q: PartialEq, A: Clone> Answers<Q, A> {
    fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// The answer from before, or `made` now.
    fn of(&self, question: Q, made: impl FnOnce() -> A) -> A {
        // A panic while it was held left whole answers behind.
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = known().iter().find(|(asked, _)| *asked == question) {
            return answer.clone();
        }
        // Not while the lock is held: an answer takes milliseconds.
        let answer = made();
        let mut all = known();
        if all.len() >= MAX_ANSWERS {
            all.remove(0);
        }
        all.push((question, answer.clone()));
        answer
    }
}

/// A predictor, and what is to be known of it.
struct Asked<'a> {
    group: &'a str,
    fit: &'a api::MethodFit,
    predictor: &'a Predictor,
    /// What is warned of its group as a whole.
    findings: &'a [String],
}

/// A fit with what predicts.
#[derive(Debug)]
pub struct Model {
    made: Made,
    curves: Answers<(Which, (f64, f64), usize), FitCurve>,
    predictions: Answers<(Which, Question), FitPredictionList>,
    comparisons: Answers<Comparing, ComparisonList>,
}

impl Model {
    pub(super) fn new(made: Made) -> Self {
        Self {
            made,
            curves: Answers::new(),
            predictions: Answers::new(),
            comparisons: Answers::new(),
        }
    }

    /// The report.
    pub fn report(&self) -> &FitReport {
        &self.made.report
    }

    /// The groups that a question may name.
    pub fn groups(&self) -> Vec<&str> {
        self.report().groups.iter().map(|group| group.group.as_str()).collect()
    }

    /// The methods that a question may name.
    pub fn methods(&self) -> Vec<&str> {
        let fits = self.report().groups.first().map_or(&[][..], |group| &group.fits);
        fits.iter().map(|fit| fit.method.as_str()).collect()
    }

    /// The smallest and the largest C that were measured; 1 and 2 where nothing was.
    pub fn measured_range(&self) -> (f64, f64) {
        let groups = self.report().groups.iter();
        let flops = groups.flat_map(|group| &group.observations).map(|one| one.flops);
        let (low, high) = flops
            .fold((f64::INFINITY, 0.0_f64), |(low, high), flops| (low.min(flops), high.max(flops)));
        if low < high { (low, high) } else { (1.0, 2.0) }
    }

    /// The predictors that are wanted.
    fn predictors<'a>(&'a self, which: &'a Which) -> impl Iterator<Item = Asked<'a>> {
        let groups = self.report().groups.iter().zip(&self.made.predictors);
        let all = groups.zip(&self.made.findings).flat_map(|((group, own), findings)| {
            let of_group = group.fits.iter().zip(own);
            of_group.map(|(fit, predictor)| Asked { group: &group.group, fit, predictor, findings })
        });
        all.filter(|asked| which.means(asked.group, &asked.fit.method))
    }

    /// The loss over so many log-spaced C between two: each split best, or by a law of C.
    pub fn curve(&self, which: &Which, range: (f64, f64), n_points: usize) -> FitCurve {
        self.curves.of((which.clone(), range, n_points), || self.make_curve(which, range, n_points))
    }

    fn make_curve(&self, which: &Which, (low, high): (f64, f64), n_points: usize) -> FitCurve {
        let lines = self.predictors(which).map(|Asked { group, fit, predictor, .. }| {
            let points = view::points((low, high), n_points, |flops| predictor.loss_at(flops));
            let reason = match predictor.loss_at(low) {
                Estimate::NotIdentified { reason } if points.is_empty() => reason,
                _ => String::new(),
            };
            FitLine { group: group.to_owned(), method: fit.method.clone(), points, reason }
        });
        let report = self.report();
        FitCurve { fit: report.id.clone(), confidence: report.confidence, lines: lines.collect() }
    }

    /// What every method says of every group that is wanted.
    pub fn predict(&self, which: &Which, question: Question) -> FitPredictionList {
        self.predictions.of((which.clone(), question), || self.make_prediction(which, question))
    }

    /// The groups that are wanted beside each other.
    pub fn compare(&self, wanted: &Comparing) -> ComparisonList {
        self.comparisons.of(wanted.clone(), || {
            let groups = self.groups().into_iter().zip(&self.made.predictors);
            let groups: Vec<_> = groups.map(|(name, own)| (name, own.as_slice())).collect();
            let comparisons = compare::compare(&self.methods(), &groups, wanted);
            ComparisonList { fit: self.report().id.clone(), comparisons }
        })
    }

    fn make_prediction(&self, which: &Which, question: Question) -> FitPredictionList {
        let report = self.report();
        let predictions = self.predictors(which).map(|asked| {
            let Asked { group, fit, predictor, findings } = asked;
            let mut prediction = predictor.answer(question);
            group.clone_into(&mut prediction.group);
            prediction.method.clone_from(&fit.method);
            prediction.warnings.extend(predictor.outside(question, &prediction));
            let of_fit = fit.warnings.iter().chain(findings);
            prediction.warnings.extend(of_fit.map(|text| format!("of the fit: {text}")));
            prediction
        });
        FitPredictionList {
            fit: report.id.clone(),
            study: report.study.clone(),
            is_provisional: report.is_provisional,
            parameter_kind: report.parameter_kind.clone(),
            flop_kind: report.flop_kind.clone(),
            confidence: report.confidence,
            predictions: predictions.collect(),
        }
    }
}

impl Predictor {
    /// The loss where a budget is split best.
    fn loss_at(&self, flops: f64) -> Estimate {
        match self {
            Self::Envelope(fit) => fit.predict_loss(flops).curve,
            Self::Law(model) => model.loss_at(flops),
            Self::Nothing(reason) => Estimate::not_identified(reason.clone()),
        }
    }

    /// What a prediction names that lies outside the fitted: N, D and C, given or best, and D / N.
    fn outside(&self, question: Question, prediction: &FitPrediction) -> Vec<String> {
        let ranges = match self {
            Self::Envelope(fit) => [None, None, Some(fit.flops_range), None],
            Self::Law(model) => {
                let ranges = &model.inference.ranges;
                let own = [ranges.parameters, ranges.tokens, ranges.flops].map(Some);
                [own[0], own[1], own[2], model.ratio_range]
            }
            Self::Nothing(_) => [None; 4],
        };
        let value = |view: &EstimateView| match view {
            EstimateView::Identified { value, .. } => Some(*value),
            EstimateView::NotIdentified { .. } => None,
        };
        let (n, d) = (value(&prediction.parameters), value(&prediction.tokens));
        let values = [n, d, prediction.flops, d.zip(n).map(|(d, n)| d / n)];
        // C of a model is by one C / (N D) for all, and its own may differ.
        let is_near = |standing: &Standing| match question {
            Question::Model { .. } => standing.factor.is_some_and(|f| (0.5..=2.0).contains(&f)),
            Question::Budget { .. } => standing.is_inside,
        };
        let places = ["N", "D", "C", "D / N"].into_iter().zip(values).zip(ranges);
        let standings =
            places.filter_map(|((name, value), range)| Some((name, Standing::of(value?, range?))));
        let outside = standings.filter(|(name, one)| *name != "C" || !is_near(one));
        outside.filter_map(|(name, one)| one.warning(name)).collect()
    }

    fn answer(&self, question: Question) -> FitPrediction {
        match (self, question) {
            (Self::Nothing(reason), Question::Budget { flops }) => {
                blocked(reason, Some(flops), None)
            }
            (Self::Nothing(reason), Question::Model { parameters, tokens }) => {
                blocked(reason, None, Some((parameters, tokens)))
            }
            (Self::Envelope(fit), Question::Budget { flops }) => {
                let loss = fit.predict_loss(flops);
                let (parameters, tokens) = fit.predict_optimum(flops);
                FitPrediction {
                    flops: Some(flops),
                    parameters: view::estimate(&parameters),
                    tokens: view::estimate(&tokens),
                    loss_nats: view::estimate(&loss.curve),
                    measured_loss_nats: view::estimate(&loss.measured),
                    extrapolation: view::finite(loss.extrapolation),
                    ..blocked("", None, None)
                }
            }
            (Self::Envelope(_), Question::Model { parameters, tokens }) => {
                let why = "the envelope knows the best model of a budget, and no other: ask for C";
                blocked(why, None, Some((parameters, tokens)))
            }
            (Self::Law(model), Question::Budget { flops }) => best(model, flops),
            (Self::Law(model), Question::Model { parameters, tokens }) => {
                let flops = model.kappa * parameters * tokens;
                let prediction = model.inference.predict(parameters, tokens, flops);
                FitPrediction {
                    loss_nats: view::estimate(&prediction.curve),
                    measured_loss_nats: view::estimate(&prediction.measured),
                    flops_per_parameter_token: Some(model.kappa),
                    extrapolation: view::finite(prediction.extrapolation),
                    ..blocked("", Some(flops), Some((parameters, tokens)))
                }
            }
        }
    }
}

/// A budget split best by the law, or the loss at it by a law of C.
fn best(model: &LawModel, flops: f64) -> FitPrediction {
    let inference = &model.inference;
    let extrapolation = view::finite(flops / inference.ranges.flops.1);
    if model.is_of_compute() {
        let prediction = inference.predict(f64::NAN, f64::NAN, flops);
        return FitPrediction {
            loss_nats: view::estimate(&prediction.curve),
            measured_loss_nats: view::estimate(&prediction.measured),
            extrapolation,
            ..blocked("a law of C alone does not say how a budget is split", Some(flops), None)
        };
    }
    let (kappa, Some(optimum)) = (model.kappa, inference.optimum(flops, model.kappa)) else {
        let why = "the law has no compute-optimal point in closed form: ask for N and D";
        return blocked(why, Some(flops), None);
    };
    let measured = match &optimum.loss_nats {
        Estimate::Identified { .. } => inference.optimum_measured(flops, kappa),
        reason @ Estimate::NotIdentified { .. } => reason.clone(),
    };
    FitPrediction {
        parameters: view::estimate(&optimum.parameters),
        tokens: view::estimate(&optimum.tokens),
        loss_nats: view::estimate(&optimum.loss_nats),
        measured_loss_nats: view::estimate(&measured),
        flops_per_parameter_token: Some(kappa),
        along_sizes: model.along_sizes(flops),
        extrapolation,
        ..blocked("", Some(flops), None)
    }
}

/// No number for this reason, beside what was asked about.
fn blocked(reason: &str, flops: Option<f64>, model: Option<(f64, f64)>) -> FitPrediction {
    let none = || view::not_identified(reason);
    let given = |value: f64| EstimateView::Identified { value, low: value, high: value };
    FitPrediction {
        group: String::new(),
        method: String::new(),
        flops,
        parameters: model.map_or_else(none, |(parameters, _)| given(parameters)),
        tokens: model.map_or_else(none, |(_, tokens)| given(tokens)),
        loss_nats: none(),
        measured_loss_nats: none(),
        flops_per_parameter_token: None,
        along_sizes: None,
        extrapolation: None,
        warnings: Vec::new(),
    }
}
