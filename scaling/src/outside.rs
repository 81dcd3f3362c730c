//! Where a value stands beside the fitted ones, and how a reader is told.
//!
//! Holds no range of its own: a fit knows what it was fitted to.

/// Beyond this factor of what was fitted a law has been wrong before
/// (`docs/guides/read-a-fit.md`).
pub const FAR: f64 = 10.0;

/// From this factor on it is written with a power of ten.
const LARGE: f64 = 1e4;

/// A value and the fitted ones that it stands beside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// The value.
    pub value: f64,
    /// The smallest and the largest that were fitted.
    pub range: (f64, f64),
    /// Whether it lies between them.
    pub is_inside: bool,
    /// The value over the nearer end; 1 inside, none where a ratio says nothing.
    pub factor: Option<f64>,
}

impl Standing {
    /// A value beside the smallest and the largest fitted one.
    pub fn of(value: f64, (low, high): (f64, f64)) -> Self {
        // A budget that was fitted, divided and multiplied again, is not outside.
        let slack = 1e-9 * high.abs();
        let is_inside = low - slack <= value && value <= high + slack;
        let end = if value > high + slack { high } else { low };
        let has_factor = low > 0.0 && value > 0.0;
        let factor = has_factor.then(|| if is_inside { 1.0 } else { value / end });
        Self { value, range: (low, high), is_inside, factor }
    }

    /// The warning about a value outside: `far-extrapolation` where it is more than `FAR` times the
    /// largest fitted one, `outside-data` otherwise.
    pub fn warning(&self, variable: &str) -> Option<String> {
        if self.is_inside {
            return None;
        }
        let (value, (low, high)) = (self.value, self.range);
        let is_far = self.factor.is_some_and(|factor| factor > FAR);
        let name = if is_far { "far-extrapolation" } else { "outside-data" };
        let (end, word) = if value > high { (high, "largest") } else { (low, "smallest") };
        let side = if value > high { "above" } else { "below" };
        let place = match self.factor {
            Some(factor) if factor >= LARGE => format!("{factor:.2e} times"),
            Some(factor) if factor >= 0.01 => format!("{factor:.3} times"),
            Some(factor) => format!("{factor:.1e} times"),
            None => side.to_owned(),
        };
        Some(format!("{name}: {variable} = {value:.3e} is {place} the {word} fitted, {end:.3e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_the_fitted_ones_is_inside() {
        for value in [1e6, 3e6, 1e8, 1e8 * (1.0 + 1e-12)] {
            let standing = Standing::of(value, (1e6, 1e8));
            assert_eq!((standing.factor, standing.warning("N")), (Some(1.0), None), "{value}");
        }
    }

    #[test]
    fn what_lies_outside_is_named_with_its_distance() {
        let warning = |value| Standing::of(value, (1e6, 1e8)).warning("N").unwrap_or_default();
        assert_eq!(
            warning(1e10),
            "far-extrapolation: N = 1.000e10 is 100.000 times the largest fitted, 1.000e8"
        );
        assert_eq!(
            warning(3e20),
            "far-extrapolation: N = 3.000e20 is 3.00e12 times the largest fitted, 1.000e8"
        );
        assert_eq!(
            warning(2e8),
            "outside-data: N = 2.000e8 is 2.000 times the largest fitted, 1.000e8"
        );
        assert_eq!(
            warning(1e3),
            "outside-data: N = 1.000e3 is 1.0e-3 times the smallest fitted, 1.000e6"
        );
    }

    #[test]
    fn a_variable_that_may_be_negative_has_no_factor() {
        let standing = Standing::of(3.0, (-1.0, 2.0));
        assert_eq!((standing.is_inside, standing.factor), (false, None));
        let expected = "outside-data: S = 3.000e0 is above the largest fitted, 2.000e0";
        assert_eq!(standing.warning("S").as_deref(), Some(expected));
    }
}
