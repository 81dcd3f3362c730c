//! `make bench-fit`: how fast the parametric law is fitted on one core, beside SciPy.
//!
//! Prints a table and writes `target/bench/fit.json`. SciPy runs `bench/scipy/fit.py` in the Python
//! that BENCH_PYTHON names, on the same points and the same machine; without one its columns stay
//! empty. `--quick` takes a tenth. Both sides measure processor time. Each bar is named, with
//! whether it holds; ends with status 1 when the two sides did not find the same optimum, for then
//! their times mean nothing.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use scaling::fit::{Fit, FitOptions, audit, fit};
use scaling::interval::{Inference, IntervalOptions, Resampling, infer_with};
use scaling::law::{LawName, LogPoint};
use scaling::observation::{Dataset, Observation, RunKey};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Draws of the source's bootstrap (Besiroglu et al. 2024).
const DRAWS: usize = 4000;
/// Fits that are timed together.
const FITS: usize = 300;
const LARGE_FITS: usize = 20;

fn main() -> Outcome<()> {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let part = if is_quick { 10 } else { 1 };
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
    std::fs::create_dir_all(&folder)?;
    let (data, source) = points()?;
    let mut rows = measured(&data, part)?;
    let peer = scipy(&folder, &data, part)?;
    if let Some(peer) = &peer {
        compare(&mut rows, peer);
    }
    std::fs::write(folder.join("fit.json"), json(&rows))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "240 points ({source}), one core, processor time on both sides")?;
    writeln!(out, "{:<58} {:>12} {:>12} {:>8}", "", "gradus", "SciPy", "ratio")?;
    for row in &rows {
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.4}"));
        let (peer, ratio) = (number(row.peer), number(row.ratio()));
        writeln!(out, "{:<58} {:>9.4} {:<2} {peer:>12} {ratio:>8}", row.what, row.value, row.unit)?;
    }
    writeln!(out)?;
    for (row, bar) in rows.iter().filter_map(|row| Some((row, row.bar?))) {
        let answer = match row.holds() {
            Some(true) => "holds",
            Some(false) => "DOES NOT HOLD",
            None => "not measured: no SciPy",
        };
        writeln!(out, "bar: {}, {bar}: {answer}", row.what)?;
    }
    if peer.is_none() {
        writeln!(out, "no SciPy: name a Python that has it by BENCH_PYTHON")?;
    }
    let optimum = rows.iter().find(|row| row.what == BEST_OF_STARTS);
    match optimum.and_then(Row::ratio) {
        Some(ratio) if !((1.0 - SAME_OPTIMUM)..=(1.0 + SAME_OPTIMUM)).contains(&ratio) => {
            Err(format!("the two sides found different optima: their quotient is {ratio}").into())
        }
        _ => Ok(()),
    }
}

/// The objective is compared by this row.
const BEST_OF_STARTS: &str = "best objective of the classic starts, times 1,000";
const SAME_OPTIMUM: f64 = 1e-6;

/// What a measurement is to reach.
#[derive(Clone, Copy)]
enum Bar {
    AtMost(f64, &'static str),
    TimesFaster(f64),
}

impl std::fmt::Display for Bar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(value, unit) => write!(formatter, "at most {value} {unit}"),
            Self::TimesFaster(times) => {
                write!(formatter, "at least {times} times as fast as SciPy")
            }
        }
    }
}

/// A measurement, and the peer's where there is one.
struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
    peer: Option<f64>,
    bar: Option<Bar>,
}

impl Row {
    fn new(what: &'static str, value: f64, unit: &'static str) -> Self {
        Self { what, value, unit, peer: None, bar: None }
    }

    fn bar(self, bar: Bar) -> Self {
        Self { bar: Some(bar), ..self }
    }

    /// Whether the bar holds, where there is one and what it needs was measured.
    fn holds(&self) -> Option<bool> {
        match self.bar? {
            Bar::AtMost(most, _) => Some(self.value <= most),
            Bar::TimesFaster(times) => Some(self.ratio()? >= times),
        }
    }

    /// How many times as long the peer takes; of standard errors and objectives their quotient.
    fn ratio(&self) -> Option<f64> {
        self.peer.map(|peer| peer / self.value)
    }
}

