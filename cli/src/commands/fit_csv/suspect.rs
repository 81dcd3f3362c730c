//! Rows that look like another thing than they are taken for: checkpoints taken for runs, copies, and numbers in other
//! units.

use scaling::law::LawName;

use super::read::Row;

/// No study ends at so few parameters, or so few tokens.
const LEAST_LARGEST: f64 = 1e4;
/// The smallest published models of language have 768 parameters without embeddings (Kaplan et al. 2020, section 3), and
/// a batch of any study has more than a thousand tokens.
const LEAST_PARAMETERS: f64 = 700.0;
const LEAST_TOKENS: f64 = 1e3;
/// D / N in the middle of a study: published ones lie between less than one and some thousands, and models that are
/// trained far beyond their best D get to some ten thousands.
const USUAL_RATIO: (f64, f64) = (0.05, 1e5);
/// FLOPs of a model of a thousand parameters that reads 170,000 tokens: no study begins below, and none in petaFLOP-days
/// (8.64e19), exaFLOPs or teraFLOPs begins above.
const LEAST_FLOPS: f64 = 1e9;
/// In the middle of a study no text is read so often: after four times it is worth less each time (Muennighoff et al.
/// 2023).
const MOST_EPOCHS: f64 = 1e4;
/// By rounding, tokens that are all distinct may seem more than D.
const ROUNDED: f64 = 1.001;
/// C / (N D) is 6, or a few times that with attention over long texts, or 2 for a forward pass.
const USUAL_KAPPA: (f64, f64) = (0.5, 100.0);
/// ln of the largest vocabularies is below 13: a uniform guess has no larger loss in nats per token.
const LARGEST_LOSS_NATS: f64 = 13.0;

