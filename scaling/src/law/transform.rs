//! Owns the map between a number inside bounds and an unbounded parameter.
//! Does not decide the bounds; each law does.

/// An interval of ln of a coefficient, which a parameter `u` walks through by the logistic
/// function.
///
/// A minimiser without constraints then never leaves it, and a coefficient at its bound shows as a
/// parameter that runs away without effect.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LogBounded {
    /// Smallest coefficient.
    pub(super) low: f64,
    /// Largest coefficient.
    pub(super) high: f64,
}

impl LogBounded {
    /// ln of the coefficient at `u`, and its derivative.
    pub(super) fn log(self, u: f64) -> (f64, f64) {
        let (low, high) = (self.low.ln(), self.high.ln());
        let share = logistic(u);
        (low + (high - low) * share, (high - low) * share * logistic(-u))
    }

    /// The coefficient at `u`.
    pub(super) fn value(self, u: f64) -> f64 {
        self.log(u).0.exp()
    }

    /// The parameter of a coefficient, which is moved inside if it is not.
    pub(super) fn inverse(self, value: f64) -> f64 {
        const EDGE: f64 = 1e-6;
        let (low, high) = (self.low.ln(), self.high.ln());
        let share = ((value.ln() - low) / (high - low)).clamp(EDGE, 1.0 - EDGE);
        (share / (1.0 - share)).ln()
    }
}

/// 1 / (1 + e^-u) without overflow.
pub(super) fn logistic(u: f64) -> f64 {
    if u >= 0.0 {
        1.0 / (1.0 + (-u).exp())
    } else {
        let e = u.exp();
        e / (1.0 + e)
    }
}

/// ln(1 + e^u) without overflow.
pub(super) fn softplus(u: f64) -> f64 {
    u.max(0.0) + (-u.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_coefficient_is_read_back_and_never_leaves_its_bounds() {
        let bounds = LogBounded { low: 0.05, high: 3.0 };
        for value in [0.06, 0.5, 1.0, 2.9] {
            assert!((bounds.value(bounds.inverse(value)) / value - 1.0).abs() < 1e-12);
        }
        for u in [-1e3, -40.0, 40.0, 1e3] {
            let value = bounds.value(u);
            assert!((0.05 - 1e-12..=3.0 + 1e-12).contains(&value), "{u}: {value}");
        }
    }

    #[test]
    fn softplus_and_logistic_do_not_overflow() {
        assert_eq!((softplus(800.0), softplus(-800.0)), (800.0, 0.0));
        assert_eq!((logistic(800.0), logistic(-800.0)), (1.0, 0.0));
    }
}
