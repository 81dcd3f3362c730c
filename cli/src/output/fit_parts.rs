//! What every table of fitted numbers shares: estimates, footnotes, conventions.
//!
//! It fits nothing.

use api::{EstimateView, FitReport};

/// Reasons that numbers are not there, each said once.
#[derive(Debug, Default)]
pub struct Footnotes {
    reasons: Vec<String>,
}

impl Footnotes {
    /// The mark of a reason, such as `(2)`.
    pub fn mark(&mut self, reason: &str) -> String {
        let known = self.reasons.iter().position(|other| other == reason);
        let index = known.unwrap_or_else(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() - 1
        });
        format!("({})", index + 1)
    }

    /// All of them, one a line.
    pub fn text(&self) -> String {
        let lines: Vec<String> = self
            .reasons
            .iter()
            .enumerate()
            .map(|(index, reason)| format!("({}) {reason}", index + 1))
            .collect();
        lines.join("\n")
    }
}

/// An estimate in a cell of two lines: value, interval.
pub(crate) fn cell(estimate: Option<&EstimateView>, notes: &mut Footnotes) -> String {
    match estimate {
        None => "–".to_owned(),
        Some(EstimateView::NotIdentified { reason }) => {
            format!("not\nidentified {}", notes.mark(reason))
        }
        Some(EstimateView::Identified { value, low, high }) => {
            if digits(*value, *low, *high) <= FEW_DIGITS {
                return format!("{}\n[{}, {}]", number(*value), end(*low), end(*high));
            }
            with_interval(*value, *low, *high).join("\n")
        }
    }
}

/// Digits at which the ends of an interval may be shortened.
const FEW_DIGITS: f64 = 2.0;

/// The most digits of a number with an interval; `--json` has all.
const MOST_DIGITS: f64 = 8.0;

/// Three significant digits; far from 1 with a power of ten.
pub(crate) fn number(value: f64) -> String {
    significant(value, 3)
}

/// A value and its interval with as many digits as tell the ends apart, three at least: many rows
/// know a number better than to three.
pub(crate) fn with_interval(value: f64, low: f64, high: f64) -> [String; 2] {
    let n_digits = digits(value, low, high).clamp(3.0, MOST_DIGITS);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of digits from 3 to 8"
    )]
    let n_digits = n_digits as usize;
    let [value, low, high] = [value, low, high].map(|one| significant(one, n_digits));
    [value, format!("[{low}, {high}]")]
}

/// A value and its interval, or the mark of why there is none.
pub(crate) fn shown(estimate: &EstimateView, notes: &mut Footnotes) -> [String; 2] {
    match estimate {
        EstimateView::Identified { value, low, high } => with_interval(*value, *low, *high),
        EstimateView::NotIdentified { reason } => ["not identified".to_owned(), notes.mark(reason)],
    }
}

/// How many digits tell the ends of an interval apart; few for one without any width, which has no
/// better ones.
fn digits(value: f64, low: f64, high: f64) -> f64 {
    let size = value.abs().max(low.abs()).max(high.abs());
    let ratio = (size / (high - low)).log10().ceil();
    if ratio.is_finite() { ratio + 1.0 } else { FEW_DIGITS }
}

/// The end of an interval that two digits tell from the other: far from 1 with no more, so that
/// four groups fit side by side.
fn end(value: f64) -> String {
    let n_digits = if (0.1..1e4).contains(&value.abs()) { 3 } else { 2 };
    significant(value, n_digits)
}

/// So many significant digits; below 0.001 and from 10,000 with a power of ten.
fn significant(value: f64, n_digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    // The rounded value's exponent: 0.9996 has that of 1.00.
    let scientific = format!("{value:.0$e}", n_digits - 1);
    let exponent = scientific.split_once('e').and_then(|(_, text)| text.parse::<i32>().ok());
    match exponent {
        Some(exponent @ -3..=3) => {
            let n_integer = exponent + 1;
            let n_after = i32::try_from(n_digits).unwrap_or(i32::MAX).saturating_sub(n_integer);
            format!("{value:.0$}", usize::try_from(n_after).unwrap_or(0))
        }
        _ => scientific,
    }
}

/// Where C comes from, and what it counts where that does not say so.
pub(crate) fn compute(source: &str, counts: &str) -> String {
    match counts {
        "6ND" => source.to_owned(),
        "not stated" if source == "not known" => source.to_owned(),
        "not stated" => format!("{source} (what it counts is not stated)"),
        counts => format!("{source} ({counts})"),
    }
}

/// Warnings of one name that are shown in full.
const MOST_REPEATS: usize = 3;

/// Warnings, one a line; of more than a few of one name, the first two with their number.
pub(crate) fn warnings(all: &[String]) -> String {
    let mut kinds: Vec<(&str, Vec<&str>)> = Vec::new();
    for text in all.iter().map(String::as_str) {
        let name = name(text);
        match kinds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, texts)) => texts.push(text),
            None => kinds.push((name, vec![text])),
        }
    }
    let shown = |(name, texts): &(&str, Vec<&str>)| {
        if let [first, second, others @ ..] = texts.as_slice()
            && texts.len() > MOST_REPEATS
        {
            let rest = second.strip_prefix(*name).and_then(|rest| rest.strip_prefix(": "));
            let second = rest.unwrap_or_default();
            let (n, n_others) = (texts.len(), others.len());
            return format!(
                "warning: {first}; {second}; and {n_others} more, {n} in all, see `--json`"
            );
        }
        texts.iter().map(|text| format!("warning: {text}")).collect::<Vec<_>>().join("\n")
    };
    kinds.iter().map(shown).collect::<Vec<_>>().join("\n")
}