/// Checkpoints of one run share its luck; taken for runs they make intervals too narrow.
///
/// `named` is a column that seems to name runs: it, and how many runs it names in all rows.
pub(super) fn warn_of_checkpoints(
    rows: &[Row],
    has_sizes: bool,
    law: LawName,
    named: Option<&(String, usize)>,
) -> Option<String> {
    if law == LawName::Annealing {
        return Some(format!(
            "rows-as-runs: `annealing` is fitted to checkpoints, and without `--run COLUMN` each of the {} rows \
             is a run of its own; the intervals are too narrow",
            rows.len()
        ));
    }
    if let Some((column, n_runs)) = named {
        return Some(format!(
            "rows-as-runs: column `{column}` names {n_runs} runs, fewer than there are rows, and without \
             `--run {column}` each row is a run of its own; the intervals are too narrow"
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
/// `loss` is what the column of losses is called.
pub(super) fn warn_of_units(rows: &[Row], has: [bool; 3], law: LawName, loss: &str) -> Vec<String> {
    let [has_n, has_d, has_c] = has;
    let mut warnings = counts(rows, has_n, has_d);
    // One column that is suspected explains every ratio.
    if has_n && has_d && warnings.is_empty() {
        warnings.extend(ratio(rows));
    }
    if has_c {
        let is_alone = !(has_n && has_d);
        warnings.extend(if is_alone { flops(rows) } else { kappa(rows) });
    } else if has_n && has_d && warnings.is_empty() {
        // Where both are in millions their ratio is right, and 6 N D is not.
        warnings.extend(assumed_flops(rows));
    }
    if has_d {
        warnings.extend(unique_tokens(rows));
    }
    if law != LawName::Sigmoid {
        warnings.extend(loss_unit(rows, loss));
    }
    warnings
}

/// Losses that are none in nats per token, by what they are or by what their column is called.
fn loss_unit(rows: &[Row], column: &str) -> Option<String> {
    let name = column.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if has(&["ppl", "perplexity"]) {
        return Some(format!(
            "units: column `{column}` seems to be a perplexity; the loss in nats per token is its \
             natural logarithm, and a law of one is none of the other"
        ));
    }
    let (_, largest) = ends(rows, |row| row.observation.loss_nats);
    if largest > LARGEST_LOSS_NATS {
        return Some(format!(
            "units: the largest loss is {largest}, more than a uniform guess has in nats per token; is \
             it a perplexity, or in per cent?"
        ));
    }
    has(&["bpb", "bits", "bpc"]).then(|| {
        format!(
            "units: column `{column}` seems to be in bits; all that is called nats per token here is in \
             its unit then"
        )
    })
}

/// N and D that are too small at either end.
fn counts(rows: &[Row], has_n: bool, has_d: bool) -> Vec<String> {
    let n = has_n.then(|| ends(rows, |row| row.observation.parameters));
    let d = has_d.then(|| ends(rows, |row| row.observation.tokens));
    let all = [("N", n, LEAST_PARAMETERS, "parameters"), ("D", d, LEAST_TOKENS, "tokens")];
    let suspected = all.into_iter().filter_map(|(letter, ends, least, what)| {
        let (smallest, largest) = ends?;
        let (which, value) = match () {
            () if largest < LEAST_LARGEST => ("largest", largest),
            () if smallest < least => ("smallest", smallest),
            () => return None,
        };
        Some(format!(
            "units: the {which} {letter} is {value}, too small for a number of {what}; if the \
             column is in millions or billions, multiply it"
        ))
    });
    suspected.collect()
}

/// D / N of no study: one of the two is in another unit.
fn ratio(rows: &[Row]) -> Option<String> {
    let median = median(rows, |row| Some(row.observation.tokens / row.observation.parameters))?;
    let (low, high) = USUAL_RATIO;
    (!(low..=high).contains(&median)).then(|| {
        format!(
            "units: D / N is {median:.3e} in the middle, and from one to some thousands in published \
             studies; if one of the columns is in millions or billions, multiply it"
        )
    })
}

/// C of no study, where N and D do not say how much it should be.
fn flops(rows: &[Row]) -> Option<String> {
    let (smallest, _) = ends(rows, |row| row.observation.flops);
    (smallest < LEAST_FLOPS).then(|| {
        format!(
            "units: the smallest C is {smallest}, too small for a number of FLOPs; if the column is \
             in petaFLOP-days, multiply it by 8.64e19"
        )
    })
}

/// The same where C is taken as 6 N D.
fn assumed_flops(rows: &[Row]) -> Option<String> {
    let (smallest, _) = ends(rows, |row| row.observation.flops);
    (smallest < LEAST_FLOPS).then(|| {
        format!(
            "units: 6 N D is {smallest:.3e} at its smallest, too small for a number of FLOPs; if N and D \
             are in thousands or millions, multiply them"
        )
    })
}

/// C that does not go with N and D.
fn kappa(rows: &[Row]) -> Option<String> {
    let of = |row: &Row| {
        let one = row.observation;
        Some(one.flops / (one.parameters * one.tokens))
    };
    let median = median(rows, of)?;
    let (low, high) = USUAL_KAPPA;
    (!(low..=high).contains(&median)).then(|| {
        format!(
            "units: C / (N D) is {median:.3e} in the middle, and about 6 where N, D and C count single \
             parameters, tokens and FLOPs"
        )
    })
}

/// Distinct tokens that are too few, or more than all.
fn unique_tokens(rows: &[Row]) -> Vec<String> {
    let unique = |row: &Row| row.covariates.unique_tokens;
    let epochs = |row: &Row| Some(row.observation.tokens / unique(row)?);
    let Some(median) = median(rows, epochs) else { return Vec::new() };
    let smallest = rows.iter().filter_map(unique).fold(f64::INFINITY, f64::min);
    let mut warnings = Vec::new();
    if smallest < LEAST_TOKENS || median > MOST_EPOCHS {
        warnings.push(format!(
            "units: the smallest number of unique tokens is {smallest}, and D is {median:.3e} times \
             theirs in the middle; if the column is in millions or billions, multiply it"
        ));
    }
    let is_above =
        |row: &&Row| unique(row).is_some_and(|own| own > ROUNDED * row.observation.tokens);
    let n_above = rows.iter().filter(is_above).count();
    if n_above > 0 {
        warnings.push(format!(
            "unique-above-d: {n_above} of {} rows have more unique tokens than D; these count as D, so \
             that nothing is repeated there",
            rows.len()
        ));
    }
    warnings
}

/// The smallest and the largest.
fn ends(rows: &[Row], of: impl Fn(&Row) -> f64) -> (f64, f64) {
    let values = rows.iter().map(of);
    values.fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(value), high.max(value)))
}

/// The middle of what is known; of an even number the upper of the two.
fn median(rows: &[Row], of: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = rows.iter().filter_map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
