//! Fits of published data, which stand beside the project and are not part of it; without them a
//! test says so.

use super::*;
use crate::interval::{IntervalOptions, Scheme, infer};
use crate::law::{LawChoice, Pinned};
use crate::observation::{Covariates, Observation, RunKey};

/// The rows of a file under `shared/data/fits` by column, or `None` with a line where the folder is
/// absent.
fn table(name: &str) -> Option<Table> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/fits/");
    let Ok(text) = std::fs::read_to_string(format!("{folder}{name}")) else {
        eprintln!("skipped: no `{name}` in ../shared/data/fits");
        return None;
    };
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect());
    let header = lines.next().unwrap();
    Some(Table { header, rows: lines.collect() })
}

struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn text(&self, row: usize, column: &str) -> &str {
        let index = self.header.iter().position(|name| name == column).unwrap();
        &self.rows[row][index]
    }

    fn number(&self, row: usize, column: &str) -> f64 {
        self.text(row, column).parse().unwrap()
    }
}

/// Rows of the published points that the source kept, or `None` with a line where the shared folder
/// is absent.
pub(crate) fn besiroglu() -> Option<Dataset> {
    let table = table("chinchilla-besiroglu/svg_extracted_points.csv")?;
    let point = |row: usize| Observation {
        run: RunKey(u32::try_from(row).unwrap()),
        parameters: table.number(row, "n_params"),
        tokens: table.number(row, "train_tokens"),
        flops: table.number(row, "train_flop"),
        loss_nats: table.number(row, "loss"),
        seed: 0,
    };
    let points: Vec<Observation> = (0..table.rows.len()).map(point).collect();
    let is_kept = |point: &Observation| table.number(point.run.0 as usize, "kept_besiroglu") == 1.0;
    let out = |point: &Observation| (!is_kept(point)).then(|| "left out by the source".to_owned());
    Some(Dataset::select(&points, out).unwrap())
}

#[test]
fn the_published_points_give_the_recomputed_optimum_at_every_threshold() {
    let Some(data) = besiroglu() else { return };
    assert_eq!((data.points().len(), data.excluded().len()), (240, 5));
    let targets = [
        (1e-3, 1.018_274_2e-3, 0.347_310_5, 0.367_172_4, 1.817_218),
        (1e-5, 1.128_310_6e-5, 0.347_738, 0.365_761, 1.816_684),
        (1e-4, 1.117_787_5e-4, 0.347_409, 0.365_385, 1.815_824),
        (1e-2, 4.696_225e-3, 0.354_416, 0.381_538, 1.838_079),
        (1e3, 5.730_944e-3, 0.360_253, 0.405_883, 1.864_55),
    ];
    for (huber_delta, objective, alpha, beta, floor) in targets {
        let kind = Objective::Huber { delta: huber_delta };
        let options = FitOptions { objective: kind, ..FitOptions::default() };
        let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
        eprintln!("{huber_delta:e}: {:.12e} {:?}", fitted.objective, fitted.convergence);
        assert!(fitted.objective <= objective, "{huber_delta}: {}", fitted.objective);
        for (name, expected) in [("alpha", alpha), ("beta", beta), ("E", floor)] {
            let found = fitted.coefficient(name).unwrap();
            assert!((found - expected).abs() < 2e-4, "{huber_delta} {name}: {found}");
        }
    }
}

#[test]
fn the_classic_starts_reach_the_optimum_of_the_published_points() {
    let Some(data) = besiroglu() else { return };
    let (law, options) = (LawName::Chinchilla.law(), FitOptions::default());
    let audited = audit(law, &data, &options, 9).unwrap();
    let fitted = fit(law, &data, &options).unwrap();
    eprintln!("{audited:?}");
    assert!((audited.objective / fitted.objective - 1.0).abs() < 1e-10);
    assert!(audited.n_at_best * 100 >= audited.n_starts * 99, "{audited:?}");
}

