//! Owns the best size for a budget along an actual ladder of models, under FLOPs that need not be 6
//! N D. Does not count FLOPs: the caller gives those of each model for one token, by whatever
//! formula is exact for it.
//!
//! In closed form N_opt needs C = κ N D with one κ. Attention over a long context, a decay's gates
//! or an embedding make κ fall with N; then the law is minimised along the ladder itself, where a
//! budget buys D = C / F(N) tokens.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::interval::{Estimate, Inference};
use crate::law::{Law, LogPoint, Quantity, Variable};

/// Spread of C / (N D) over the fitted sizes, largest over smallest, from which one κ for all is no
/// longer a rounding: N_opt goes with κ^-a, so at this spread it is off by about a per cent, and
/// more with every size beyond the fitted ones.
pub const MAX_KAPPA_SPREAD: f64 = 1.02;

/// Places between two rungs at which the loss is looked at before the best one is closed in on.
const PLACES: usize = 12;
/// Steps of the golden section; 60 leave a part in 10^12 of a place.
const SECTIONS: usize = 60;
/// Rungs whose ln N differ by less are one.
const SAME_SIZE: f64 = 1e-9;

/// A model of the ladder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rung {
    /// N, in the convention of the law.
    pub parameters: f64,
    /// FLOPs of training for one token.
    pub flops_per_token: f64,
}

/// Why rungs are no ladder.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LadderError {
    /// One rung has no between.
    #[error("a ladder needs at least 2 sizes, found {found}")]
    TooFew {
        /// Distinct sizes.
        found: usize,
    },
    /// A number that makes no sense.
    #[error("`{field}` of a rung must be finite and positive, found {value}")]
    NotPositive {
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: f64,
    },
    /// One size costs two different numbers of FLOPs.
    #[error(
        "N = {parameters:e} has {one:e} and {other:e} FLOPs for a token; one size is one model"
    )]
    TwoCosts {
        /// N.
        parameters: f64,
        /// FLOPs for a token of the one.
        one: f64,
        /// And of the other.
        other: f64,
    },
    /// A larger model is cheaper.
    #[error(
        "N = {parameters:e} costs {found:e} FLOPs for a token, less than the next smaller size \
         with {before:e}"
    )]
    Falling {
        /// N of the larger one.
        parameters: f64,
        /// Its FLOPs for a token.
        found: f64,
        /// Those of the smaller one.
        before: f64,
    },
}

/// A checked ladder: FLOPs for a token as a function of N between its smallest and its largest
/// rung.
///
/// Between rungs ln F over ln N is the monotone cubic of Fritsch and Butland (1984), so it never
/// falls and has no corner at which an optimum would stick.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    rungs: Vec<Rung>,
    /// (ln N, ln F) of each.
    places: Vec<(f64, f64)>,
    slopes: Vec<f64>,
}

/// The best place of a budget on a ladder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LadderOptimum {
    /// N_opt.
    pub parameters: f64,
    /// D_opt = C / F(N_opt).
    pub tokens: f64,
    /// L there, nats per token.
    pub loss_nats: f64,
    /// Whether it is the smallest or the largest rung, so that a size beyond the ladder may be
    /// better.
    pub is_end: bool,
    /// N of the rung with the least loss at this budget: the model to train.
    pub rung_parameters: f64,
}

/// The best place of a budget with intervals from the joint draws.
#[derive(Debug, Clone, PartialEq)]
pub struct LadderEstimate {
    /// C.
    pub flops: f64,
    /// N_opt; not identified where it is an end of the ladder.
    pub parameters: Estimate,
    /// D_opt; the same.
    pub tokens: Estimate,
    /// L there, nats per token.
    pub loss_nats: Estimate,
    /// N of the best rung; `None` where the law does not say how N and D share a budget.
    pub rung_parameters: Option<f64>,
    /// Share of the draws whose best place is an end of the ladder: above half of what the interval
    /// leaves out at a side, an end of the interval is one of the ladder.
    pub share_at_end: f64,
}

