//! The program as people run it: output, errors and exit statuses, without a coordinator.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod program;

use insta::{Settings, assert_snapshot};
use program::{gradus, shown};

const STUDY: &str = r"version: 1
name: tiny
data:
  corpora:
    - {name: plays, files: ['texts/*.txt']}
  tokenizer: {bpe: {vocab_size: 512}}
stages:
  - name: pretrain
    recipe:
      pretrain:
        model: {d_model: 32, n_layers: 2, n_heads: 2, ffn_hidden: 96}
        training:
          sequence_length: 128
          batch_sequences: 8
          optimizer: {learning_rate: 1e-3}
        axes:
          - {name: architecture, field: model.preset, values: [llama, tnl]}
        design: {fixed_tokens: {tokens: 1e6}}
";

/// A folder with a text, a study file and nothing else.
fn folder(study: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("texts")).unwrap();
    std::fs::write(folder.path().join("texts/a.txt"), "to be or not to be\n").unwrap();
    std::fs::write(folder.path().join("tiny.yaml"), study).unwrap();
    folder
}

fn with_filters(test: impl FnOnce()) {
    let mut settings = Settings::clone_current();
    // The system's text for a refused connection, and hashes.
    settings.add_filter(r"(?m)^  because: (error|client|tcp|Connection).*\n", "");
    settings.add_filter("[0-9a-f]{64}", "[hash]");
    settings.add_filter("r_[0-9a-f]{16}", "[run]");
    settings.bind(test);
}

#[test]
fn plan_prints_a_table_and_a_hint() {
    let folder = folder(STUDY);
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &["plan", "tiny.yaml"])), @r"
    status 0
    --- out
    study `tiny`, stage `pretrain` (pretrain)

    CELL       N  STEPS      D   D/N    FLOPS    MEMORY  POINTS
    llama  26.8k    977  1.00M  37.4  3.57e11  81.6 MiB      10
    tnl    28.7k    977  1.00M  34.9  3.04e11  83.5 MiB      10

    2 cells, 2 runs, 0 dropped; 2.00M tokens, 6.61e11 FLOPs (exact, head included)
    N without embeddings and head; D training tokens; memory estimated, beside libtorch
    --- err

    hint: `gradus apply tiny.yaml` hands it to a coordinator
    ");
    });
}

#[test]
fn plan_prints_json_that_is_the_apis_view() {
    let folder = folder(STUDY);
    let output = gradus(folder.path(), &["plan", "tiny.yaml", "--json"]);
    let view: api::PlanView = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((view.cells.len(), view.n_runs), (2, 2));
    assert!(output.stderr.is_empty(), "{}", shown(&output));
}

#[test]
fn quiet_prints_names_only() {
    let folder = folder(STUDY);
    let output = gradus(folder.path(), &["plan", "tiny.yaml", "--quiet"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "llama\ntnl\n");
    assert!(output.stderr.is_empty());
}

#[test]
fn an_unknown_key_is_one_error_with_its_place_and_nothing_is_stored() {
    let folder = folder(&STUDY.replace("sequence_length", "sequence_lenght"));
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &["apply", "tiny.yaml"])), @r"
    status 2
    --- out
    --- err
    error: tiny.yaml:13:11: `stages[0].recipe.pretrain.training.sequence_lenght`: unknown field `sequence_lenght`, expected one of `sequence_length`, `batch_sequences`, `seed`, `precision`, `optimizer`, `schedule`, `z_loss`, `stability`, `weight_average`; did you mean `sequence_length`?
    ");
    });
    assert!(!folder.path().join(".gradus").exists());
}

#[test]
fn an_impossible_shape_is_one_error_with_its_place() {
    let folder = folder(&STUDY.replace("d_model: 32", "d_model: 33"));
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &["plan", "tiny.yaml"])), @r"
    status 2
    --- out
    --- err
    error: tiny.yaml:11:17: `stages[0].recipe.pretrain.model.d_model`: cell `llama`: `d_model` is 33; valid: a multiple of `n_heads` 2, such as 32 or 34
    ");
    });
}

#[test]
fn a_budget_that_no_cell_meets_is_one_error_with_its_place() {
    let folder = folder(&STUDY.replace("fixed_tokens: {tokens: 1e6}", "isoflop: {budgets: [1e6]}"));
    let output = gradus(folder.path(), &["plan", "tiny.yaml"]);
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("tiny.yaml:18:38: `stages[0].recipe.pretrain.design.isoflop.budgets[0]`"),
        "{text}"
    );
}

#[test]
fn a_pattern_without_files_is_one_error_with_its_place() {
    let folder = folder(&STUDY.replace("texts/*.txt", "words/*.txt"));
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &["plan", "tiny.yaml"])), @r"
    status 2
    --- out
    --- err
    error: tiny.yaml:5:29: `data.corpora[0].files[0]`: `words/*.txt` matches no file in `.`; names are relative to the study file, and `*` stands for any part of a file name
    ");
    });
}

#[test]
fn a_missing_study_file_is_a_wrong_command() {
    let folder = folder(STUDY);
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &["plan", "no.yaml"])), @r"
    status 2
    --- out
    --- err
    error: could not read the study file `no.yaml`
      because: No such file or directory (os error 2)
    ");
    });
}

