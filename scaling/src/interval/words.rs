//! Owns the words for how intervals were made, with the numbers that it takes to make them again.
//! Does not say what they mean; the reader's guide does.

use std::fmt;

use super::Scheme;

/// What is drawn, or left out, in words.
pub(super) fn counted(n_clusters: usize, n_runs: usize) -> String {
    let of = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let runs = of(n_runs, "run");
    if n_clusters == n_runs { runs } else { format!("{} of {runs}", of(n_clusters, "trunk")) }
}

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
            Self::Bootstrap { n_runs, n_clusters, draws, seed, failed, .. } => {
                let strata = self.strata();
                let unit = if n_clusters == n_runs {
                    "run".to_owned()
                } else {
                    format!("trunk ({})", counted(*n_clusters, *n_runs))
                };
                write!(formatter, "bootstrap by {unit}{strata}, {draws} draws, seed {seed}")?;
                match failed {
                    0 => Ok(()),
                    failed => write!(formatter, ", {failed} of them without a fit"),
                }
            }
            Self::Jackknife { n_runs, n_clusters } => {
                let freedom = n_clusters.saturating_sub(1);
                let way = if n_clusters == n_runs {
                    "leave-one-run-out jackknife".to_owned()
                } else {
                    format!("leave-one-trunk-out jackknife ({})", counted(*n_clusters, *n_runs))
                };
                write!(formatter, "{way}, Student's t with {freedom} degrees of freedom")
            }
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
        let bootstrap = |n_clusters, n_strata| {
            let (n_runs, draws, failed, seed) = (40, 200, 0, 7);
            Scheme::Bootstrap { n_runs, n_clusters, n_strata, draws, failed, seed }.to_string()
        };
        assert_eq!(bootstrap(40, 1), "bootstrap by run, 200 draws, seed 7");
        assert_eq!(bootstrap(40, 5), "bootstrap by run in 5 strata, 200 draws, seed 7");
        let trunks = "bootstrap by trunk (13 trunks of 40 runs)";
        assert_eq!(bootstrap(13, 1), format!("{trunks}, 200 draws, seed 7"));
        assert_eq!(bootstrap(13, 2), format!("{trunks} in 2 strata, 200 draws, seed 7"));
        let jackknife = Scheme::Jackknife { n_runs: 6, n_clusters: 6 }.to_string();
        assert!(jackknife.ends_with("Student's t with 5 degrees of freedom"), "{jackknife}");
        let trunks = Scheme::Jackknife { n_runs: 12, n_clusters: 4 }.to_string();
        assert_eq!(
            trunks,
            "leave-one-trunk-out jackknife (4 trunks of 12 runs), Student's t with 3 degrees of \
             freedom"
        );
        let none = Scheme::Unavailable { n_runs: 1, reason: "one run".to_owned() };
        assert_eq!(none.to_string(), "");
    }
}
