//! Rows of a CSV file as points: every cell checked where it stands, so that an error has a line and a column.
//!
//! It fits nothing.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use scaling::law::{Axis, LawChoice, LawName, Variable};
use scaling::observation::{Covariates, Observation, RunKey};

use self::numbering::{Numbering, Numbers};
use super::{alike, hold_out, law_named};
use crate::args::{ColumnArgs, FitArgs};

mod numbering;

/// What columns that name runs are called.
const RUN_NAMES: [&str; 5] = ["run", "run_id", "run_name", "run id", "run name"];
/// C = 6 N D where a law of C has no column for it (Kaplan et al. 2020, section 2.1).
const FLOPS_PER_PARAMETER_TOKEN: f64 = 6.0;

/// A row that can be fitted.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Where it stands in the file; the header is line 1.
    pub(super) line: u64,
    pub(super) observation: Observation,
    pub(super) covariates: Covariates,
    pub(super) stratum: u32,
    /// The number of the trunk that its run shares.
    pub(super) trunk: u32,
    /// The value of the column of groups; empty without one.
    pub(super) group: String,
    /// The cells of the columns that a rule names, in the order of `Table::kept`.
    pub(super) cells: Vec<String>,
    /// FLOPs for one token, where a column has them.
    pub(super) flops_per_token: Option<f64>,
    /// Numbers of its values in the columns of `Table::alike`.
    pub(super) alike: Vec<u32>,
    /// A digest of the whole row, to find copies.
    pub(super) digest: u128,
}

/// A file as it was read.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) headers: Vec<String>,
    /// Positions of the columns whose cells are kept: a file may have a million rows.
    pub(super) kept: Vec<usize>,
    /// The rows of a group beside each other, in the order of the file; the groups by their names.
    pub(super) rows: Vec<Row>,
    /// The law with what the columns say about it.
    pub(super) choice: LawChoice,
    /// The same for the laws that it is compared with.
    pub(super) against: Vec<LawChoice>,
    /// Where C comes from, in words.
    pub(super) flops: String,
    /// A column that seems to name runs where none is given, and how many it names, where these are
    /// fewer than the rows.
    pub(super) run_names: Option<(String, usize)>,
    /// The runs' names by their numbers; empty where every row is a run of its own.
    pub(super) runs: Vec<String>,
    /// Columns in which rows should be alike, with their values by number.
    pub(super) alike: Vec<(String, Vec<String>)>,
    /// Whether there are columns of N, D and C.
    pub(super) has: [bool; 3],
    /// BLAKE3 of the file's bytes as they were read.
    pub(super) blake3: String,
    /// What is to be known of the columns.
    pub(super) warnings: Vec<String>,
}

impl Table {
    /// What a run is called in the file: its name, or without a column of runs the line of its row.
    pub(super) fn name_of_run(&self, run: RunKey) -> String {
        if let Some(name) = self.runs.get(run.0 as usize) {
            return format!("run `{name}`");
        }
        let row = self.rows.iter().find(|row| row.observation.run == run);
        row.map_or_else(|| format!("run {}", run.0), |row| format!("the row in line {}", row.line))
    }

    /// Where a column stands among those whose cells are kept.
    pub(super) fn kept_position(&self, name: &str) -> Option<usize> {
        self.kept.iter().position(|column| self.headers[*column] == name)
    }

    /// Whether both N and D are known.
    pub(super) fn has_sizes(&self) -> bool {
        self.has[0] && self.has[1]
    }

    /// Whether C is known, from a column or as 6 N D.
    pub(super) fn has_flops(&self) -> bool {
        self.has[2] || self.has_sizes()
    }
}

/// A file whose bytes are hashed as they are read, and whose lines all end with a line feed for the reader: that one
/// counts a line that ends in two characters when it begins the next.
struct Hashed {
    file: std::fs::File,
    hasher: blake3::Hasher,
    /// Whether the last byte was a carriage return, which was given as a line feed.
    ends_in_return: bool,
    /// How many bytes were given.
    n_given: u64,
    /// Whether the last byte given was a line feed.
    ends_in_feed: bool,
    /// Places of line feeds that end an empty line, among the bytes given.
    empty: BTreeSet<u64>,
}