#[test]
fn the_published_points_give_the_published_intervals() {
    let Some(data) = besiroglu() else { return };
    let options = FitOptions::default();
    let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
    let interval = IntervalOptions { seed: 42, ..IntervalOptions::default() };
    let inference = infer(&fitted, &data, &options, &interval).unwrap();
    assert!(matches!(inference.resampled.scheme, Scheme::Bootstrap { failed: 0, .. }));
    // Percentiles of 4,000 draws by the source; 1,000 draws place an end to about a tenth of the
    // width.
    let targets = [
        ("A", 285.2, 743.6),
        ("B", 1042.0, 5810.0),
        ("E", 1.769, 1.871),
        ("alpha", 0.3168, 0.3733),
        ("beta", 0.3313, 0.4154),
    ];
    for (name, low, high) in targets {
        let found = inference.coefficient(name).unwrap().interval().unwrap();
        eprintln!("{name}: {found:?} for {low} to {high}");
        let allowed = 0.15 * (high - low);
        assert!((found.0 - low).abs() < allowed && (found.1 - high).abs() < allowed, "{name}");
    }
    let optimum = inference.optimum(5.76e23, 6.0).unwrap();
    let (low, high) = optimum.parameters.interval().unwrap();
    assert!((low / 5.175e10 - 1.0).abs() < 0.1 && (high / 1.124e11 - 1.0).abs() < 0.1);
    let (low, high) = optimum.parameters_exponent.interval().unwrap();
    assert!((low - 0.4807).abs() < 0.01 && (high - 0.5561).abs() < 0.01, "{low} {high}");
}

fn of_coefficient(fitted: &Fit, name: &str) -> f64 {
    fitted.coefficient(name).unwrap()
}

#[test]
fn least_absolute_deviations_give_the_printed_coefficients() {
    let Some(data) = besiroglu() else { return };
    let options = FitOptions { objective: Objective::AbsoluteDeviations, ..FitOptions::default() };
    let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
    eprintln!("{:.12} {:?}", fitted.objective, fitted.coefficients);
    assert!(fitted.objective <= 1.129_494_67, "{}", fitted.objective);
    for (name, expected, allowed) in [
        ("alpha", 0.347_813, 2e-4),
        ("beta", 0.365_854, 2e-4),
        ("E", 1.816_864, 2e-4),
        // The printed values have five and six digits.
        ("A", 482.01, 0.05),
        ("B", 2085.43, 0.2),
    ] {
        let found = of_coefficient(&fitted, name);
        assert!((found - expected).abs() < allowed, "{name}: {found}");
    }
}

#[test]
fn squares_of_the_raw_loss_agree_with_two_other_tools_on_the_217_points() {
    let Some(data) = besiroglu() else { return };
    let options = FitOptions { objective: Objective::LossSquares, ..FitOptions::default() };
    let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
    assert!((fitted.objective - 0.083_203_807_7).abs() < 1e-9, "{}", fitted.objective);
    // N in millions and D in billions, as those tools have it.
    let scaled = |point: &Observation| Observation {
        parameters: point.parameters / 1e6,
        tokens: point.tokens / 1e9,
        ..*point
    };
    let kept: Vec<Observation> =
        data.points().iter().filter(|point| point.flops < 1e21).map(scaled).collect();
    assert_eq!(kept.len(), 217);
    let fitted = fit(LawName::Chinchilla.law(), &Dataset::new(&kept).unwrap(), &options).unwrap();
    for (name, expected) in [
        ("E", 1.905_092_28),
        ("A", 4.000_522_36),
        ("B", 1.050_947_69),
        ("alpha", 0.351_058_2),
        ("beta", 0.458_741_8),
    ] {
        let found = of_coefficient(&fitted, name);
        assert!((found / expected - 1.0).abs() < 1e-6, "{name}: {found} for {expected}");
    }
    assert!((fitted.objective / 0.062_414_292_88 - 1.0).abs() < 1e-9, "{}", fitted.objective);
}

#[test]
fn the_coupled_law_reaches_the_published_optimum() {
    let Some(data) = besiroglu() else { return };
    let fitted = fit(LawName::Coupled.law(), &data, &FitOptions::default()).unwrap();
    eprintln!("{:.10e} {:?}", fitted.objective, fitted.coefficients);
    assert!(fitted.objective <= 9.541_845_5e-4, "{}", fitted.objective);
    // 0.77 to 0.90 is what has been published for these points.
    assert!((0.7..0.9).contains(&of_coefficient(&fitted, "k")));
}

