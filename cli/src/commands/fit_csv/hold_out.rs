//! Rules that hold rows out of a fit, so that its prediction can be compared with them.
//!
//! It predicts nothing.

use std::collections::BTreeSet;

use anyhow::Context;

use scaling::observation::{RunKey, SAME_COMPUTE};

use super::read::{Row, Table, position};

/// Which rows are predicted and not fitted.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rule {
    /// The rows of the largest C of each group, and of C within 3 % of it.
    Largest,
    /// The rows of the largest N of each group.
    LargestSize,
    /// Rows whose variable compares so with a number.
    Compare { variable: char, comparison: Comparison, value: f64 },
    /// Rows with this text in a column: of the file while it is parsed, of the kept ones in use.
    Equals { column: usize, text: String },
}

/// Why a row is not fitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Out {
    /// In words, as the report has it.
    pub(super) reason: String,
    /// Whether a rule names the row itself, which is then predicted; otherwise only others of its
    /// run are named.
    pub(super) is_predicted: bool,
}

/// An order relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
}

/// N that is counted with rounding is one size.
const SAME_SIZE: f64 = 0.999;

/// Per row, why it is not fitted.
///
/// Earlier rows of a run that is held out for its last ones have the luck of these, so that a law
/// fitted to them knows it: where a rule asks for what is larger, the whole run is held out, as
/// long as another one is left.
pub(super) fn apply(rules: &[(String, Rule)], rows: &[&Row]) -> Vec<Option<Out>> {
    let mut all: Vec<Option<Out>> = vec![None; rows.len()];
    for (text, rule) in rules {
        let named = rule.held_out(rows);
        for (out, _) in all.iter_mut().zip(&named).filter(|(_, is_named)| **is_named) {
            if !out.as_ref().is_some_and(|one| one.is_predicted) {
                let reason = format!("held out by `{text}`");
                *out = Some(Out { reason, is_predicted: true });
            }
        }
        if !rule.asks_for_larger() {
            continue;
        }
        let of_named = rows.iter().zip(&named).filter(|(_, is_named)| **is_named);
        let runs: BTreeSet<RunKey> = of_named.map(|(row, _)| row.observation.run).collect();
        let is_out = |(row, out): (&&Row, &Option<Out>)| {
            out.is_some() || runs.contains(&row.observation.run)
        };
        if rows.iter().zip(&all).all(is_out) {
            continue;
        }
        for (row, out) in rows.iter().zip(&mut all) {
            if out.is_none() && runs.contains(&row.observation.run) {
                let reason = format!("of a run that is held out by `{text}`");
                *out = Some(Out { reason, is_predicted: false });
            }
        }
    }
    all
}

/// Rules that name no row of a group, whose fit is then not held against anything by them.
///
/// A rule that names another group by the column of groups, which stands at `group_by` among the
/// kept ones, says nothing of this one.
pub(super) fn idle(
    rules: &[(String, Rule)],
    rows: &[&Row],
    group_by: Option<usize>,
) -> Vec<String> {
    let names_a_group =
        |rule: &Rule| matches!(rule, Rule::Equals { column, .. } if group_by == Some(*column));
    let others = rules.iter().filter(|(_, rule)| !names_a_group(rule));
    let idle = others.filter(|(_, rule)| !rule.held_out(rows).contains(&true));
    idle.map(|(text, _)| format!("nothing-held-out: `{text}` names no row here")).collect()
}

/// A held-out row of a run that is also fitted has its luck in the law.
pub(super) fn same_run(rows: &[&Row], outs: &[Option<Out>]) -> Option<String> {
    let of = |is_out: bool| {
        let chosen = rows.iter().zip(outs).filter(move |(_, out)| out.is_some() == is_out);
        chosen.map(|(row, _)| row.observation.run)
    };
    let fitted: BTreeSet<RunKey> = of(false).collect();
    let n_same = of(true).filter(|run| fitted.contains(run)).count();
    (n_same > 0).then(|| {
        format!(
            "same-run: {n_same} of {} held-out rows are of runs that are fitted too, whose luck is \
             in the law: their errors are smaller than those of other runs would be",
            of(true).count()
        )
    })
}

