//! Owns synthetic studies with known coefficients, for tests.
//! Does not imitate training beyond a loss surface with luck per run and noise per point.

use crate::law::{Chinchilla, Law, LogPoint};
use crate::observation::{Dataset, Observation, RunKey};
use crate::random::Stream;

/// A study on a planted surface.
#[derive(Debug, Clone)]
pub(crate) struct Study {
    pub(crate) theta: [f64; 5],
    pub(crate) sizes: Vec<f64>,
    pub(crate) tokens: Vec<f64>,
    /// Factor on every loss.
    pub(crate) loss_scale: f64,
    /// Standard deviation of ln L between runs: the luck of a seed.
    pub(crate) run_sd: f64,
    /// Standard deviation of ln L between points of a run.
    pub(crate) point_sd: f64,
    pub(crate) seed: u64,
}

impl Study {
    /// `n` sizes from 40,000 parameters on, each 2.5 times the last, ten checkpoints over two
    /// decades of tokens.
    pub(crate) fn ladder(n: usize) -> Self {
        let step = |i: usize| 10_f64.powf(2.0 * i as f64 / 9.0);
        Self {
            theta: [60_f64.ln(), 300_f64.ln(), 1.5_f64.ln(), 0.35, 0.4],
            sizes: (0..n).map(|i| 4e4 * 2.5_f64.powf(i as f64)).collect(),
            tokens: (0..10).map(|i| 1e5 * step(i)).collect(),
            loss_scale: 1.0,
            run_sd: 0.0,
            point_sd: 0.0,
            seed: 0,
        }
    }

    /// The loss without luck or noise.
    pub(crate) fn loss(&self, parameters: f64, tokens: f64) -> f64 {
        let point = LogPoint::new(parameters, tokens, 6.0 * parameters * tokens);
        self.loss_scale * Chinchilla.predict(&self.theta, &point)
    }

    pub(crate) fn observations(&self) -> Vec<Observation> {
        let mut stream = Stream::new(self.seed, 0);
        let mut points = Vec::new();
        for (run, parameters) in (0..).zip(&self.sizes) {
            let luck = self.run_sd * stream.normal();
            for tokens in &self.tokens {
                let noise = luck + self.point_sd * stream.normal();
                points.push(Observation {
                    run: RunKey(run),
                    parameters: *parameters,
                    tokens: *tokens,
                    flops: 6.0 * parameters * tokens,
                    loss_nats: self.loss(*parameters, *tokens) * noise.exp(),
                    seed: 0,
                });
            }
        }
        points
    }

    pub(crate) fn dataset(&self) -> Dataset {
        Dataset::new(&self.observations()).expect("planted losses are positive")
    }
}
