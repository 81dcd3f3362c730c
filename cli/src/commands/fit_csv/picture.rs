//! The fits of a file as a figure: points with the law and its interval, isoFLOP profiles, residuals.
//!
//! Drawing itself is `crate::figure`, and `crate::plot` for the terminal.

use scaling::interval::{Estimate, Inference};
use scaling::law::{LawName, LogPoint, Variable};
use scaling::observation::{Covariates, Observation};

use super::profiles::{self, Profile};
use super::{Fitted, Job, keep};
use crate::figure::{Axis, Figure, Layer, Panel, PngError, Scale};
use crate::plot::{Labels, Mark, Series, render};

mod residuals;

/// Points of a drawn curve.
const N_CURVE: usize = 80;
/// Most marks of a group; more would hide each other and take minutes to show.
const MOST_MARKS: usize = 2000;
/// How far beyond the fitted rows a curve is drawn.
const BEYOND: f64 = 4.0;

/// What the first panel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Loss over C, with the loss at the best N and D of each budget.
    Frontier,
    /// The law over its only variable.
    Single(Variable),
    /// Measured over predicted: the law has several variables and no best split of a budget.
    Predicted,
}

impl Kind {
    fn of(job: &Job<'_>) -> Self {
        let choice = job.table.choice;
        match choice.law().variables() {
            [only] => Self::Single(*only),
            _ if matches!(choice.name, LawName::Chinchilla | LawName::Coupled) => Self::Frontier,
            _ => Self::Predicted,
        }
    }

    fn x_label(self, is_accuracy: bool) -> String {
        match self {
            Self::Frontier | Self::Single(Variable::Flops) => "C, FLOPs".to_owned(),
            Self::Single(Variable::Parameters) => "N, parameters".to_owned(),
            Self::Single(Variable::Tokens) => "D, tokens".to_owned(),
            Self::Single(other) => other.label().to_owned(),
            Self::Predicted if is_accuracy => "predicted accuracy".to_owned(),
            Self::Predicted => "predicted loss, nats per token".to_owned(),
        }
    }

    fn x_scale(self) -> Scale {
        if self == Self::Single(Variable::TaskLoss) { Scale::Linear } else { Scale::Log }
    }
}

/// A row as it is drawn.
struct Dot {
    x: f64,
    y: f64,
    /// Predicted over measured, less one, in per cent.
    residual: f64,
}

/// A group as it is drawn.
struct Scene {
    name: String,
    fitted: Vec<Dot>,
    held_out: Vec<Dot>,
    /// (x, low, value, high); empty where the law is not identified.
    curve: Vec<(f64, f64, f64, f64)>,
    /// The smallest and the largest x among the fitted rows: beyond them the curve is an
    /// extrapolation.
    fitted_x: (f64, f64),
    profiles: Vec<Profile>,
}

/// The figure of all groups, and what a terminal shows of it.
pub(super) struct Picture {
    kind: Kind,
    is_accuracy: bool,
    scenes: Vec<Scene>,
    title: String,
    /// Nominal coverage of the intervals.
    level: f64,
}

impl Picture {
    pub(super) fn of(job: &Job<'_>, fits: &[Fitted]) -> Self {
        let kind = Kind::of(job);
        let choice = job.table.choice;
        let title = format!(
            "{}, {} fitted to {}",
            choice.law().formula(),
            choice.name,
            job.file.file_name().unwrap_or_default().to_string_lossy()
        );
        let scenes = fits.iter().map(|one| scene(job, kind, one)).collect();
        let level = fits.first().map_or(f64::NAN, |one| one.inference.resampled.level);
        Self { kind, is_accuracy: choice.name == LawName::Sigmoid, scenes, title, level }
    }

    /// What a terminal shows: the first panel in characters; empty when nothing can be drawn.
    pub(super) fn text(&self) -> String {
        let dots = |scene: &Scene| {
            let mark = |dot: &Dot, is_held_out| Mark { x: dot.x, y: dot.y, is_held_out };
            let fitted = scene.fitted.iter().map(move |dot| mark(dot, false));
            fitted.chain(scene.held_out.iter().map(move |dot| mark(dot, true))).collect()
        };
        let series: Vec<Series> = self
            .scenes
            .iter()
            .map(|scene| Series {
                name: scene.name.clone(),
                marks: dots(scene),
                curve: scene.curve.iter().map(|(x, _, y, _)| (*x, *y)).collect(),
            })
            .collect();
        let x = self.kind.x_label(self.is_accuracy);
        let mut text = render(&series, Labels { x: &x, y: self.y_label() });
        if !text.is_empty() && self.kind == Kind::Frontier {
            text.push_str(" at the best N and D");
        }
        text
    }