/// A held-out row that goes on from where fitted ones branched off has their luck.
pub(super) fn shared_trunks(rows: &[&Row], reasons: &[Option<Out>]) -> Option<String> {
    let of = |is_held_out: bool| {
        let chosen = rows.iter().zip(reasons).filter(move |(_, why)| why.is_some() == is_held_out);
        chosen.map(|(row, _)| row.trunk)
    };
    let fitted: BTreeSet<u32> = of(false).collect();
    let n_shared = of(true).filter(|trunk| fitted.contains(trunk)).count();
    (n_shared > 0).then(|| {
        format!(
            "shared-trunks: {n_shared} of {} held-out rows share a trunk with fitted ones, whose luck \
             is in the law: their errors are smaller than those of rows of another seed would be",
            of(true).count()
        )
    })
}

const VALID: &str = "`largest`, `largest-size`, `c>1e21` (n, d, c or loss with `>`, `>=`, `<` or `<=`), `COLUMN=VALUE`";

impl Rule {
    pub(super) fn parse(text: &str, headers: &[String]) -> anyhow::Result<Self> {
        let wrong = || format!("`--hold-out {text}` is no rule; rules are {VALID}");
        match text {
            "largest" => return Ok(Self::Largest),
            "largest-size" => return Ok(Self::LargestSize),
            _ => {}
        }
        // The longer signs first, for `>=` has `>` in it.
        let signs = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        // A column's name and text may have a sign in them too.
        for (sign, comparison) in signs {
            let Some((name, number)) = text.split_once(sign) else { continue };
            let variable = match name.trim() {
                "n" | "N" => 'n',
                "d" | "D" => 'd',
                "c" | "C" => 'c',
                "loss" => 'l',
                _ => continue,
            };
            let number = number.trim();
            let value = number.parse::<f64>().ok().with_context(|| {
                format!(
                    "`--hold-out {text}` is no rule, for `{number}` is not a number such as 1e21; \
                     rules are {VALID}"
                )
            })?;
            anyhow::ensure!(value.is_finite(), wrong());
            return Ok(Self::Compare { variable, comparison, value });
        }
        let (column, value) = text.split_once('=').with_context(wrong)?;
        let column = position(headers, column.trim())?;
        Ok(Self::Equals { column, text: value.trim().to_owned() })
    }

    /// Refuses a rule about what no column has: nothing, or everything, would be held out.
    fn check(&self, text: &str, table: &Table) -> anyhow::Result<()> {
        let [has_n, has_d, _] = table.has;
        let needed = match self {
            Self::Largest if table.has_flops() || has_n || has_d => None,
            Self::Largest => Some(("the rows of the largest C", "--c COLUMN")),
            Self::LargestSize if has_n => None,
            Self::LargestSize => Some(("the rows of the largest N", "--n COLUMN")),
            Self::Compare { variable, .. } => match variable {
                'n' if !has_n => Some(("N", "--n COLUMN")),
                'd' if !has_d => Some(("D", "--d COLUMN")),
                'c' if !table.has_flops() => Some(("C", "--c COLUMN")),
                _ => None,
            },
            Self::Equals { .. } => None,
        };
        match needed {
            Some((what, flag)) => {
                anyhow::bail!(
                    "`--hold-out {text}` asks for {what}, which is not known: give `{flag}`"
                )
            }
            None => Ok(()),
        }
    }

    /// Whether what is named is larger than what is not, so that earlier rows of its runs lie among
    /// the fitted ones.
    fn asks_for_larger(&self) -> bool {
        match self {
            Self::Largest | Self::LargestSize => true,
            Self::Compare { variable, comparison, .. } => {
                let is_above = matches!(comparison, Comparison::Above | Comparison::AtLeast);
                is_above && ['n', 'd', 'c'].contains(variable)
            }
            Self::Equals { .. } => false,
        }
    }