/// The 182 runs of Muennighoff et al. 2023 with their unique tokens.
fn datablations() -> Option<Dataset> {
    let table = table("datablations/fit182_runs.csv")?;
    let row = |row: usize| {
        let (parameters, tokens) = (table.number(row, "n_params"), table.number(row, "tokens"));
        let point = Observation {
            run: RunKey(u32::try_from(row).unwrap()),
            parameters,
            tokens,
            flops: 6.0 * parameters * tokens,
            loss_nats: table.number(row, "val_loss"),
            seed: 0,
        };
        let unique_tokens = Some(table.number(row, "unique_tokens"));
        (point, Covariates { unique_tokens, ..Covariates::default() })
    };
    let rows: Vec<_> = (0..table.rows.len()).map(row).collect();
    Some(Dataset::select_rows(&rows, |_, _| None).unwrap())
}

/// What the first stage of the published fit found; the second stage holds it.
const FIRST_STAGE: [(&str, f64); 5] = [
    ("ln_a", 6.255_414),
    ("ln_b", 7.304_997_4),
    ("ln_e", 0.625_480_4),
    ("alpha", 0.352_659_6),
    ("beta", 0.352_659_6),
];

#[test]
fn repeated_data_have_the_published_objective_and_several_minima() {
    let Some(data) = datablations() else { return };
    let law = Pinned::new(LawChoice::of(LawName::DataConstrained), &FIRST_STAGE).unwrap();
    let problem = Problem::new(&law, &data, Objective::default()).unwrap();
    // u of R* between 0.01 and 10,000.
    let u = |value: f64| {
        let share = (value / 1e-2).ln() / 1e6_f64.ln();
        (share / (1.0 - share)).ln()
    };
    let published = problem.plain(&[u(15.387_756), u(5.309_743)]);
    eprintln!("at the published point: {published:.13}");
    assert!((published - 0.015_825_935_258).abs() < 1e-9, "{published}");
    let fitted = fit(&law, &data, &FitOptions::default()).unwrap();
    let minimum = |theta: &[f64]| -> Vec<f64> {
        law.coefficients(theta)[5..].iter().map(|one| one.value).collect()
    };
    eprintln!("{:.10} {:?}", fitted.objective, minimum(&fitted.theta));
    for rival in &fitted.convergence.rivals {
        eprintln!("{:.10} {:?}", rival.objective, minimum(&rival.theta));
    }
    assert!(fitted.objective <= 0.015_804_7, "{}", fitted.objective);
    assert!(fitted.convergence.rivals.len() >= 2, "{:?}", fitted.convergence);
    let is_published = |theta: &[f64]| (minimum(theta)[0] / 15.37 - 1.0).abs() < 0.01;
    assert!(fitted.convergence.rivals.iter().any(|rival| is_published(&rival.theta)));
}

/// One task of the ladder: (N, D, task loss) of the sixteen runs, the same of the large run, (task
/// loss, accuracy).
struct LadderTask {
    runs: Vec<Observation>,
    target: (f64, f64),
    steps: Vec<(Observation, Covariates)>,
}

impl LadderTask {
    fn new(table: &Table, task: &str) -> Self {
        let (loss, accuracy) = (format!("bpb_{task}"), format!("acc_{task}"));
        let mut by_run: Vec<(String, Vec<usize>)> = Vec::new();
        for row in 0..table.rows.len() {
            let name = table.text(row, "run").to_owned();
            match by_run.iter_mut().find(|(known, _)| *known == name) {
                Some((_, rows)) => rows.push(row),
                None => by_run.push((name, vec![row])),
            }
        }
        let mean = |rows: &[usize], column: &str| -> f64 {
            rows.iter().map(|row| table.number(*row, column)).sum::<f64>() / rows.len() as f64
        };
        let point = |run: usize, rows: &[usize]| {
            let last = *rows.last().unwrap();
            let parameters = table.number(last, "n_params_non_embed");
            let tokens = table.number(last, "tokens");
            Observation {
                run: RunKey(u32::try_from(run).unwrap()),
                parameters,
                tokens,
                flops: 6.0 * parameters * tokens,
                loss_nats: mean(&rows[rows.len() - 5..], &loss),
                seed: 0,
            }
        };
        let is_train = |rows: &[usize]| table.text(rows[0], "role") == "train";
        let train: Vec<&(String, Vec<usize>)> =
            by_run.iter().filter(|(_, rows)| is_train(rows)).collect();
        let runs = (0..).zip(&train).map(|(run, (_, rows))| point(run, rows)).collect();
        let large = by_run.iter().find(|(name, _)| name.starts_with("13B")).unwrap();
        let last = *large.1.last().unwrap();
        let target = (table.number(last, "n_params_non_embed"), table.number(last, "tokens"));
        let mut steps = Vec::new();
        for (run, (_, rows)) in (0..).zip(&train) {
            let kept = &rows[rows.len().div_ceil(10)..];
            for end in 0..kept.len() {
                let window = &kept[end.saturating_sub(4)..=end];
                let (x, y) = (mean(window, &loss), mean(window, &accuracy));
                steps.push(step(run, x, y));
            }
        }
        // The source adds that a task is solved at loss zero.
        steps.push(step(u32::MAX, 0.0, 1.0));
        Self { runs, target, steps }
    }
}

