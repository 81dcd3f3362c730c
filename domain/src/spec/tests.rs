//! One `check` for good files and one for bad ones.

use super::*;

const GOOD: &str = r"
version: 1
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
          schedule: {constant: {warmup_steps: 10}}
        axes:
          - {name: architecture, field: model.preset, values: [llama, tnl]}
        design: {fixed_tokens: {tokens: 1e6}}
";

#[track_caller]
fn check_bad(from: &str, to: &str, place: (u64, u64), path: &str, says: &str) {
    assert!(GOOD.contains(from), "`{from}` is not in the good file");
    let error = parse(&GOOD.replacen(from, to, 1), "tiny.yaml").unwrap_err();
    assert_eq!((error.place.line, error.place.column), place, "{error}");
    assert_eq!(error.path, path, "{error}");
    assert!(error.problem.contains(says), "{error}");
}

#[test]
fn a_good_file_is_read_with_its_defaults() {
    let spec = parse(GOOD, "tiny.yaml").unwrap().spec;
    let RecipeSpec::Pretrain(pretrain) = &spec.stages[0].recipe;
    assert_eq!(pretrain.design, DesignSpec::FixedTokens { tokens: 1_000_000 });
    assert_eq!(pretrain.training.optimizer.learning_rate, Some(1e-3));
    assert_eq!(pretrain.training.optimizer.beta2, 0.95);
    assert_eq!(spec.data.tokenizer.vocab_size(), 512);
}

#[test]
fn an_unknown_key_names_the_nearest_valid_one() {
    check_bad(
        "sequence_length",
        "sequence_lenght",
        (14, 11),
        "stages[0].recipe.pretrain.training.sequence_lenght",
        "did you mean `sequence_length`?",
    );
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    check_bad(
        "batch_sequences: 8",
        "batch_sequences: eight",
        (15, 11),
        "stages[0].recipe.pretrain.training.batch_sequences",
        "expected u32",
    );
}

#[test]
fn a_value_out_of_range_says_the_range() {
    check_bad(
        "learning_rate: 1e-3",
        "learning_rate: -1",
        (16, 23),
        "stages[0].recipe.pretrain.training.optimizer.learning_rate",
        "above 0",
    );
    let batch = "batch_sequences: 8";
    let training = "stages[0].recipe.pretrain.training";
    for (line, at, path, says) in [
        ("z_loss: -1", 11, "z_loss", "at least 0"),
        ("weight_average: {ema: {decay: 1}}", 34, "weight_average.ema.decay", "below 1"),
        (
            "stability: {loss_spike: {above_nats: 0, window_steps: 9}}",
            36,
            "stability.loss_spike.above_nats",
            "above 0",
        ),
        (
            "stability: {loss_spike: {above_nats: 1, window_steps: 0}}",
            51,
            "stability.loss_spike.window_steps",
            "at least 1",
        ),
    ] {
        let to = format!("{batch}\n          {line}");
        check_bad(batch, &to, (16, at), &format!("{training}.{path}"), says);
    }
    check_bad("vocab_size: 512", "vocab_size: 3", (7, 21), "data.tokenizer.bpe.vocab_size", "257");
}

#[test]
fn a_weight_out_of_range_says_the_range() {
    for weight in ["0", "-1", "1e9"] {
        let to = format!("version: 1\nruntime: {{weight: {weight}}}");
        check_bad("version: 1", &to, (3, 11), "runtime.weight", "0.001 to 1000");
    }
}

#[test]
fn what_the_runtime_says_wrongly_is_named() {
    for (line, column, path, says) in [
        ("budget_flops: 0", 11, "runtime.budget_flops", "above 0"),
        ("placement: {labels: {pool: a b}}", 23, "runtime.placement.labels", "`pool: a b`"),
        ("placement: {device: gpu}", 23, "runtime.placement.device", "cuda"),
        (
            "log_rules: [{pattern: \"a(\", action: stop_retries}]",
            24,
            "runtime.log_rules[0].pattern",
            "unclosed group",
        ),
        (
            "log_rules: [{pattern: \"\", action: stop_retries}]",
            24,
            "runtime.log_rules[0].pattern",
            "empty",
        ),
    ] {
        let to = format!("version: 1\nruntime: {{{line}}}");
        check_bad("version: 1", &to, (3, column), path, says);
    }
}

