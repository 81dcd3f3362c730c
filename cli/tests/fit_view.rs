//! Fits as people see them: tables, footnotes and the plot, from planted reports.

use std::collections::BTreeMap;

use api::{
    BudgetView, ComparisonView, CurvePoint, DroppedPoint, EstimateView, ExcludedRun, FitReport,
    GroupFit, HeldOutView, MethodFit, ObservationView,
};
use cli::output::View;
use insta::assert_snapshot;

fn identified(value: f64) -> EstimateView {
    EstimateView::Identified { value, low: 0.9 * value, high: 1.1 * value }
}

fn not_identified(reason: &str) -> EstimateView {
    EstimateView::NotIdentified { reason: reason.to_owned() }
}

/// L = scale · C^-0.05 at three sizes, the largest held out.
fn observations(group: &str, scale: f64) -> Vec<ObservationView> {
    let mut all = Vec::new();
    for (size, parameters) in [("s1", 5e4), ("s2", 1.5e5), ("s3", 8e5)] {
        for (step, tokens) in [(10, 1e4), (40, 4e4), (160, 1.6e5)] {
            let flops = 6.0 * parameters * tokens;
            all.push(ObservationView {
                run_id: format!("r_{group}{size}"),
                name: format!("{group}-{size}"),
                step,
                parameters,
                tokens,
                flops,
                loss_nats: scale * (flops / 1e10_f64).powf(-0.05),
                is_held_out: size == "s3",
                trunk: None,
            });
        }
    }
    all
}

fn envelope(scale: f64) -> MethodFit {
    let coefficients = BTreeMap::from([
        ("loss_coefficient".to_owned(), identified(scale)),
        ("loss_exponent".to_owned(), identified(0.05)),
        ("parameters_coefficient".to_owned(), identified(123_456.0)),
        ("parameters_exponent".to_owned(), not_identified("one size is best at every budget")),
    ]);
    let curve = [3e9, 1e10, 1e11, 1e12].map(|flops: f64| CurvePoint {
        flops,
        loss_nats: scale * (flops / 1e10).powf(-0.05),
        low: None,
        high: None,
    });
    MethodFit {
        method: "envelope".to_owned(),
        formulas: vec!["L(C) = loss_coefficient·(C / 1e10)^-loss_exponent".to_owned()],
        objective: "sum of squared residuals of ln L".to_owned(),
        coefficients,
        n_observations: 6,
        n_runs: 2,
        residual_rms_log: Some(0.012),
        intervals: "bootstrap by run, 1000 draws, seed 0".to_owned(),
        curve: curve.into(),
        points: Vec::new(),
        dropped: vec![DroppedPoint {
            what: "3 of 20 budgets".to_owned(),
            reason: "fewer than two sizes".to_owned(),
        }],
        warnings: vec!["a noisy fit".to_owned()],
    }
}

fn chinchilla() -> MethodFit {
    let reason = "3 sizes; an exponent of N needs 4";
    let names = ["E", "A", "B", "alpha", "beta"];
    MethodFit {
        method: "chinchilla".to_owned(),
        formulas: vec!["L = E + A/N^alpha + B/D^beta".to_owned()],
        coefficients: names.map(|name| (name.to_owned(), not_identified(reason))).into(),
        residual_rms_log: None,
        intervals: String::new(),
        curve: Vec::new(),
        dropped: Vec::new(),
        warnings: Vec::new(),
        ..envelope(1.0)
    }
}

fn group(name: &str, scale: f64) -> GroupFit {
    let held_out = |method: &str, predicted: EstimateView, relative_error| HeldOutView {
        run_id: format!("r_{name}s3"),
        name: format!("{name}-s3"),
        method: method.to_owned(),
        parameters: 8e5,
        tokens: 1.6e5,
        flops: 7.68e11,
        measured_loss_nats: 0.8 * scale,
        predicted_loss_nats: predicted,
        relative_error,
    };
    GroupFit {
        group: name.to_owned(),
        observations: observations(name, scale),
        fits: vec![envelope(scale), chinchilla()],
        held_out: vec![
            held_out("envelope", identified(0.81 * scale), Some(0.0125)),
            held_out("chinchilla", not_identified("3 sizes; an exponent of N needs 4"), None),
        ],
    }
}

fn beside(names: [&str; 2], difference: EstimateView) -> ComparisonView {
    let is_known = matches!(difference, EstimateView::Identified { .. });
    ComparisonView {
        method: "chinchilla".to_owned(),
        names: names.map(str::to_owned),
        is_at_best_sizes: true,
        budgets: vec![BudgetView {
            flops: 7.68e11,
            loss_ratio: difference.clone(),
            flops_ratio: difference.clone(),
            loss_difference_nats: difference.clone(),
            first_is_better: is_known.then_some(0.25),
            is_inside_both: true,
        }],
        crossover_flops: difference,
        crossover_is_inside_both: false,
        other_crossovers_flops: Vec::new(),
        is_paired: true,
        flops_per_parameter_token: [6.0, 6.0],
        level: 0.95,
        warnings: Vec::new(),
    }
}