impl Ladder {
    /// The ladder of these models, in any order; equal ones count once.
    ///
    /// # Errors
    /// [`LadderError`]: fewer than two sizes, numbers that are not positive, or FLOPs that fall
    /// with N.
    pub fn new(rungs: &[Rung]) -> Result<Self, LadderError> {
        let mut rungs = rungs.to_vec();
        for rung in &rungs {
            let fields =
                [("parameters", rung.parameters), ("flops_per_token", rung.flops_per_token)];
            for (field, value) in fields {
                if !(value.is_finite() && value > 0.0) {
                    return Err(LadderError::NotPositive { field, value });
                }
            }
        }
        rungs.sort_by(|a, b| a.parameters.total_cmp(&b.parameters));
        let mut distinct: Vec<Rung> = Vec::with_capacity(rungs.len());
        for rung in rungs {
            let Some(before) = distinct.last() else {
                distinct.push(rung);
                continue;
            };
            let (one, other) = (before.flops_per_token, rung.flops_per_token);
            let parameters = rung.parameters;
            if (parameters / before.parameters).ln() >= SAME_SIZE {
                if other < one {
                    return Err(LadderError::Falling { parameters, found: other, before: one });
                }
                distinct.push(rung);
            } else if (other / one).ln().abs() >= SAME_SIZE {
                return Err(LadderError::TwoCosts { parameters, one, other });
            }
        }
        if distinct.len() < 2 {
            return Err(LadderError::TooFew { found: distinct.len() });
        }
        let place = |rung: &Rung| (rung.parameters.ln(), rung.flops_per_token.ln());
        let places: Vec<(f64, f64)> = distinct.iter().map(place).collect();
        Ok(Self { slopes: slopes(&places), places, rungs: distinct })
    }

    /// Its sizes, ascending, each once.
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// N of the smallest and of the largest rung.
    pub fn range(&self) -> (f64, f64) {
        (self.places[0].0.exp(), self.places[self.places.len() - 1].0.exp())
    }

    /// FLOPs for a token at N, which must lie on the ladder; not a number elsewhere.
    pub fn flops_per_token(&self, parameters: f64) -> f64 {
        let (size, (low, high)) = (parameters.ln(), self.ends());
        let is_on = low - SAME_SIZE <= size && size <= high + SAME_SIZE;
        if is_on { self.ln_cost(size.clamp(low, high)).exp() } else { f64::NAN }
    }

    /// The best place for `flops` under a law of N and D; `None` for a law that has no loss there.
    pub fn optimum(&self, law: &dyn Law, theta: &[f64], flops: f64) -> Option<LadderOptimum> {
        let loss = |size: f64| {
            let tokens = flops.ln() - self.ln_cost(size);
            law.predict(theta, &LogPoint::of_logs(size, tokens, flops.ln()))
        };
        let sizes: Vec<f64> = self.places.windows(2).flat_map(between).collect();
        let sizes: Vec<f64> = sizes.into_iter().chain([self.ends().1]).collect();
        let losses: Vec<f64> = sizes.iter().map(|size| loss(*size)).collect();
        let best = |of: &mut dyn Iterator<Item = usize>| {
            of.filter(|at| losses[*at].is_finite()).min_by(|a, b| losses[*a].total_cmp(&losses[*b]))
        };
        let at = best(&mut (0..sizes.len()))?;
        let rung = best(&mut (0..sizes.len()).step_by(PLACES))?;
        let bounds = (sizes[at.saturating_sub(1)], sizes[(at + 1).min(sizes.len() - 1)]);
        let closed_in = golden(bounds, loss);
        let size = if loss(closed_in) < losses[at] { closed_in } else { sizes[at] };
        let (low, high) = self.ends();
        Some(LadderOptimum {
            parameters: size.exp(),
            tokens: (flops.ln() - self.ln_cost(size)).exp(),
            loss_nats: loss(size),
            is_end: size - low < SAME_SIZE || high - size < SAME_SIZE,
            rung_parameters: self.rungs[rung / PLACES].parameters,
        })
    }