fn step(run: u32, task_loss: f64, accuracy: f64) -> (Observation, Covariates) {
    let point = Observation {
        run: RunKey(run),
        parameters: 1.0,
        tokens: 1.0,
        flops: 1.0,
        loss_nats: accuracy,
        seed: 0,
    };
    (point, Covariates { task_loss: Some(task_loss), ..Covariates::default() })
}

#[test]
fn the_ladder_predictions_are_those_of_the_source() {
    let (Some(table), Some(reference)) =
        (table("olmo-ladder/ladder_checkpoints.csv"), table("olmo-ladder/reference_fits.csv"))
    else {
        return;
    };
    let mut worst = [0.0_f64; 3];
    for row in 0..reference.rows.len() {
        let task = reference.text(row, "task");
        let ladder = LadderTask::new(&table, task);
        // The count of the reference leaves out the added point.
        assert_eq!((ladder.runs.len(), ladder.steps.len()), (16, 1402), "{task}");
        let data = Dataset::new(&ladder.runs).unwrap();
        let first = fit(LawName::Chinchilla.law(), &data, &FitOptions::default()).unwrap();
        let steps = Dataset::select_rows(&ladder.steps, |_, _| None).unwrap();
        let options = FitOptions { objective: Objective::LossSquares, n_polished: 6 };
        let second = fit(LawName::Sigmoid.law(), &steps, &options).unwrap();
        let (parameters, tokens) = ladder.target;
        let at = LogPoint::new(parameters, tokens, 6.0 * parameters * tokens);
        let measured = Some(reference.number(row, "actual13"));
        let at_measured = at.with(&Covariates { task_loss: measured, ..Covariates::default() });
        let found = [
            first.predict_at(&at),
            second.predict_at(&at_measured),
            crate::chain::predict(&first, &second, &at),
        ];
        for ((found, column), worst) in found
            .into_iter()
            .zip(["repo_pred13", "repo_step2_13", "repo_chained13"])
            .zip(&mut worst)
        {
            let expected = reference.number(row, column);
            let error = (found / expected - 1.0).abs();
            *worst = worst.max(error);
            assert!(error < 1e-5, "{task} {column}: {found} for {expected}");
        }
    }
    eprintln!("24 predictions, worst relative error by step {worst:?}");
}

/// Aim: standard errors are those that the source prints. Method: a bootstrap of its 240 points
/// with our own random numbers. B has a long tail, so that its error moves by a twentieth from seed
/// to seed (`interval::legacy_tests`), and is held to three times that; the error of its logarithm
/// does not.
#[test]
fn bootstrap_standard_errors_are_within_five_per_cent_of_the_published() {
    let Some(data) = besiroglu() else { return };
    let options = FitOptions::default();
    let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
    let draws = if std::env::var_os("SLOW_TESTS").is_some() { 4000 } else { 1500 };
    let interval = IntervalOptions { draws, ..IntervalOptions::default() };
    let inference = infer(&fitted, &data, &options, &interval).unwrap();
    let as_it_is: fn(f64) -> f64 = |value| value;
    for (index, name, of, published, allowed) in [
        (0, "E", as_it_is, 0.025_66, 0.05),
        (1, "A", as_it_is, 124.522_32, 0.05),
        (1, "ln A", f64::ln, 0.258_176, 0.05),
        (2, "B", as_it_is, 1293.2841, 0.15),
        (2, "ln B", f64::ln, 0.421_153, 0.05),
        (3, "alpha", as_it_is, 0.0154, 0.05),
        (4, "beta", as_it_is, 0.0206, 0.05),
    ] {
        let value = |theta: &[f64]| of(fitted.form.law().coefficients(theta)[index].value);
        let found = inference.resampled.standard_error(value).unwrap();
        eprintln!("{name}: {found} for {published}, {:+.1} %", 100.0 * (found / published - 1.0));
        assert!((found / published - 1.0).abs() < allowed, "{name}: {found}");
    }
}
