//! Owns a law of which some free parameters are held at given values: two-stage fits and borrowed
//! exponents. Does not find those values.

use super::{
    Bound, Coefficient, Invariance, Law, LawChoice, LawForm, LogPoint, MAX_PARAMETERS, Needs,
    Variable,
};

/// A law with some of `theta` held fixed; its own `theta` are the others, in their order.
///
/// ```
/// use scaling::law::{Law, LawName, Pinned};
/// let law = Pinned::new(LawName::Chinchilla.law().choice(), &[("alpha", 0.5)])?;
/// assert_eq!(law.parameter_names(), ["ln_a", "ln_b", "ln_e", "beta"]);
/// assert!(Pinned::new(LawName::Chinchilla.law().choice(), &[("gamma", 0.5)]).is_err());
/// # Ok::<(), scaling::law::PinError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Pinned {
    choice: LawChoice,
    /// Per parameter of the law, the value it is held at.
    held: Vec<Option<f64>>,
    /// Positions of the free parameters, and their names.
    free: Vec<usize>,
    names: Vec<&'static str>,
}

/// Why parameters cannot be pinned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PinError {
    /// The law has no such parameter.
    #[error("`{law}` has no parameter `{name}`; it has {known}")]
    Unknown {
        /// The law.
        law: &'static str,
        /// What was asked for.
        name: String,
        /// What there is, as a list for people.
        known: String,
    },
    /// A value is no number, or nothing is left to fit.
    #[error(
        "`{name}` cannot be held at {value}: it must be finite, and one parameter must stay free"
    )]
    BadValue {
        /// The parameter.
        name: String,
        /// What was given.
        value: f64,
    },
}

impl Pinned {
    /// Holds parameters of `theta`, by name, at values as they stand in `theta` (that is, mostly
    /// logs).
    ///
    /// # Errors
    /// [`PinError`]: a name the law does not have, a value that is not finite, or nothing left to
    /// fit.
    pub fn new(choice: LawChoice, values: &[(&str, f64)]) -> Result<Self, PinError> {
        let names = choice.law().parameter_names();
        let mut held = vec![None; names.len()];
        for (name, value) in values {
            let Some(index) = names.iter().position(|known| known == name) else {
                let known: Vec<String> = names.iter().map(|known| format!("`{known}`")).collect();
                let (law, name) = (choice.name.label(), (*name).to_owned());
                return Err(PinError::Unknown { law, name, known: known.join(", ") });
            };
            held[index] = Some(*value);
            if !value.is_finite() || held.iter().all(Option::is_some) {
                return Err(PinError::BadValue { name: (*name).to_owned(), value: *value });
            }
        }
        let free: Vec<usize> = (0..names.len()).filter(|index| held[*index].is_none()).collect();
        let names = free.iter().map(|index| names[*index]).collect();
        Ok(Self { choice, held, free, names })
    }

    /// All parameters of the law at the free ones `theta`.
    pub fn full(&self, theta: &[f64]) -> Vec<f64> {
        let mut full: Vec<f64> = self.held.iter().map(|value| value.unwrap_or(0.0)).collect();
        self.free.iter().zip(theta).for_each(|(index, value)| full[*index] = *value);
        full
    }

    fn inner(&self) -> &'static dyn Law {
        self.choice.law()
    }
}

impl Law for Pinned {
    fn choice(&self) -> LawChoice {
        self.choice
    }

    fn formula(&self) -> &'static str {
        self.inner().formula()
    }

    fn variables(&self) -> &'static [Variable] {
        self.inner().variables()
    }

    fn bounds(&self) -> &'static [Bound] {
        self.inner().bounds()
    }

    fn invariances(&self) -> &'static [Invariance] {
        // A held prefactor or exponent is given in some unit.
        &[]
    }

    fn identified_by(&self) -> &'static str {
        self.inner().identified_by()
    }

    fn parameter_names(&self) -> &[&'static str] {
        &self.names
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        self.inner().coefficients(&self.full(theta))
    }

    fn needs(&self) -> Needs {
        // What is held need not be determined; what is left may need as little as one value of
        // each.
        Needs { n_sizes: 1, n_token_counts: 1, n_budgets: 1 }
    }

    fn unit_of(&self, j: usize, points: &[LogPoint], log_losses: &[f64]) -> f64 {
        self.inner().unit_of(self.free[j], points, log_losses)
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let mut full = [0.0; MAX_PARAMETERS];
        let mut whole = [0.0; MAX_PARAMETERS];
        for (target, value) in full.iter_mut().zip(&self.held) {
            *target = value.unwrap_or(0.0);
        }
        self.free.iter().zip(theta).for_each(|(index, value)| full[*index] = *value);
        let n = self.held.len();
        let value = self.inner().log_prediction(&full[..n], point, &mut whole);
        self.free.iter().zip(gradient).for_each(|(index, target)| *target = whole[*index]);
        value
    }

    /// The law's own grid, without what is held; what then coincides is tried once.
    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let mut starts: Vec<Vec<f64>> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for start in self.inner().starting_grid(points, log_losses) {
            let kept: Vec<f64> = self.free.iter().map(|index| start[*index]).collect();
            if seen.insert(kept.iter().map(|value| value.to_bits()).collect::<Vec<u64>>()) {
                starts.push(kept);
            }
        }
        starts
    }

    fn least_polished(&self) -> usize {
        self.inner().least_polished()
    }

    fn form(&self) -> LawForm {
        LawForm::Pinned(self.clone())
    }
}
