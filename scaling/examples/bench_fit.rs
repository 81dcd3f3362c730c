//! `make bench-fit`: how fast the parametric law is fitted on one core, beside SciPy.
//!
//! Prints a table and writes `target/bench/fit.json`. SciPy runs `bench/scipy/fit.py` in the Python that BENCH_PYTHON
//! names, on the same points and the same machine; without one its columns stay empty. `--quick` takes a tenth.

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
    writeln!(out, "240 points ({source}), one core")?;
    writeln!(out, "{:<58} {:>12} {:>12} {:>8}", "", "gradus", "SciPy", "ratio")?;
    for row in &rows {
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.4}"));
        let (peer, ratio) = (number(row.peer), number(row.ratio()));
        writeln!(out, "{:<58} {:>9.4} {:<2} {peer:>12} {ratio:>8}", row.what, row.value, row.unit)?;
    }
    if peer.is_none() {
        writeln!(out, "no SciPy: name a Python that has it by BENCH_PYTHON")?;
    }
    Ok(())
}

/// A measurement, and the peer's where there is one.
struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
    peer: Option<f64>,
}

impl Row {
    fn new(what: &'static str, value: f64, unit: &'static str) -> Self {
        Self { what, value, unit, peer: None }
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

fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begin = Instant::now();
    let result = work();
    (begin.elapsed().as_secs_f64(), result)
}

fn measured(data: &Dataset, part: usize) -> Outcome<Vec<Row>> {
    let (law, options) = (LawName::Chinchilla.law(), FitOptions::default());
    let (starts, audited) = seconds(|| audit(law, data, &options, part));
    let audited = audited?;
    let fitted = fit(law, data, &options)?;
    let mut fits: Vec<f64> = (0..31).map(|_| seconds(|| fit(law, data, &options)).0).collect();
    fits.sort_unstable_by(f64::total_cmp);
    let draws = DRAWS / part;
    let (bootstrap, inference) = seconds(|| refits(&fitted, data, draws, false));
    let (with_search, _) = seconds(|| refits(&fitted, data, draws, true));
    let inference = inference?;
    let large = planted(4478)?;
    let (large_seconds, large_fit) = seconds(|| fit(law, &large, &options));
    large_fit?;
    let part = part as f64;
    let error = |index: usize| inference.resampled.standard_error(|theta| theta[index]);
    Ok(vec![
        Row::new("4,500 classic starts", starts * part, "s"),
        Row::new("4,000 bootstrap refits", bootstrap * part, "s"),
        Row::new("both", (starts + bootstrap) * part, "s"),
        Row::new("4,000 bootstrap refits with a search in each", with_search * part, "s"),
        Row::new("one global fit, the median of 31", 1e3 * fits[15], "ms"),
        Row::new("one global fit of 4,478 points", 1e3 * large_seconds, "ms"),
        Row::new("objective at the optimum, times 1,000", 1e3 * fitted.objective, ""),
        Row::new("best objective of the classic starts, times 1,000", 1e3 * audited.objective, ""),
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
            "best objective of the classic starts, times 1,000" => of("objective").map(|v| 1e3 * v),
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
            format!(", \"peer\": \"SciPy, analytic gradients, converged\", \"peer_value\": {peer}, \"ratio\": {ratio}")
        });
        format!(
            "  {{\"what\": \"{}\", \"value\": {}, \"unit\": \"{}\"{peer}}}",
            row.what, row.value, row.unit
        )
    };
    format!("[\n{}\n]\n", rows.iter().map(row).collect::<Vec<_>>().join(",\n"))
}