    fn y_label(&self) -> &'static str {
        if self.is_accuracy { "accuracy" } else { "L, nats per token" }
    }

    /// The whole figure as SVG.
    pub(super) fn svg(&self) -> String {
        self.figure().svg()
    }

    /// The whole figure as PNG.
    pub(super) fn png(&self) -> Result<Vec<u8>, PngError> {
        self.figure().png()
    }

    fn figure(&self) -> Figure {
        let mut panels = vec![self.main()];
        for (series, scene) in self.scenes.iter().enumerate() {
            if !scene.profiles.is_empty() {
                panels.push(profiles::panel(series, &scene.name, &scene.profiles));
            }
        }
        let x = Axis { label: self.kind.x_label(self.is_accuracy), scale: self.kind.x_scale() };
        panels.push(residuals::panel(&self.scenes, x));
        let has_held_out = self.scenes.iter().any(|scene| !scene.held_out.is_empty());
        let mut notes = Vec::new();
        if has_held_out {
            notes.push("filled: held out".to_owned());
        }
        if self.scenes.iter().any(|scene| !scene.curve.is_empty()) && self.kind != Kind::Predicted {
            notes.push(format!(
                "shaded: {:.0} % interval of the curve; broken: beyond the data",
                100.0 * self.level
            ));
        }
        let series = self.scenes.iter().map(|scene| scene.name.clone()).collect();
        Figure { title: self.title.clone(), series, notes, panels }
    }

    fn main(&self) -> Panel {
        let mut layers = Vec::new();
        for (series, scene) in self.scenes.iter().enumerate() {
            if self.kind != Kind::Predicted {
                let points = scene.curve.iter().map(|(x, low, _, high)| (*x, *low, *high));
                layers.push(Layer::Band { series, points: points.collect() });
            }
        }
        for (series, scene) in self.scenes.iter().enumerate() {
            let line = |keep: &dyn Fn(f64) -> bool| -> Vec<(f64, f64)> {
                let points = scene.curve.iter().filter(|point| keep(point.0));
                points.map(|(x, _, y, _)| (*x, *y)).collect()
            };
            let own = (self.kind != Kind::Predicted).then_some(series);
            let of = |points, is_dashed| Layer::Line {
                series: own,
                points,
                is_dashed,
                label: String::new(),
            };
            // The parts share the points at the ends of the data, so that there is no gap.
            let (first, last) = scene.fitted_x;
            if scene.curve.first().is_some_and(|point| point.0 < first) {
                layers.push(of(line(&|x| x <= first), true));
            }
            layers.push(of(line(&|x| (first..=last).contains(&x)), false));
            layers.push(of(line(&|x| x >= last), true));
            layers.extend(marks(series, scene, &|dot| (dot.x, dot.y)));
        }
        let title = match self.kind {
            Kind::Frontier => "The rows, and the loss at the best N and D of each budget",
            Kind::Single(_) => "The rows and the law",
            Kind::Predicted => "Measured over predicted",
        };
        let is_linear = self.kind == Kind::Single(Variable::TaskLoss);
        Panel {
            title: self.thinned(title),
            x: Axis { label: self.kind.x_label(self.is_accuracy), scale: self.kind.x_scale() },
            y: Axis {
                label: self.y_label().to_owned(),
                scale: if is_linear { Scale::Linear } else { Scale::Log },
            },
            height: 330.0,
            layers,
        }
    }

    fn thinned(&self, title: &str) -> String {
        let most = self.scenes.iter().map(|scene| scene.fitted.len()).max().unwrap_or(0);
        let step = most.div_ceil(MOST_MARKS).max(1);
        if step == 1 { title.to_owned() } else { format!("{title}; 1 of {step} rows is drawn") }
    }
}

