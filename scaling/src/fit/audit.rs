//! Owns the audit of a search: the classic grid of starting points, every one followed to its end.
//! Does not replace the search; it shows what share of classic starts would have found its optimum.

use super::{EQUAL_OBJECTIVE, FitError, FitOptions, Problem};
use crate::law::{Law, LawName};
use crate::minimize::Minimum;
use crate::observation::Dataset;

/// What the classic grid found.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// Starting points.
    pub n_starts: usize,
    /// Of these, converged.
    pub n_converged: usize,
    /// Of these, at the best minimum (objective within [`EQUAL_OBJECTIVE`]).
    pub n_at_best: usize,
    /// The best objective, as the plain sum.
    pub objective: f64,
    /// The free parameters there.
    pub theta: Vec<f64>,
}

/// Follows all 4,500 starting points of Hoffmann et al. 2022 (2203.15556, section D.2), or every
/// `step`-th of them: ln A and ln B from 0 to 25 by 5, ln E from -1 to 1 by 0.5, alpha and beta
/// from 0 to 2 by 0.5.
///
/// Each is followed by the descent of `fit`, which brings a start that is far from the data near
/// them through larger thresholds: on the 240 points of Besiroglu et al. 2024 all of them reach the
/// optimum, where SciPy's L-BFGS-B at converged settings leads two in five there (`make
/// bench-fit`). What the audit shows is therefore whether these data have other minima, and not how
/// hard the search is for another optimiser.
///
/// # Errors
/// As `fit::fit`; also [`FitError::NoClassicGrid`] for other laws than `chinchilla`.
pub fn audit(
    law: &dyn Law,
    dataset: &Dataset,
    options: &FitOptions,
    step: usize,
) -> Result<Audit, FitError> {
    if law.name() != LawName::Chinchilla || law.parameter_names().len() != 5 {
        return Err(FitError::NoClassicGrid { law: law.name() });
    }
    let problem = Problem::new(law, dataset, options.objective)?;
    let starts: Vec<[f64; 5]> = classic_grid().step_by(step.max(1)).collect();
    let minima: Vec<Minimum> = starts.iter().map(|start| problem.descend(start)).collect();
    let converged: Vec<&Minimum> = minima.iter().filter(|one| one.converged).collect();
    let best = converged.iter().min_by(|a, b| a.value.total_cmp(&b.value));
    let Some(best) = best else {
        return Err(FitError::NotConverged {
            law: law.name(),
            n_polished: starts.len(),
            reason: None,
        });
    };
    let limit = best.value * (1.0 + EQUAL_OBJECTIVE) + 1e-12;
    Ok(Audit {
        n_starts: starts.len(),
        n_converged: converged.len(),
        n_at_best: converged.iter().filter(|one| one.value <= limit).count(),
        objective: problem.plain(&best.theta),
        theta: best.theta.clone(),
    })
}

fn classic_grid() -> impl Iterator<Item = [f64; 5]> {
    let prefactor = |i: usize| 5.0 * i as f64;
    let half = |i: usize| 0.5 * i as f64;
    (0..4500).map(move |index| {
        [
            prefactor(index / 750),
            prefactor(index / 125 % 6),
            half(index / 25 % 5) - 1.0,
            half(index / 5 % 5),
            half(index % 5),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::Study;

    #[test]
    fn the_classic_grid_is_complete_and_finds_what_the_search_finds() {
        let all: Vec<[f64; 5]> = classic_grid().collect();
        assert_eq!((all.len(), all[0]), (4500, [0.0, 0.0, -1.0, 0.0, 0.0]));
        assert_eq!(all[4499], [25.0, 25.0, 1.0, 2.0, 2.0]);
        let data = Study { run_sd: 0.003, seed: 4, ..Study::ladder(6) }.dataset();
        let options = FitOptions::default();
        let law = LawName::Chinchilla.law();
        let (audited, fitted) = (
            audit(law, &data, &options, 37).unwrap(),
            super::super::fit(law, &data, &options).unwrap(),
        );
        assert!((audited.objective / fitted.objective - 1.0).abs() < 1e-9, "{audited:?}");
        assert_eq!(audited.n_at_best, audited.n_starts, "{audited:?}");
        let objective = crate::objective::Objective::LogSquares;
        let squares = FitOptions { objective, ..options };
        let audited = audit(law, &data, &squares, 37).unwrap();
        assert!(100 * audited.n_at_best >= 95 * audited.n_starts, "{audited:?}");
        let error = audit(LawName::Power.law(), &data, &options, 1).unwrap_err();
        assert_eq!(error, FitError::NoClassicGrid { law: LawName::Power });
    }
}