#[test]
fn only_true_and_false_are_booleans() {
    let values = "values: [off, no, yes, y, 'true', true]";
    let text = GOOD.replacen("values: [llama, tnl]", values, 1);
    let RecipeSpec::Pretrain(pretrain) =
        parse(&text, "x.yaml").unwrap().spec.stages[0].recipe.clone();
    let expected = serde_json::json!(["off", "no", "yes", "y", "true", true]);
    assert_eq!(Value::Array(pretrain.axes[0].values.clone()), expected);
    let label = "values: [{label: off, model.preset: tnl}]";
    let text = GOOD.replacen("field: model.preset, values: [llama, tnl]", label, 1);
    let RecipeSpec::Pretrain(pretrain) =
        parse(&text, "x.yaml").unwrap().spec.stages[0].recipe.clone();
    assert_eq!(pretrain.axes[0].values[0]["label"], "off");
    let to = "version: 1\nruntime: {share_trunks: yes}";
    let says = "string \"yes\", expected a boolean: `true` or `false`";
    check_bad("version: 1", to, (3, 11), "runtime.share_trunks", says);
}

#[test]
fn corpora_of_one_name_are_refused_at_the_later_one() {
    let corpus = "    - {name: plays, files: ['texts/*.txt']}\n";
    let twice = corpus.repeat(2);
    check_bad(corpus, &twice, (7, 8), "data.corpora[1].name", "the name of an earlier corpus");
}

#[test]
fn more_data_points_than_can_be_kept_are_refused_with_the_range() {
    let design = "design: {fixed_tokens: {tokens: 1e6}}";
    let with =
        |count: &str| format!("{design}\n        checkpoints: {{log_spaced: {{count: {count}}}}}");
    assert!(parse(&GOOD.replacen(design, &with("10000"), 1), "x.yaml").is_ok());
    let path = "stages[0].recipe.pretrain.checkpoints.log_spaced.count";
    for count in ["0", "10001", "1000000000"] {
        let says = format!("`{count}` is out of range; 1 to 10000");
        check_bad(design, &with(count), (21, 36), path, &says);
    }
}

#[test]
fn an_eps_that_float32_would_take_for_zero_is_refused() {
    let rate = "learning_rate: 1e-3";
    assert!(parse(&GOOD.replacen(rate, "eps: 1e-38", 1), "x.yaml").is_ok());
    let path = "stages[0].recipe.pretrain.training.optimizer.eps";
    check_bad(rate, "eps: 1e-39", (16, 23), path, "1e-38 or above");
}

#[test]
fn a_method_that_is_named_twice_is_refused() {
    let to = "version: 1\nfit: {methods: [power, envelope, power]}";
    check_bad("version: 1", to, (3, 7), "fit.methods", "`power`: it is named twice");
}

#[test]
fn an_axis_without_values_is_refused() {
    check_bad(
        "values: [llama, tnl]",
        "values: []",
        (19, 55),
        "stages[0].recipe.pretrain.axes[0].values",
        "empty",
    );
}

#[test]
fn a_task_that_is_measured_twice_is_refused() {
    let design = "design: {fixed_tokens: {tokens: 1e6}}";
    let evaluate = |second: &str| {
        let first = "evaluate:\n          - {task: validation_loss, sequences: 8}";
        GOOD.replacen(design, &format!("{design}\n        {first}{second}"), 1)
    };
    assert!(parse(&evaluate(""), "tiny.yaml").is_ok());
    let twice = evaluate("\n          - {task: validation_loss}");
    let error = parse(&twice, "tiny.yaml").unwrap_err();
    assert_eq!(error.path, "stages[0].recipe.pretrain.evaluate[1].task", "{error}");
    assert!(error.problem.contains("earlier entry"), "{error}");
}

#[test]
fn a_newer_version_is_refused_before_its_keys_are_judged() {
    check_bad("version: 1", "version: 2\nnovel: yes", (2, 1), "version", "reads 1");
}

#[test]
fn text_that_is_no_yaml_is_refused_with_its_place() {
    let error = parse("version: 1\nname: [a\n", "x.yaml").unwrap_err();
    assert!(error.problem.starts_with("not readable as YAML"), "{error}");
    assert!(error.place.line >= 2, "{error}");
}

#[test]
fn a_repeated_key_is_refused() {
    let error = parse(&GOOD.replacen("name: tiny", "name: tiny\nname: twice", 1), "x.yaml");
    assert!(error.is_err());
}

#[test]
fn the_schema_knows_every_part() {
    let schema = json_schema().to_string();
    for key in ["sequence_length", "isoflop", "hold_out", "rolling_checkpoint_seconds"] {
        assert!(schema.contains(key), "{key}");
    }
}