    /// The best place for `flops` with intervals; `None` for laws that are not laws of N and D.
    pub fn estimate(&self, inference: &Inference, flops: f64) -> Option<LadderEstimate> {
        let law = inference.form.law();
        if law.variables() != [Variable::Parameters, Variable::Tokens] {
            return None;
        }
        let replicates = &inference.resampled.replicates;
        // Each draw is minimised once, for all that is asked of it.
        let known = RefCell::new(HashMap::<Vec<u64>, Option<LadderOptimum>>::new());
        let at = |theta: &[f64]| {
            let key = theta.iter().map(|value| value.to_bits()).collect();
            let mut known = known.borrow_mut();
            *known.entry(key).or_insert_with(|| self.optimum(law, theta, flops))
        };
        let found = at(&inference.resampled.theta)?;
        let ends = replicates.iter().filter(|theta| at(theta).is_some_and(|one| one.is_end));
        let share_at_end = ends.count() as f64 / replicates.len().max(1) as f64;
        let blocked = inference.why_no_optimum();
        let derive = |quantity: Quantity, of: fn(LadderOptimum) -> f64| match &blocked {
            Some(reason) => Estimate::not_identified(reason.clone()),
            None => inference.derive(quantity, |theta| at(theta).map_or(f64::NAN, of)),
        };
        let place = |of: fn(LadderOptimum) -> f64| {
            if found.is_end && blocked.is_none() {
                let (low, high) = self.range();
                return Estimate::not_identified(format!(
                    "the best size is an end of the ladder, which goes from {low:.3e} to {high:.3e}"
                ));
            }
            derive(Quantity::Scale, of)
        };
        Some(LadderEstimate {
            flops,
            parameters: place(|one| one.parameters),
            tokens: place(|one| one.tokens),
            loss_nats: derive(Quantity::Loss, |one| one.loss_nats),
            rung_parameters: blocked.is_none().then_some(found.rung_parameters),
            share_at_end,
        })
    }

    fn ends(&self) -> (f64, f64) {
        (self.places[0].0, self.places[self.places.len() - 1].0)
    }

    /// ln F at ln N between the ends.
    fn ln_cost(&self, size: f64) -> f64 {
        let after = self.places.partition_point(|place| place.0 < size);
        let at = after.clamp(1, self.places.len() - 1) - 1;
        let ((x0, y0), (x1, y1)) = (self.places[at], self.places[at + 1]);
        let width = x1 - x0;
        let t = (size - x0) / width;
        // Hermite's cubic as the chord and what the slopes add to it, so that a straight line stays
        // one.
        let chord = (y1 - y0) / width;
        let (left, right) = (self.slopes[at] - chord, self.slopes[at + 1] - chord);
        y0 + (y1 - y0) * t + width * t * (1.0 - t) * ((1.0 - t) * left - t * right)
    }
}

/// The first rung of two and the places after it.
fn between(pair: &[(f64, f64)]) -> impl Iterator<Item = f64> + use<> {
    let (low, high) = (pair[0].0, pair[1].0);
    (0..PLACES).map(move |place| low + (high - low) * place as f64 / PLACES as f64)
}

/// Slopes at the rungs (Fritsch and Butland 1984, equation 5): weighted harmonic means of the
/// neighbouring chords, those of the chord at the ends. They keep the cubic monotone.
fn slopes(places: &[(f64, f64)]) -> Vec<f64> {
    let chords: Vec<(f64, f64)> = places
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0, (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0)))
        .collect();
    let inner = chords.windows(2).map(|pair| {
        let ((before, left), (after, right)) = (pair[0], pair[1]);
        if left <= 0.0 || right <= 0.0 {
            return 0.0;
        }
        let (u, v) = (2.0 * after + before, after + 2.0 * before);
        (u + v) / (u / left + v / right)
    });
    let (first, last) = (chords[0].1, chords[chords.len() - 1].1);
    std::iter::once(first).chain(inner).chain([last]).collect()
}

/// The place of the least value between two bounds.
fn golden((mut low, mut high): (f64, f64), of: impl Fn(f64) -> f64) -> f64 {
    let share = 0.5 * (5_f64.sqrt() - 1.0);
    let (mut left, mut right) = (high - share * (high - low), low + share * (high - low));
    let (mut at_left, mut at_right) = (of(left), of(right));
    for _ in 0..SECTIONS {
        if at_left <= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - share * (high - low);
            at_left = of(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + share * (high - low);
            at_right = of(right);
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests;
