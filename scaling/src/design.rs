//! Owns designs: budgets and sizes in, (N, D) out; log-spaced steps.
//! Does not know architectures: FLOPs per token come with each size.

/// A model size as a design sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// N.
    pub parameters: f64,
    /// Training FLOPs per token, forward and backward, in the study's convention.
    pub flops_per_token: f64,
}

/// One planned point: train `parameters` on `tokens`, spending `flops`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DesignPoint {
    /// Position of the size in the list given.
    pub size: usize,
    /// N.
    pub parameters: f64,
    /// D.
    pub tokens: f64,
    /// C.
    pub flops: f64,
}

/// What makes a design impossible.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DesignError {
    /// A list is empty.
    #[error("the design has no {what}")]
    Empty {
        /// Budgets or sizes.
        what: &'static str,
    },
    /// A number is not finite and positive.
    #[error("`{field}` {index} must be finite and positive, found {value}")]
    NotPositive {
        /// Which list.
        field: &'static str,
        /// Position in it.
        index: usize,
        /// What it holds.
        value: f64,
    },
    /// A range runs backwards.
    #[error(
        "a range must start at 1 or later and not end before it starts, found {first} to {last}"
    )]
    BadRange {
        /// Start.
        first: u64,
        /// End.
        last: u64,
    },
}

/// Every size at every budget: D = C / (FLOPs per token). Budgets in the order given, sizes inside.
///
/// ```
/// use scaling::design::{Size, isoflop};
/// let sizes = [Size { parameters: 1e6, flops_per_token: 6e6 }];
/// assert_eq!(isoflop(&[6e13], &sizes)?[0].tokens, 1e7);
/// # Ok::<(), scaling::design::DesignError>(())
/// ```
///
/// # Errors
/// Empty lists, values that are not finite and positive.
pub fn isoflop(budgets: &[f64], sizes: &[Size]) -> Result<Vec<DesignPoint>, DesignError> {
    check("budgets", budgets.iter().copied())?;
    check_sizes(sizes)?;
    let points = budgets.iter().flat_map(|budget| {
        let at = move |(index, size)| point(index, size, budget / size.flops_per_token);
        sizes.iter().enumerate().map(at)
    });
    Ok(points.collect())
}

/// Every size on the same number of tokens.
///
/// # Errors
/// As [`isoflop`].
pub fn fixed_tokens(tokens: f64, sizes: &[Size]) -> Result<Vec<DesignPoint>, DesignError> {
    check("tokens", [tokens].into_iter())?;
    check_sizes(sizes)?;
    Ok(sizes.iter().enumerate().map(|(index, size)| point(index, size, tokens)).collect())
}

/// Every size on `tokens_per_parameter` · N tokens, the Chinchilla ladder.
///
/// A single ratio cannot separate the terms of N and D; use several, or another design, for a law
/// of both.
///
/// ```
/// use scaling::design::{Size, ladder};
/// let points = ladder(20.0, &[Size { parameters: 1e6, flops_per_token: 6e6 }])?;
/// assert_eq!((points[0].tokens, points[0].flops), (2e7, 1.2e14));
/// # Ok::<(), scaling::design::DesignError>(())
/// ```
///
/// # Errors
/// As [`isoflop`].
pub fn ladder(tokens_per_parameter: f64, sizes: &[Size]) -> Result<Vec<DesignPoint>, DesignError> {
    check("tokens_per_parameter", [tokens_per_parameter].into_iter())?;
    check_sizes(sizes)?;
    let at =
        |(index, size): (usize, &Size)| point(index, size, tokens_per_parameter * size.parameters);
    Ok(sizes.iter().enumerate().map(at).collect())
}

/// `count` values from `low` to `high` with equal ratios, both ends exact; one value gives `low`.
///
/// # Errors
/// Ends that are not finite and positive.
pub fn log_spaced(low: f64, high: f64, count: usize) -> Result<Vec<f64>, DesignError> {
    check("range", [low, high].into_iter())?;
    let last = count.saturating_sub(1);
    let ratio = (high / low).ln() / last.max(1) as f64;
    let at = |i: usize| match i {
        0 => low,
        _ if i == last => high,
        _ => low * (ratio * i as f64).exp(),
    };
    Ok((0..count).map(at).collect())
}