impl Hashed {
    fn new(file: std::fs::File) -> Self {
        Self {
            file,
            hasher: blake3::Hasher::new(),
            ends_in_return: false,
            n_given: 0,
            ends_in_feed: true,
            empty: BTreeSet::new(),
        }
    }

    /// The line of a row that the reader saw at a place: it skips empty lines, and takes the first of
    /// them for the row's.
    fn line(&self, position: &csv::Position) -> u64 {
        let place = position.byte();
        let next = self.empty.range(place..).zip(place..);
        position.line() + next.take_while(|(found, expected)| *found == expected).count() as u64
    }
}

impl std::io::Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let n = self.file.read(buffer)?;
            self.hasher.update(&buffer[..n]);
            let mut kept = 0;
            for at in 0..n {
                let byte = buffer[at];
                let is_second = byte == b'\n' && self.ends_in_return;
                self.ends_in_return = byte == b'\r';
                if !is_second {
                    buffer[kept] = if byte == b'\r' { b'\n' } else { byte };
                    let is_feed = buffer[kept] == b'\n';
                    if is_feed && self.ends_in_feed {
                        self.empty.insert(self.n_given);
                    }
                    self.ends_in_feed = is_feed;
                    self.n_given += 1;
                    kept += 1;
                }
            }
            // Nothing kept of something read is not the end of the file.
            if kept > 0 || n == 0 {
                return Ok(kept);
            }
        }
    }
}

/// Where each variable stands in a row; a variable that the law does not use may be absent.
struct Columns {
    parameters: Option<usize>,
    tokens: Option<usize>,
    flops: Option<usize>,
    flops_per_token: Option<usize>,
    loss: usize,
    accuracy: Option<usize>,
    unique: Option<usize>,
    bits: [Option<usize>; 3],
    rates: [Option<usize>; 2],
    weight: Option<usize>,
    run: Option<usize>,
    stratify: Option<usize>,
    trunk: Option<usize>,
    group: Option<usize>,
}

/// Where the only column of this name stands.
pub(super) fn position(headers: &[String], name: &str) -> anyhow::Result<usize> {
    let mut found = (0..headers.len()).filter(|index| headers[*index] == name);
    let index = found.next().with_context(|| {
        let names: Vec<String> = headers.iter().map(|one| format!("`{one}`")).collect();
        let is_one = headers.len() == 1 && headers[0].contains([';', '\t']);
        let is_comment = headers.first().is_some_and(|first| first.starts_with('#'));
        let hint = match () {
            () if is_one => "; cells must be separated by commas",
            () if is_comment => {
                "; the first line must name the columns, take out comments before it"
            }
            () => "",
        };
        format!("there is no column `{name}`; the columns are {}{hint}", names.join(", "))
    })?;
    anyhow::ensure!(found.next().is_none(), "there are two columns `{name}`");
    Ok(index)
}

impl Columns {
    fn find(headers: &[String], args: &ColumnArgs) -> anyhow::Result<Self> {
        let column = |name: &str| position(headers, name);
        let optional = |name: &Option<String>| name.as_deref().map(column).transpose();
        Ok(Self {
            parameters: optional(&args.n)?,
            tokens: optional(&args.d)?,
            flops: optional(&args.c)?,
            flops_per_token: optional(&args.flops_per_token)?,
            loss: column(args.loss.as_deref().context("`--loss` is missing")?)?,
            accuracy: optional(&args.accuracy)?,
            unique: optional(&args.unique)?,
            bits: [
                optional(&args.bits)?,
                optional(&args.bits_activations)?,
                optional(&args.bits_cache)?,
            ],
            rates: [optional(&args.rate_sum)?, optional(&args.rate_fall)?],
            weight: optional(&args.weight)?,
            run: optional(&args.run)?,
            stratify: optional(&args.stratify)?,
            trunk: optional(&args.trunk)?,
            group: optional(&args.group_by)?,
        })
    }