fn report() -> FitReport {
    FitReport {
        id: "f_1".to_owned(),
        study: "demo".to_owned(),
        is_provisional: false,
        inputs_hash: "0123456789abcdef".to_owned(),
        parameter_kind: "non_embedding".to_owned(),
        flop_kind: "exact".to_owned(),
        loss: "validation_loss_nats".to_owned(),
        objective: "huber".to_owned(),
        weights: "equal".to_owned(),
        draws: 1000,
        seed: 0,
        confidence: 0.95,
        group_by: Some("architecture".to_owned()),
        groups: [("llama_study", 6.0), ("tnl", 5.5), ("hgrn2", 5.2), ("cosformer2", 5.0)]
            .map(|(name, scale)| group(name, scale))
            .into(),
        comparisons: vec![
            beside(["llama_study", "tnl"], identified(0.5)),
            beside(["hgrn2", "cosformer2"], not_identified("of the first: alpha: too few sizes")),
        ],
        missing: Vec::new(),
        excluded: vec![ExcludedRun {
            run_id: "r_x".to_owned(),
            name: "tnl-s9".to_owned(),
            reason: "diverged at step 3".to_owned(),
        }],
        notes: Vec::new(),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "the whole output stands in the snapshot")]
fn a_report_shows_tables_held_out_runs_the_plot_and_what_is_not_known() {
    assert_snapshot!(report().table(), @r"
    fits of study `demo`
    N parameters without embeddings and head; D training tokens
    C training FLOPs by the tensor shapes, head included (`exact`)
    L validation loss in nats per token
    95 % intervals; inputs 0123456789ab

    envelope
      L(C) = L_coefficient·(C / 1e10)^-L_exponent
      minimised: sum of squared residuals of ln L
                   llama_study     tnl             hgrn2           cosformer2
    L_exponent     0.0500          0.0500          0.0500          0.0500
                   [0.045, 0.055]  [0.045, 0.055]  [0.045, 0.055]  [0.045, 0.055]
    L_coefficient  6.00            5.50            5.20            5.00
                   [5.40, 6.60]    [4.95, 6.05]    [4.68, 5.72]    [4.50, 5.50]
    N_exponent     not             not             not             not
                   identified (1)  identified (1)  identified (1)  identified (1)
    N_coefficient  1.23e5          1.23e5          1.23e5          1.23e5
                   [1.1e5, 1.4e5]  [1.1e5, 1.4e5]  [1.1e5, 1.4e5]  [1.1e5, 1.4e5]
    runs, points   2, 6            2, 6            2, 6            2, 6
    rms of ln L    0.0120          0.0120          0.0120          0.0120
    intervals: bootstrap by run, 1000 draws, seed 0

    chinchilla
      L = E + A/N^alpha + B/D^beta
      minimised: sum of squared residuals of ln L
                  llama_study     tnl             hgrn2           cosformer2
    E             not             not             not             not
                  identified (2)  identified (2)  identified (2)  identified (2)
    A             not             not             not             not
                  identified (2)  identified (2)  identified (2)  identified (2)
    B             not             not             not             not
                  identified (2)  identified (2)  identified (2)  identified (2)
    alpha         not             not             not             not
                  identified (2)  identified (2)  identified (2)  identified (2)
    beta          not             not             not             not
                  identified (2)  identified (2)  identified (2)  identified (2)
    runs, points  2, 6            2, 6            2, 6            2, 6
    rms of ln L   –               –               –               –

    held out, predicted only
    RUN             METHOD        FLOPS  PREDICTED             MEASURED   ERROR
    llama_study-s3  envelope    7.68e11  4.860 [4.374, 5.346]     4.800  +1.2 %
    llama_study-s3  chinchilla  7.68e11  not identified (2)       4.800       –
    tnl-s3          envelope    7.68e11  4.455 [4.010, 4.901]     4.400  +1.2 %
    tnl-s3          chinchilla  7.68e11  not identified (2)       4.400       –
    hgrn2-s3        envelope    7.68e11  4.212 [3.791, 4.633]     4.160  +1.2 %
    hgrn2-s3        chinchilla  7.68e11  not identified (2)       4.160       –
    cosformer2-s3   envelope    7.68e11  4.050 [3.645, 4.455]     4.000  +1.2 %
    cosformer2-s3   chinchilla  7.68e11  not identified (2)       4.000       –

    two groups by chinchilla at C = 7.68e11
    FIRST - SECOND      LOSS DIFFERENCE, NATS       COMPUTE OF SECOND        P
    llama_study - tnl   +0.5000 [+0.4500, +0.5500]  0.500 [0.450, 0.550]  0.25
    hgrn2 - cosformer2  not identified (3)          not identified (3)       –
    compute of the second for the loss of the first, over C; P: the first is better
    equal loss, extrapolated, at C = 0.500 [0.450, 0.550]: llama_study and tnl

    (1) one size is best at every budget
    (2) 3 sizes; an exponent of N needs 4
    (3) of the first: alpha: too few sizes

    L, nats per token over C, FLOPs
     6.383 ┤ ○⠤⣀⡀
           ┤    ⠈⠉⠒⠢⠤⣀⡀
           ┤          ⠈⠉⠒⠤⢄○
           ┤                ⠉⠑○⠤⢄⣀
     5.790 ┤ △⠑⠒⠤⢄⣀               ⠉⠑⠒⠤⢄⡀
           ┤       ⠉⠑⠒⠤⢄⣀              ⠈⠉⠒⠢○⣀⡀
           ┤ □⠢⠤⣀        ⠉⠒△⠤⣀△              ⠈⠉●⠢⠤⣀⡀
           ┤     ⠉⠑⠒⠤⢄⣀       ⠈⠉⠒⠢⠤⣀⡀              ⠈⠉⠒⠤⢄⣀
     5.253 ┤ ◇⠉⠒⠢⠤⣀⡀   ⠉⠑⠒⠤□⣀       ⠈⠉⠒⠢⢄⣀               ⠉⠑⠒○⢄⣀
           ┤       ⠈⠉⠒⠢⠤⣀⡀   ⠉□⠢⠤⣀⡀       ⠉△⠒⠤⢄▲               ●⠑⠒⠤⢄⡀
           ┤             ⠈⠑◇⠤⢄◇   ⠈⠉⠒⠢⠤⣀⡀       ⠉⠑⠒⠤⢄⣀              ⠈⠉⠒⠢⠤⣀⡀
           ┤                   ⠉⠑⠒⠤⢄⣀   ⠈⠉⠒□⠤⣀        ⠉⠒⠢⠤⣀⡀              ⠈⠉⠒⠢⠤⣀●
     4.765 ┤                         ⠉⠑⠒⠤⣀⡀   ⠉■⠒⠤⢄⣀       ⠈△⠒⠢▲⣀⡀              ⠈⠉
           ┤                              ⠈◇⠒⠢⠤◆⡀   ⠉⠑⠒⠤⢄⣀       ⠈⠉⠒⠢⢄⣀
           ┤                                    ⠈⠉⠒⠢⠤⣀⡀   ⠉⠑□⠤⣀■       ⠉⠑⠒⠤⢄⣀
           ┤                                          ⠈⠑⠒⠤⢄⣀◇  ⠈⠉⠒⠢⠤⣀⡀       ⠉⠑⠒▲⢄
     4.323 ┤                                                ⠉⠑⠒◆⢄⣀   ⠈⠉⠒⠢⠤⣀
           ┤                                                      ⠉⠑⠒⠤⣀⡀   ⠉⠑⠒⠤⢄■
           ┤                                                           ⠈⠉⠒⠢⠤⣀⡀   ⠉
           ┤                                                                 ⠈⠉⠒◆⠤
           └────────┬───────┬───────┬──────────┬───────┬───────┬──────────┬───────
                   5e9    1e10    2e10       5e10    1e11    2e11       5e11
    ○ llama_study   △ tnl   □ hgrn2   ◇ cosformer2   filled: held out   dotted: fit

    excluded `tnl-s9`: diverged at step 3
    llama_study, tnl, hgrn2, cosformer2 envelope: 3 of 20 budgets left out: fewer than two sizes

    warning: llama_study, tnl, hgrn2, cosformer2 envelope: a noisy fit
    note: the largest run took 7.68e11 FLOPs; a study this small is a demonstration of the method and no evidence for decisions about larger models
    ");
}

#[test]
fn no_line_is_wider_than_80_columns_but_sentences() {
    let text = report().table();
    let is_sentence = |line: &str| {
        ["note:", "warning:", "("].iter().any(|p| line.starts_with(p)) || line.contains("left out:")
    };
    let wide: Vec<&str> =
        text.lines().filter(|line| line.chars().count() > 80 && !is_sentence(line)).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn a_provisional_report_says_so_and_an_empty_one_has_no_plot() {
    let empty = FitReport { is_provisional: true, groups: Vec::new(), ..report() };
    let text = empty.table();
    assert!(text.contains("provisional"), "{text}");
    assert!(!text.contains("over C, FLOPs"), "{text}");
}

#[test]
fn what_is_warned_of_a_comparison_is_said() {
    let mut report = report();
    report.comparisons[0].warnings = vec!["outside-data: C is twice the fitted".to_owned()];
    let text = report.table();
    let expected = "llama_study - tnl, chinchilla: outside-data: C is twice the fitted";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn groups_whose_intervals_were_made_otherwise_are_named() {
    let mut report = report();
    report.groups[3].fits[0].intervals = "leave-one-run-out jackknife".to_owned();
    let text = report.table();
    let expected = "intervals of llama_study, tnl, hgrn2: bootstrap by run, 1000 draws, seed 0\n\
                    intervals of cosformer2: leave-one-run-out jackknife\n";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn quiet_prints_the_groups() {
    assert_eq!(report().names(), ["llama_study", "tnl", "hgrn2", "cosformer2"]);
}