/// `count` distinct steps from `first` to `last` as evenly spaced in the log as whole numbers
/// allow.
///
/// Both ends are included; fewer steps come back only where the range does not hold `count` whole
/// numbers.
///
/// ```
/// use scaling::design::log_spaced_steps;
/// assert_eq!(log_spaced_steps(1, 8, 5)?, [1, 2, 3, 5, 8]);
/// assert_eq!(log_spaced_steps(100, 1000, 3)?, [100, 316, 1000]);
/// # Ok::<(), scaling::design::DesignError>(())
/// ```
///
/// # Errors
/// A range that starts at 0 or ends before it starts.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "steps lie between first and last, which are whole numbers far below 2^53"
)]
pub fn log_spaced_steps(first: u64, last: u64, count: usize) -> Result<Vec<u64>, DesignError> {
    if first == 0 || last < first {
        return Err(DesignError::BadRange { first, last });
    }
    let available = usize::try_from(last - first).map_or(usize::MAX, |n| n.saturating_add(1));
    let count = count.min(available);
    if count == 1 {
        // One step of a range is its end: the final state is the one that is always wanted.
        return Ok(vec![last]);
    }
    let ratio = (last as f64 / first as f64).ln() / count.saturating_sub(1).max(1) as f64;
    let mut steps: Vec<u64> = Vec::with_capacity(count);
    for i in 0..count {
        let ideal = (first as f64 * (ratio * i as f64).exp()).round() as u64;
        let least = steps.last().map_or(first, |step| step + 1);
        // Leaves room for those that follow, which must all be distinct.
        let most = last - (count - 1 - i) as u64;
        steps.push(if i + 1 == count { last } else { ideal.clamp(least, most) });
    }
    Ok(steps)
}

fn point(index: usize, size: &Size, tokens: f64) -> DesignPoint {
    let flops = tokens * size.flops_per_token;
    DesignPoint { size: index, parameters: size.parameters, tokens, flops }
}

fn check_sizes(sizes: &[Size]) -> Result<(), DesignError> {
    check("sizes", sizes.iter().map(|size| size.parameters))?;
    check("flops_per_token", sizes.iter().map(|size| size.flops_per_token))
}

fn check(
    field: &'static str,
    values: impl ExactSizeIterator<Item = f64>,
) -> Result<(), DesignError> {
    if values.len() == 0 {
        return Err(DesignError::Empty { what: field });
    }
    for (index, value) in values.enumerate() {
        if !(value.is_finite() && value > 0.0) {
            return Err(DesignError::NotPositive { field, index, value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [Size; 2] = [
        Size { parameters: 1e6, flops_per_token: 7e6 },
        Size { parameters: 4e6, flops_per_token: 25e6 },
    ];

    #[test]
    fn every_cell_of_an_isoflop_design_spends_its_budget() {
        let points = isoflop(&[1e13, 1e14], &SIZES).unwrap();
        assert_eq!(points.len(), 4);
        for (point, budget) in points.iter().zip([1e13, 1e13, 1e14, 1e14]) {
            assert!((point.flops / budget - 1.0).abs() < 1e-12);
        }
        assert_eq!(points[3].size, 1);
    }

    #[test]
    fn fixed_tokens_give_every_size_the_same() {
        let points = fixed_tokens(5e6, &SIZES).unwrap();
        assert!(points.iter().all(|point| point.tokens == 5e6));
        assert_eq!(points[1].flops, 5e6 * 25e6);
    }

    #[test]
    fn steps_are_distinct_and_end_exactly_for_every_count() {
        for count in 1..40 {
            let steps = log_spaced_steps(3, 30, count).unwrap();
            assert_eq!(steps.len(), count.min(28));
            assert_eq!(*steps.last().unwrap(), 30);
            assert!(count == 1 || steps[0] == 3);
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
        }
        assert_eq!(log_spaced_steps(1, 10, 0).unwrap(), [0_u64; 0]);
        assert!(log_spaced_steps(0, 10, 3).is_err());
        assert!(log_spaced_steps(5, 4, 3).is_err());
    }

    #[test]
    fn log_spaced_values_have_equal_ratios() {
        let values = log_spaced(1e12, 1e16, 5).unwrap();
        assert!(values.windows(2).all(|pair| (pair[1] / pair[0] - 10.0).abs() < 1e-9));
        assert_eq!(values[4], 1e16);
    }

    #[test]
    fn empty_and_negative_designs_are_refused_by_name() {
        let empty = isoflop(&[], &SIZES).unwrap_err();
        assert_eq!(empty, DesignError::Empty { what: "budgets" });
        let negative = fixed_tokens(-1.0, &SIZES).unwrap_err();
        assert!(negative.to_string().contains("`tokens` 0 must be finite and positive"));
    }
}
