//! Owns the words for how intervals were made, with the numbers that it takes to make them again.
//! Does not say what they mean; the reader's guide does.

use std::fmt;

use super::Scheme;

impl Scheme {
    /// What runs were drawn within, with a space before it; empty where it is one stratum.
    pub fn strata(&self) -> String {
        match self {
            Self::Bootstrap { n_strata, .. } if *n_strata > 1 => format!(" in {n_strata} strata"),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Scheme {
    /// A few words; none where no interval can be made.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bootstrap { draws, seed, .. } => {
                let strata = self.strata();
                write!(formatter, "bootstrap by run{strata}, {draws} draws, seed {seed}")
            }
            Self::Jackknife { n_runs } => write!(
                formatter,
                "leave-one-run-out jackknife, Student's t with {} degrees of freedom",
                n_runs.saturating_sub(1)
            ),
            Self::StatedNoise { draws, seed, sd_log, .. } => write!(
                formatter,
                "stated noise of {sd_log} in ln L between seeds, {draws} draws, seed {seed}"
            ),
            Self::Unavailable { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_says_what_it_takes_to_repeat_it() {
        let bootstrap =
            |n_strata| Scheme::Bootstrap { n_runs: 40, n_strata, draws: 200, failed: 0, seed: 7 };
        assert_eq!(bootstrap(1).to_string(), "bootstrap by run, 200 draws, seed 7");
        assert_eq!(bootstrap(5).to_string(), "bootstrap by run in 5 strata, 200 draws, seed 7");
        let jackknife = Scheme::Jackknife { n_runs: 6 }.to_string();
        assert!(jackknife.ends_with("Student's t with 5 degrees of freedom"), "{jackknife}");
        let none = Scheme::Unavailable { n_runs: 1, reason: "one run".to_owned() };
        assert_eq!(none.to_string(), "");
    }
}
