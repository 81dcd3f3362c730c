//! Rows that look like another thing than they are taken for: checkpoints taken for runs, copies, and numbers in other
//! units.

use scaling::law::LawName;

use super::read::Row;

/// No model of language has fewer parameters, and none is trained on fewer tokens.
const LEAST_COUNT: f64 = 1e4;
/// C / (N D) is 6, or a few times that with attention over long texts, or 2 for a forward pass.
const USUAL_KAPPA: (f64, f64) = (0.5, 100.0);
/// ln of the largest vocabularies is below 13: a uniform guess has no larger loss in nats per token.
const LARGEST_LOSS_NATS: f64 = 13.0;

/// Checkpoints of one run share its luck; taken for runs they make intervals too narrow.
pub(super) fn warn_of_checkpoints(rows: &[Row], has_sizes: bool, law: LawName) -> Option<String> {
    if law == LawName::Annealing {
        return Some(format!(
            "rows-as-runs: `annealing` is fitted to checkpoints, and without `--run COLUMN` each of the {} rows \
             is a run of its own; the intervals are too narrow",
            rows.len()
        ));
    }
    let mut sizes: Vec<u64> = rows.iter().map(|row| row.observation.parameters.to_bits()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    (has_sizes && sizes.len() < rows.len()).then(|| {
        format!(
            "rows-as-runs: several of the {} rows have the same N, and without `--run COLUMN` each is a run of \
             its own; if some are checkpoints of one run, the intervals are too narrow",
            rows.len()
        )
    })
}

/// A row that stands twice counts twice, and makes intervals too narrow.
pub(super) fn warn_of_copies(rows: &[Row]) -> Option<String> {
    let mut all: Vec<u128> = rows.iter().map(|row| row.digest).collect();
    all.sort_unstable();
    let n_copies = all.windows(2).filter(|pair| pair[0] == pair[1]).count();
    (n_copies > 0).then(|| {
        let verb = if n_copies == 1 { "is a copy" } else { "are copies" };
        format!("copies: {n_copies} of {} rows {verb} of another row, and count again", rows.len())
    })
}

/// Numbers in millions, billions or petaFLOP-days, and losses that are none in nats.
///
/// A fit of them is right in their units, and wrong wherever two units meet: C as 6 N D, and every prediction.
pub(super) fn warn_of_units(rows: &[Row], has: [bool; 3], law: LawName) -> Vec<String> {
    let mut warnings = Vec::new();
    let [has_n, has_d, has_c] = has;
    let of = |field: fn(&Row) -> f64| rows.iter().map(field).fold(0.0, f64::max);
    let counts = [
        ("N", has_n, of(|row| row.observation.parameters), "parameters"),
        ("D", has_d, of(|row| row.observation.tokens), "tokens"),
    ];
    for (letter, is_there, largest, what) in counts {
        if is_there && largest < LEAST_COUNT {
            warnings.push(format!(
                "units: the largest {letter} is {largest}, too small for a number of {what}; if the \
                 column is in millions or billions, multiply it"
            ));
        }
    }
    let mut kappas: Vec<f64> = rows
        .iter()
        .map(|row| row.observation)
        .map(|one| one.flops / (one.parameters * one.tokens))
        .collect();
    kappas.sort_unstable_by(f64::total_cmp);
    let median = kappas.get(kappas.len() / 2).copied().unwrap_or(6.0);
    let (low, high) = USUAL_KAPPA;
    if has_n && has_d && has_c && !(low..=high).contains(&median) {
        warnings.push(format!(
            "units: C / (N D) is {median:.3e} in the middle, and about 6 where N, D and C count single \
             parameters, tokens and FLOPs"
        ));
    }
    let least = rows.iter().map(|row| row.observation.loss_nats).fold(f64::INFINITY, f64::min);
    if law != LawName::Sigmoid && least > LARGEST_LOSS_NATS {
        warnings.push(format!(
            "units: the least loss is {least}, more than a uniform guess has in nats per token; is it \
             a perplexity, or in per cent?"
        ));
    }
    warnings
}