    /// A column that by its name is one of runs, where none is given.
    fn unused_runs(&self, headers: &[String]) -> Option<usize> {
        let is_given = self.run.is_some() || self.trunk.is_some();
        let is_name = |name: &String| RUN_NAMES.contains(&name.to_ascii_lowercase().as_str());
        headers.iter().position(is_name).filter(|_| !is_given)
    }

    /// The law with its variable, breaks and precisions.
    fn choice(&self, law: LawName, args: &FitArgs) -> LawChoice {
        let axis = match (args.of.as_deref(), self.parameters, self.tokens, self.flops) {
            (Some("n"), ..) | (None, Some(_), None, None) => Axis::Parameters,
            (Some("d"), ..) | (None, None, Some(_), None) => Axis::Tokens,
            _ => Axis::Flops,
        };
        let bits = self.bits.map(|column| column.is_some());
        LawChoice { name: law, axis, n_breaks: usize::from(args.breaks), bits }
    }

    /// Refuses a law whose variables have no column.
    fn check(&self, choice: LawChoice) -> anyhow::Result<()> {
        let law = choice.name;
        let has_sizes = self.parameters.is_some() && self.tokens.is_some();
        for variable in choice.law().variables() {
            let (is_there, flag) = match variable {
                Variable::Parameters => (self.parameters.is_some(), "--n COLUMN"),
                Variable::Tokens => (self.tokens.is_some(), "--d COLUMN"),
                Variable::Flops => (
                    self.flops.is_some() || has_sizes,
                    "--c COLUMN`, or `--n` and `--d` for 6 N D, `",
                ),
                Variable::UniqueTokens => (self.unique.is_some(), "--unique COLUMN"),
                Variable::WeightBits => (self.bits[0].is_some(), "--bits COLUMN"),
                Variable::ActivationBits => (self.bits[1].is_some(), "--bits-activations COLUMN"),
                Variable::CacheBits => (self.bits[2].is_some(), "--bits-cache COLUMN"),
                Variable::TaskLoss => (self.accuracy.is_some(), "--accuracy COLUMN"),
                Variable::RateSum => (self.rates[0].is_some(), "--rate-sum COLUMN"),
                Variable::RateFall => (self.rates[1].is_some(), "--rate-fall COLUMN"),
            };
            let flag = flag.trim_end_matches(", `");
            anyhow::ensure!(is_there, "the law `{law}` needs the {variable}: give `{flag}`");
        }
        Ok(())
    }

    /// Where C is from, and the warnings of that.
    fn flops_in_words(&self, headers: &[String]) -> (String, Vec<String>) {
        let has_sizes = self.parameters.is_some() && self.tokens.is_some();
        match (self.flops, self.flops_per_token) {
            (Some(column), _) => (format!("column `{}`", headers[column]), Vec::new()),
            (None, Some(column)) => (format!("column `{}` times D", headers[column]), Vec::new()),
            (None, None) if has_sizes => (
                "6 N D".to_owned(),
                vec!["assumed-flops: no column has C, so it is taken as 6 N D".to_owned()],
            ),
            _ => ("not known".to_owned(), Vec::new()),
        }
    }
}