#[test]
fn a_folder_without_a_store_is_unreachable() {
    let folder = folder(STUDY);
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &["status"])), @r"
    status 3
    --- out
    --- err
    error: no coordinator is named, and there is no `./.gradus` here

    hint: `gradus up` starts one here; `--coordinator URL` names another
    ");
    });
    assert_eq!(gradus(folder.path(), &["apply", "tiny.yaml"]).status.code(), Some(3));
}

#[test]
fn a_coordinator_that_does_not_answer_is_unreachable() {
    let folder = folder(STUDY);
    // Port 1 is reserved and nobody listens there.
    let args = ["runs", "--coordinator", "http://127.0.0.1:1"];
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &args)), @r"
    status 3
    --- out
    --- err
    error: no coordinator answers at http://127.0.0.1:1

    hint: `gradus up` starts one here; `--coordinator URL` names another
    ");
    });
}

#[test]
fn a_dry_run_without_a_coordinator_still_shows_the_plan() {
    let folder = folder(STUDY);
    let output = gradus(folder.path(), &["apply", "tiny.yaml", "--dry-run"]);
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("no coordinator was asked"), "{text}");
}

#[test]
fn a_wrong_argument_is_a_wrong_command() {
    let folder = folder(STUDY);
    assert_eq!(gradus(folder.path(), &["pln"]).status.code(), Some(2));
    assert_eq!(gradus(folder.path(), &["up", "--workers", "0"]).status.code(), Some(2));
}

#[test]
fn schema_and_completions_need_nothing() {
    let folder = folder(STUDY);
    let schema = gradus(folder.path(), &["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).unwrap();
    assert!(schema.pointer("/properties/stages").is_some());
    let script = gradus(folder.path(), &["completions", "bash"]);
    assert!(String::from_utf8(script.stdout).unwrap().contains("--dry-run"));
}

/// L = 1.7 + 400/N^0.34 + 410/D^0.28 on a grid, as a file.
fn planted() -> String {
    let mut lines = vec!["params,tokens,flops,loss".to_owned()];
    for n in [1e6_f64, 3e6, 1e7, 3e7, 1e8, 3e8] {
        for d in [2e7_f64, 1e8, 5e8, 2e9] {
            let loss = 1.7 + 400.0 / n.powf(0.34) + 410.0 / d.powf(0.28);
            lines.push(format!("{n},{d},{},{loss}", 6.0 * n * d));
        }
    }
    lines.join("\n")
}

#[test]
fn a_law_is_fitted_to_a_file_and_finds_what_was_planted() {
    let folder = folder(STUDY);
    std::fs::write(folder.path().join("points.csv"), planted()).unwrap();
    let args = "fit --csv points.csv --law chinchilla --n params --d tokens --c flops --loss loss \
                --draws 200 --json";
    let args: Vec<&str> = args.split_whitespace().collect();
    let output = gradus(folder.path(), &args);
    let text = shown(&output);
    let fit: serde_json::Value = serde_json::from_slice(&output.stdout).expect(&text);
    for (name, planted) in [("E", 1.7), ("alpha", 0.34), ("beta", 0.28)] {
        let value = fit["coefficients"][name]["value"].as_f64().expect(&text);
        assert!((value - planted).abs() < 1e-3, "{name} = {value}");
    }
    assert_eq!(fit["n_runs"], 24);
    // One draw has too few numbers of tokens for the law.
    let intervals = "bootstrap by run in 6 strata, 200 draws, seed 0, 1 of them without a fit";
    assert_eq!(fit["intervals"], intervals);
    assert!(fit["warnings"].to_string().contains("without `--run COLUMN`"), "{text}");
    assert!(text.ends_with('\n'), "{text}");
}

#[test]
fn a_column_that_is_not_there_is_a_wrong_command() {
    let folder = folder(STUDY);
    std::fs::write(folder.path().join("points.csv"), planted()).unwrap();
    let args = ["fit", "--csv", "points.csv", "--law", "power", "--c", "flop", "--loss", "loss"];
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &args)), @r"
    status 2
    --- out
    --- err
    error: there is no column `flop`; the columns are `params`, `tokens`, `flops`, `loss`
    ");
    });
    let args = ["fit", "--csv", "points.csv", "--law", "powr", "--c", "flops", "--loss", "loss"];
    with_filters(|| {
        assert_snapshot!(shown(&gradus(folder.path(), &args)), @r"
    status 2
    --- out
    --- err
    error: no law is called `powr`; the laws are `power`, `power_floor`, `kaplan`, `chinchilla`, `coupled`, `overtraining`, `data_constrained`, `precision`, `broken_power`, `sigmoid`, `annealing`
    ");
    });
}

#[test]
fn rows_that_are_no_numbers_are_named_by_line() {
    let folder = folder(STUDY);
    std::fs::write(folder.path().join("points.csv"), "c,l\n1e10,3\n1e11,two\n").unwrap();
    let args = ["fit", "--csv", "points.csv", "--law", "power", "--c", "c", "--loss", "l"];
    let output = gradus(folder.path(), &args);
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("points.csv:3: `two` is not a number"), "{text}");
}