/// What stands before a warning's text, and before that whose warning it is.
fn name(text: &str) -> &str {
    const OF_THE_FIT: &str = "of the fit: ";
    let start = if text.starts_with(OF_THE_FIT) { OF_THE_FIT.len() } else { 0 };
    text[start..].find(": ").map_or(text, |end| &text[..start + end])
}

/// What the numbers are of: without this line they mean nothing.
pub(crate) fn conventions(report: &FitReport) -> String {
    let provisional = match (report.is_provisional, report.missing.is_empty()) {
        (false, _) => "",
        (true, false) => " (provisional: runs are still missing)",
        (true, true) => " (provisional: evaluations are still missing)",
    };
    let parameters = match report.parameter_kind.as_str() {
        "total" => "all parameters",
        _ => "parameters without embeddings and head",
    };
    let flops = match report.flop_kind.as_str() {
        "published" => "training FLOPs by the published closed form, no head",
        _ => "training FLOPs by the tensor shapes, head included (`exact`)",
    };
    format!(
        "fits of study `{}`{provisional}\n\
         N {parameters}; D training tokens\n\
         C {flops}\n\
         L {} in nats per token\n\
         {:.0} % intervals; inputs {}",
        report.study,
        report.loss.trim_end_matches("_nats").replace('_', " "),
        100.0 * report.confidence,
        report.inputs_hash.get(..12).unwrap_or(&report.inputs_hash),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_as_many_as_tell_the_ends_of_an_interval_apart() {
        let shown = |value, low, high| with_interval(value, low, high).join(" ");
        assert_eq!(shown(0.337, 0.3231, 0.3494), "0.337 [0.323, 0.349]");
        assert_eq!(shown(1.699_719, 1.699_099, 1.700_456), "1.6997 [1.6991, 1.7005]");
        assert_eq!(shown(2143.4, 1091.0, 5443.0), "2143 [1091, 5443]");
        assert_eq!(shown(3.03e19, 2.12e19, 5.27e19), "3.03e19 [2.12e19, 5.27e19]");
        // Exact losses give an interval of rounding, and one without any width has no better digits.
        assert_eq!(shown(0.25, 0.25, 0.25), "0.250 [0.250, 0.250]");
        assert_eq!(shown(1.0, 1.0 - 1e-10, 1.0 + 1e-10), "1.0000000 [1.0000000, 1.0000000]");
    }

    #[test]
    fn many_warnings_of_one_name_are_one_line() {
        let all: Vec<String> = (1..=5)
            .map(|at| format!("of the fit: akima-disagrees: at {at}e18 FLOPs"))
            .chain(["of the fit: copies: 2 rows".to_owned(), "untold".to_owned()])
            .collect();
        let expected = "warning: of the fit: akima-disagrees: at 1e18 FLOPs; at 2e18 FLOPs; and 3 \
                        more, 5 in all, see `--json`\nwarning: of the fit: copies: 2 rows\n\
                        warning: untold";
        assert_eq!(warnings(&all), expected);
        assert_eq!(warnings(&all[..3]).lines().count(), 3);
        assert_eq!(warnings(&[]), "");
    }

    #[test]
    fn what_c_counts_is_said_once() {
        assert_eq!(compute("6 N D", "6ND"), "6 N D");
        assert_eq!(compute("column `c`", "exact"), "column `c` (exact)");
        assert_eq!(compute("not known", "not stated"), "not known");
    }

    #[test]
    fn numbers_have_three_significant_digits_on_both_sides_of_one() {
        for (value, shown) in [
            (0.0, "0"),
            (0.000_999_4, "9.99e-4"),
            (0.001_49, "0.00149"),
            (-0.046, "-0.0460"),
            (0.347, "0.347"),
            (0.9996, "1.00"),
            (9.996, "10.0"),
            (99.96, "100"),
            (1234.0, "1234"),
            (9_999.7, "1.00e4"),
        ] {
            assert_eq!(number(value), shown);
        }
    }

    #[test]
    fn a_cell_has_the_digits_that_tell_its_ends_apart() {
        let shown = |value, low, high| {
            cell(Some(&EstimateView::Identified { value, low, high }), &mut Footnotes::default())
        };
        assert_eq!(shown(0.0953, 0.0951, 0.0954), "0.09530\n[0.09510, 0.09540]");
        assert_eq!(shown(1.699_719, 1.699_099, 1.700_456), "1.6997\n[1.6991, 1.7005]");
        assert_eq!(shown(54_321.0, 54_210.0, 54_432.0), "5.432e4\n[5.421e4, 5.443e4]");
        assert_eq!(shown(0.0512, 0.0462, 0.0598), "0.0512\n[0.046, 0.060]");
    }

    #[test]
    fn ends_far_from_one_have_two_digits() {
        assert_eq!(
            [0.001_49, 0.0462, 0.347, 54_321.0].map(end),
            ["0.0015", "0.046", "0.347", "5.4e4"]
        );
    }
}