/// Reads the whole file.
pub(super) fn read(file: &Path, args: &FitArgs, law: LawName) -> anyhow::Result<Table> {
    let context = || format!("could not read `{}`", file.display());
    let opened = std::fs::File::open(file).with_context(context)?;
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(Hashed::new(opened));
    let headers = reader.headers().cloned();
    let headers = headers.map_err(|error| placed(file, error, reader.get_ref()))?;
    let headers: Vec<String> = headers.iter().map(str::to_owned).collect();
    anyhow::ensure!(
        !headers.is_empty(),
        "`{}` is empty; its first line must name the columns",
        file.display()
    );
    let columns = Columns::find(&headers, &args.columns)?;
    let choice = columns.choice(law, args);
    columns.check(choice)?;
    let against = rivals(args, &columns, choice)?;
    let kept = hold_out::columns(&args.hold_out, &headers);
    let watched = alike::columns(&headers, &args.columns)?;
    let mut values: Vec<Numbers> = watched.iter().map(|_| Numbers::default()).collect();
    let named = columns.unused_runs(&headers);
    let mut names = BTreeSet::new();
    let mut rows = Vec::new();
    let mut numbers = Numbering::default();
    let mut record = csv::StringRecord::new();
    loop {
        let read = reader.read_record(&mut record);
        if !read.map_err(|error| placed(file, error, reader.get_ref()))? {
            break;
        }
        let line = record
            .position()
            .map_or(rows.len() as u64 + 2, |position| reader.get_ref().line(position));
        let cells = Cells { file, line, headers: &headers, record: &record };
        let mut row = row(&cells, &columns, choice, &mut numbers)?;
        for (column, values) in watched.iter().zip(&mut values) {
            row.alike.push(values.of(cells.text(*column))?);
        }
        if let Some(column) = named {
            names.insert((row.group.clone(), cells.text(column).to_owned()));
        }
        row.cells = kept.iter().map(|column| cells.text(*column).to_owned()).collect();
        rows.push(row);
    }
    anyhow::ensure!(!rows.is_empty(), "`{}` has no row", file.display());
    rows.sort_by(|one: &Row, other| one.group.cmp(&other.group));
    let (flops, warnings) = columns.flops_in_words(&headers);
    let is_fewer = names.len() < rows.len();
    let run_names = named.filter(|_| is_fewer).map(|at| (headers[at].clone(), names.len()));
    let has = [columns.parameters, columns.tokens, columns.flops].map(|column| column.is_some());
    let runs = numbers.runs.names();
    let alike = watched.iter().zip(values);
    let alike = alike.map(|(column, values)| (headers[*column].clone(), values.names())).collect();
    let blake3 = reader.get_ref().hasher.finalize().to_hex().to_string();
    Ok(Table {
        headers,
        kept,
        rows,
        choice,
        against,
        flops,
        run_names,
        runs,
        alike,
        has,
        blake3,
        warnings,
    })
}

/// The laws that the fitted one is compared with.
fn rivals(args: &FitArgs, columns: &Columns, choice: LawChoice) -> anyhow::Result<Vec<LawChoice>> {
    let mut against = Vec::with_capacity(args.against.len());
    for name in &args.against {
        let other = columns.choice(law_named(name)?, args);
        columns.check(other)?;
        let of_accuracy = |choice: LawChoice| choice.name == LawName::Sigmoid;
        anyhow::ensure!(
            of_accuracy(other) == of_accuracy(choice),
            "`{}` and `{name}` do not predict the same: one is a law of accuracy",
            choice.name
        );
        against.push(other);
    }
    Ok(against)
}

/// An error of the reader at its line, in words that say what would be valid.
fn placed(file: &Path, error: csv::Error, read: &Hashed) -> anyhow::Error {
    let file = file.display();
    let line = |position: &csv::Position| read.line(position);
    let text = match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, line);
            format!(
                "{file}:{line}: the row has {len} cells and the header {expected_len}; \
                 every row must have as many as the header"
            )
        }
        csv::ErrorKind::Utf8 { pos, err } => {
            let line = pos.as_ref().map_or(1, line);
            let cell = err.field() + 1;
            format!("{file}:{line}: cell {cell} is not UTF-8; save the file as UTF-8")
        }
        _ => format!("could not read `{file}`"),
    };
    anyhow::Error::new(error).context(text)
}

/// The cells of one row.
struct Cells<'a> {
    file: &'a Path,
    line: u64,
    headers: &'a [String],
    record: &'a csv::StringRecord,
}