/// The published points where they stand beside the project, else as many on a planted surface.
fn points() -> Outcome<(Dataset, &'static str)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/fits/chinchilla-besiroglu/svg_extracted_points.csv");
    let rows: Vec<[f64; 3]> = match std::fs::read_to_string(path) {
        Ok(text) => text
            .lines()
            .skip(1)
            .map(|line| line.split(',').map(str::parse).collect::<Result<Vec<f64>, _>>())
            .filter(|row| row.as_ref().map_or(true, |row| row[4] == 1.0))
            .map(|row| row.map(|row| [row[0], row[1], row[3]]))
            .collect::<Result<_, _>>()?,
        Err(_) => return Ok((planted(240)?, "planted")),
    };
    Ok((dataset(&rows)?, "Besiroglu et al. 2024"))
}

fn planted(n: u32) -> Outcome<Dataset> {
    let truth = [6.2, 7.7, 0.6, 0.347, 0.367];
    let row = |i: u32| {
        // Two irrational steps spread the points over the plane; the sine stands for noise.
        let share = |step: f64| (f64::from(i) * step).fract();
        let (n, d) = (5e7 * 300_f64.powf(share(0.618)), 1e9 * 400_f64.powf(share(0.414)));
        let at = LogPoint::new(n, d, 6.0 * n * d);
        [
            n,
            d,
            LawName::Chinchilla.law().predict(&truth, &at)
                * (1.0 + 5e-3 * (f64::from(i) * 1.7).sin()),
        ]
    };
    dataset(&(0..n).map(row).collect::<Vec<_>>())
}

fn dataset(rows: &[[f64; 3]]) -> Outcome<Dataset> {
    let point = |(run, [parameters, tokens, loss_nats]): (u32, &[f64; 3])| Observation {
        run: RunKey(run),
        parameters: *parameters,
        tokens: *tokens,
        flops: 6.0 * parameters * tokens,
        loss_nats: *loss_nats,
        seed: 0,
    };
    Ok(Dataset::new(&(0..).zip(rows).map(point).collect::<Vec<_>>())?)
}

/// Processor time of this process, which other programs on the machine hardly change; SciPy's side
/// measures the same. Elsewhere than on Linux there is only the wall clock.
fn processor_seconds() -> f64 {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let nanoseconds = std::fs::read_to_string("/proc/self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let begin = BEGIN.get_or_init(Instant::now);
    nanoseconds.map_or_else(|| begin.elapsed().as_secs_f64(), |value| 1e-9 * value)
}

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = processor_seconds();
    let result = work();
    (processor_seconds() - begin, result)
}

/// Seconds of one of `n` equal pieces of work: the kernel counts processor time in ticks of
/// milliseconds.
fn seconds_each<T>(n: usize, work: impl Fn() -> T) -> f64 {
    seconds(|| (0..n).for_each(|_| drop(std::hint::black_box(work())))).0 / n as f64
}

fn measured(data: &Dataset, part: usize) -> Outcome<Vec<Row>> {
    let (law, options) = (LawName::Chinchilla.law(), FitOptions::default());
    let (starts, audited) = seconds(|| audit(law, data, &options, part));
    let audited = audited?;
    let fitted = fit(law, data, &options)?;
    let one_fit = seconds_each(FITS / part, || fit(law, data, &options));
    let draws = DRAWS / part;
    let (bootstrap, inference) = seconds(|| refits(&fitted, data, draws, false));
    let (with_search, _) = seconds(|| refits(&fitted, data, draws, true));
    let inference = inference?;
    let large = planted(4478)?;
    fit(law, &large, &options)?;
    let large_fit = seconds_each(LARGE_FITS.div_ceil(part), || fit(law, &large, &options));
    let part = part as f64;
    let error = |index: usize| inference.resampled.standard_error(|theta| theta[index]);
    Ok(vec![
        Row::new("4,500 classic starts", starts * part, "s"),
        Row::new("4,000 bootstrap refits", bootstrap * part, "s"),
        Row::new("both", (starts + bootstrap) * part, "s").bar(Bar::TimesFaster(30.0)),
        Row::new("both, SciPy with numeric gradients", (starts + bootstrap) * part, "s")
            .bar(Bar::TimesFaster(100.0)),
        Row::new("4,000 bootstrap refits with a search in each", with_search * part, "s")
            .bar(Bar::AtMost(3.0, "s")),
        Row::new("one global fit", 1e3 * one_fit, "ms").bar(Bar::AtMost(2.0, "ms")),
        Row::new("one global fit of 4,478 points", 1e3 * large_fit, "ms")
            .bar(Bar::AtMost(50.0, "ms")),
        Row::new("objective at the optimum, times 1,000", 1e3 * fitted.objective, ""),
        Row::new(BEST_OF_STARTS, 1e3 * audited.objective, ""),
        Row::new(
            "share of classic starts at the optimum",
            audited.n_at_best as f64 / audited.n_starts as f64,
            "",
        ),
        Row::new("standard error of alpha", error(3).unwrap_or(f64::NAN), ""),
        Row::new("standard error of beta", error(4).unwrap_or(f64::NAN), ""),
    ])
}