fn marks(series: usize, scene: &Scene, of: &dyn Fn(&Dot) -> (f64, f64)) -> [Layer; 2] {
    let fitted = drawn(&scene.fitted).map(of).collect();
    let held_out = scene.held_out.iter().map(of).collect();
    [
        Layer::Marks { series, points: fitted, is_filled: false },
        Layer::Marks { series, points: held_out, is_filled: true },
    ]
}

/// Those of the fitted rows that are drawn.
fn drawn(fitted: &[Dot]) -> impl Iterator<Item = &Dot> {
    fitted.iter().step_by(fitted.len().div_ceil(MOST_MARKS).max(1))
}

fn scene(job: &Job<'_>, kind: Kind, one: &Fitted) -> Scene {
    let dot = |(observation, covariates): &(Observation, Covariates)| {
        let point = LogPoint::from(observation).with(covariates);
        let predicted = one.fit.predict_at(&point);
        let y = observation.loss_nats;
        let x = match kind {
            Kind::Frontier => observation.flops,
            Kind::Single(variable) => point.value(variable),
            Kind::Predicted => predicted,
        };
        Dot { x, y, residual: 100.0 * (predicted / y - 1.0) }
    };
    let pairs = one.dataset.points().iter().copied().zip(one.dataset.covariates().iter().copied());
    let fitted: Vec<Dot> = pairs.map(|pair| dot(&pair)).collect();
    let held_out: Vec<Dot> = one.held_out.iter().map(dot).collect();
    let ends = |dots: &[Dot]| {
        let low = dots.iter().map(|dot| dot.x).fold(f64::INFINITY, f64::min);
        (low, dots.iter().map(|dot| dot.x).fold(f64::NEG_INFINITY, f64::max))
    };
    let (fitted_x, held_out_x) = (ends(&fitted), ends(&held_out));
    let kappa = keep::conventions(job, &one.dataset).flops_per_parameter_token;
    let name = one.report.group.clone().unwrap_or_else(|| "rows".to_owned());
    Scene {
        name,
        curve: curve(kind, &one.inference, [fitted_x, held_out_x], kappa),
        profiles: profiles::of(job, one),
        fitted,
        held_out,
        fitted_x,
    }
}

/// The law over x with its interval, from the ends of the fitted rows to those of the held-out ones
/// on either side; nothing where it is not identified.
fn curve(
    kind: Kind,
    inference: &Inference,
    [(first, last), (nearest, furthest)]: [(f64, f64); 2],
    kappa: Option<f64>,
) -> Vec<(f64, f64, f64, f64)> {
    if kind == Kind::Predicted {
        return [first, last].map(|x| (x, x, x, x)).into();
    }
    let is_linear = kind.x_scale() == Scale::Linear;
    // A task loss is less the better the model is, so that held-out ones lie on that side.
    let low = first.min(nearest);
    let high = if is_linear { last.max(furthest) } else { (BEYOND * last).max(furthest) };
    let share = |index: usize| index as f64 / (N_CURVE - 1) as f64;
    let between = |index: usize| {
        if is_linear {
            low + share(index) * (high - low)
        } else {
            (low.ln() + share(index) * (high.ln() - low.ln())).exp()
        }
    };
    // Rounding must not begin the curve before the rows.
    let inside = (0..N_CURVE).map(|index| between(index).max(low));
    let mut xs: Vec<f64> = inside.chain([first, last]).collect();
    xs.sort_unstable_by(f64::total_cmp);
    let estimate = |x: f64| match kind {
        Kind::Frontier => inference.optimum(x, kappa?).map(|optimum| optimum.loss_nats),
        Kind::Single(variable) => Some(inference.predict_at(&point_of(variable, x)).curve),
        Kind::Predicted => None,
    };
    xs.into_iter()
        .filter_map(|x| match estimate(x)? {
            Estimate::Identified { value, low, high } => Some((x, low, value, high)),
            Estimate::NotIdentified { .. } => None,
        })
        .collect()
}

/// A point of which only one variable is known.
fn point_of(variable: Variable, value: f64) -> LogPoint {
    let unknown = f64::NAN;
    match variable {
        Variable::Parameters => LogPoint::new(value, unknown, unknown),
        Variable::Tokens => LogPoint::new(unknown, value, unknown),
        Variable::Flops => LogPoint::new(unknown, unknown, value),
        _ => LogPoint::new(unknown, unknown, unknown)
            .with(&Covariates { task_loss: Some(value), ..Covariates::default() }),
    }
}