    /// Whether it names each row, where all are of one group.
    fn held_out(&self, rows: &[&Row]) -> Vec<bool> {
        let largest = |of: fn(&Row) -> f64, same: f64| {
            let most = rows.iter().map(|row| of(row)).fold(f64::NEG_INFINITY, f64::max);
            rows.iter().map(|row| of(row) >= most * same).collect()
        };
        match self {
            Self::Largest => largest(|row| row.observation.flops, SAME_COMPUTE),
            Self::LargestSize => largest(|row| row.observation.parameters, SAME_SIZE),
            Self::Compare { variable, comparison, value } => rows
                .iter()
                .map(|row| {
                    let found = match variable {
                        'n' => row.observation.parameters,
                        'd' => row.observation.tokens,
                        'c' => row.observation.flops,
                        // Of `sigmoid` that is the task loss; what it predicts is an accuracy.
                        _ => row.covariates.task_loss.unwrap_or(row.observation.loss_nats),
                    };
                    match comparison {
                        Comparison::Above => found > *value,
                        Comparison::AtLeast => found >= *value,
                        Comparison::Below => found < *value,
                        Comparison::AtMost => found <= *value,
                    }
                })
                .collect(),
            Self::Equals { column, text } => {
                rows.iter().map(|row| row.cells.get(*column) == Some(text)).collect()
            }
        }
    }
}

/// Positions of the columns that rules of the form `COLUMN=VALUE` name.
pub(super) fn columns(texts: &[String], headers: &[String]) -> Vec<usize> {
    let rules = texts.iter().filter_map(|text| Rule::parse(text, headers).ok());
    let named = rules.filter_map(|rule| match rule {
        Rule::Equals { column, .. } => Some(column),
        _ => None,
    });
    let mut columns: Vec<usize> = named.collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Parses all rules; each with its text, which is the reason of what it holds out.
///
/// A rule that names no row of the whole file is refused: what was fitted would be taken for out of
/// sample.
pub(super) fn rules(texts: &[String], table: &Table) -> anyhow::Result<Vec<(String, Rule)>> {
    let all: Vec<&Row> = table.rows.iter().collect();
    let parse = |text: &String| {
        let rule = match Rule::parse(text, &table.headers)? {
            Rule::Equals { column, text } => {
                let kept = table.kept.binary_search(&column).ok();
                let column = kept.context("the column of a rule was not kept")?;
                Rule::Equals { column, text }
            }
            rule => rule,
        };
        rule.check(text, table)?;
        let names_some = rule.held_out(&all).contains(&true);
        anyhow::ensure!(names_some, "`--hold-out {text}` names no row");
        Ok((text.clone(), rule))
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_others_are_refused_with_what_is_valid() {
        let headers = ["arch".to_owned()];
        let rule = |text: &str| Rule::parse(text, &headers);
        assert_eq!(rule("largest").unwrap(), Rule::Largest);
        let at_least = Comparison::AtLeast;
        assert_eq!(
            rule("n >= 1e9").unwrap(),
            Rule::Compare { variable: 'n', comparison: at_least, value: 1e9 }
        );
        assert_eq!(rule("N>=1e9").unwrap(), rule("n >= 1e9").unwrap());
        assert_eq!(rule("arch=tnl").unwrap(), Rule::Equals { column: 0, text: "tnl".to_owned() });
        let texts = ["arch=<base>", "arch = a>=b"].map(|text| rule(text).unwrap());
        let equals = |text: &str| Rule::Equals { column: 0, text: text.to_owned() };
        assert_eq!(texts, [equals("<base>"), equals("a>=b")]);
        for wrong in ["big", "x>3", "c>large", "c>NaN"] {
            let message = rule(wrong).unwrap_err().to_string();
            assert!(message.contains("rules are `largest`"), "{message}");
        }
        assert!(rule("size=1").unwrap_err().to_string().contains("the columns are `arch`"));
    }
}