fn refits(fitted: &Fit, data: &Dataset, draws: usize, is_global: bool) -> Outcome<Inference> {
    let interval = IntervalOptions { draws, ..IntervalOptions::default() };
    let resampling = Resampling { is_global, ..Resampling::default() };
    Ok(infer_with(fitted, data, &FitOptions::default(), &interval, &resampling)?)
}

/// What SciPy printed, or `None` without a Python that has it.
fn scipy(folder: &Path, data: &Dataset, part: usize) -> Outcome<Option<String>> {
    let file = folder.join("fit-points.txt");
    let mut text = String::new();
    for point in data.points() {
        writeln!(text, "{:e} {:e} {:e}", point.parameters, point.tokens, point.loss_nats)?;
    }
    std::fs::write(&file, text)?;
    let python = std::env::var("BENCH_PYTHON")
        .unwrap_or_else(|_| folder.join("scipy-venv/bin/python").display().to_string());
    // SciPy takes minutes: a part of its work is measured and scaled up.
    let (starts, draws) = (450 / part, 400 / part);
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/scipy/fit.py"))
        .arg(&file)
        .args([starts.to_string(), draws.to_string()])
        .output();
    let Ok(output) = output else { return Ok(None) };
    if !output.status.success() {
        std::io::stderr().write_all(&output.stderr)?;
        return Ok(None);
    }
    Ok(Some(String::from_utf8(output.stdout)?))
}

/// Puts SciPy's numbers beside ours.
fn compare(rows: &mut [Row], peer: &str) {
    let of = |name: &str| -> Option<f64> {
        let rest = peer.split_once(&format!("\"{name}\": "))?.1;
        rest.split([',', '}']).next()?.trim().parse().ok()
    };
    let (starts, draws) = (of("seconds_starts"), of("seconds_draws"));
    for row in rows {
        row.peer = match row.what {
            "4,500 classic starts" => starts,
            "4,000 bootstrap refits" => draws,
            "both" => starts.zip(draws).map(|(a, b)| a + b),
            "both, SciPy with numeric gradients" => of("seconds_numeric"),
            BEST_OF_STARTS => of("objective").map(|v| 1e3 * v),
            "share of classic starts at the optimum" => of("share_at_best"),
            "standard error of alpha" => of("standard_error_alpha"),
            "standard error of beta" => of("standard_error_beta"),
            _ => None,
        };
    }
}

fn json(rows: &[Row]) -> String {
    let row = |row: &Row| {
        let peer = row.peer.zip(row.ratio()).map_or_else(String::new, |(peer, ratio)| {
            format!(", \"peer\": \"SciPy, converged\", \"peer_value\": {peer}, \"ratio\": {ratio}")
        });
        let bar = row.bar.map_or_else(String::new, |bar| {
            let holds = row.holds().map_or("null".to_owned(), |holds| holds.to_string());
            format!(", \"bar\": \"{bar}\", \"holds\": {holds}")
        });
        format!(
            "  {{\"what\": \"{}\", \"value\": {}, \"unit\": \"{}\"{peer}{bar}}}",
            row.what, row.value, row.unit
        )
    };
    format!("[\n{}\n]\n", rows.iter().map(row).collect::<Vec<_>>().join(",\n"))
}