impl Cells<'_> {
    fn text(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or_default()
    }

    /// A text that names something, and so must be there.
    fn named(&self, column: usize) -> anyhow::Result<&str> {
        let text = self.text(column);
        anyhow::ensure!(
            !text.is_empty(),
            "{}:{}: column `{}` is empty; it must name something in every row",
            self.file.display(),
            self.line,
            self.headers[column]
        );
        Ok(text)
    }

    /// A digest of all cells with their borders.
    fn digest(&self) -> u128 {
        let mut hasher = blake3::Hasher::new();
        for cell in self.record {
            hasher.update(&(cell.len() as u64).to_le_bytes()).update(cell.as_bytes());
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_le_bytes(bytes)
    }

    /// A finite number.
    fn finite(&self, column: usize) -> anyhow::Result<f64> {
        let (text, name) = (self.text(column), &self.headers[column]);
        let (file, line) = (self.file.display(), self.line);
        anyhow::ensure!(
            !text.is_empty(),
            "{file}:{line}: column `{name}` is empty; take out rows that have no number"
        );
        let value = text.parse::<f64>().ok().with_context(|| {
            format!(
                "{file}:{line}: `{text}` is not a number, in column `{name}`; write numbers as \
                 1500000 or 1.5e6, and take out rows that have none"
            )
        })?;
        anyhow::ensure!(
            value.is_finite(),
            "{file}:{line}: column `{name}` must be finite, found `{text}`"
        );
        Ok(value)
    }

    /// A finite number above zero.
    fn positive(&self, column: usize) -> anyhow::Result<f64> {
        let value = self.finite(column)?;
        anyhow::ensure!(
            value > 0.0,
            "{}:{}: column `{}` must be above zero, found `{}`",
            self.file.display(),
            self.line,
            self.headers[column],
            self.text(column)
        );
        Ok(value)
    }
}

fn row(
    cells: &Cells<'_>,
    columns: &Columns,
    choice: LawChoice,
    numbers: &mut Numbering,
) -> anyhow::Result<Row> {
    let positive = |column: Option<usize>| column.map(|at| cells.positive(at)).transpose();
    let (parameters, tokens) = (positive(columns.parameters)?, positive(columns.tokens)?);
    // A law that does not look at N, D or C only needs them to be positive.
    let (known_n, known_d) = (parameters.unwrap_or(1.0), tokens.unwrap_or(1.0));
    let is_sigmoid = choice.name == LawName::Sigmoid;
    let (loss_nats, task_loss) = match columns.accuracy {
        Some(accuracy) if is_sigmoid => {
            let value = cells.positive(accuracy)?;
            anyhow::ensure!(
                value <= 1.0,
                "{}:{}: an accuracy is at most 1, found {value} in column `{}`; divide per cent by 100",
                cells.file.display(),
                cells.line,
                cells.headers[accuracy]
            );
            (value, Some(cells.finite(columns.loss)?))
        }
        _ => (cells.positive(columns.loss)?, None),
    };
    let rates = match columns.rates {
        [Some(sum), Some(fall)] => Some((cells.positive(sum)?, cells.finite(fall)?)),
        _ => None,
    };
    // The command line asks for N and D where it takes FLOPs for a token.
    let flops_per_token = positive(columns.flops_per_token)?;
    let price = flops_per_token.unwrap_or(FLOPS_PER_PARAMETER_TOKEN * known_n);
    let run = numbers.run(cells, columns)?;
    let [weights, activations, cache] = columns.bits;
    Ok(Row {
        line: cells.line,
        observation: Observation {
            run: RunKey(run),
            parameters: known_n,
            tokens: known_d,
            flops: positive(columns.flops)?.unwrap_or(price * known_d),
            loss_nats,
            seed: 0,
        },
        covariates: Covariates {
            unique_tokens: positive(columns.unique)?,
            bits: [positive(weights)?, positive(activations)?, positive(cache)?],
            task_loss,
            rates,
            weight: positive(columns.weight)?.unwrap_or(1.0),
        },
        stratum: numbers.stratum(run, cells, columns)?,
        trunk: numbers.trunk(run, cells, columns)?,
        group: columns.group.map_or(Ok(""), |at| cells.named(at))?.to_owned(),
        cells: Vec::new(),
        flops_per_token,
        alike: Vec::new(),
        digest: cells.digest(),
    })
}
