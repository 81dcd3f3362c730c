//! Plans of small files through one `check` for good ones and one for bad ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::ids::ContentHash;
use domain::recipe::CellConfig;
use domain::spec::parse;
use insta::assert_snapshot;

use super::*;

mod limits;

const FIXED: &str = r"
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
        model: {n_layers: 2, n_heads: 2, ffn_hidden: 96}
        training:
          sequence_length: 128
          batch_sequences: 8
          optimizer: {learning_rate: 1e-3}
          schedule: {constant: {warmup_steps: 10}}
        axes:
          - {name: architecture, field: model.preset, values: [llama_study, tnl]}
          - name: size
            values:
              - {label: s1, model.d_model: 32}
              - {label: s2, model.d_model: 64, training.optimizer.learning_rate: 5e-4}
        design: {fixed_tokens: {tokens: 1e6}}
        checkpoints: {log_spaced: {count: 4, first_step: 20}}
fit: {group_by: architecture}
";

const ISOFLOP: (&str, &str) = (
    "design: {fixed_tokens: {tokens: 1e6}}",
    "design: {isoflop: {budgets: [3e10, 3e11], max_tokens_per_parameter: 30}}",
);

fn sources() -> Vec<CorpusHashes> {
    let hash = ContentHash::of(b"to be or not to be");
    vec![CorpusHashes { corpus: "plays".to_owned(), file_hashes: vec![hash] }]
}

#[track_caller]
fn try_plan(changes: &[(&str, &str)]) -> Result<Plan, SpecError> {
    let mut text = FIXED.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "`{from}` is not in the file");
        text = text.replacen(from, to, 1);
    }
    plan(&parse(&text, "tiny.yaml").unwrap(), &sources())
}

#[track_caller]
fn refusal(changes: &[(&str, &str)]) -> String {
    try_plan(changes).unwrap_err().to_string()
}

fn table(plan: &Plan) -> String {
    let view = plan_view(plan);
    let mut lines: Vec<String> = view
        .cells
        .iter()
        .map(|cell| {
            format!(
                "{} N={} P={} steps={} D={} C={:.4e} {:?}",
                cell.name,
                cell.parameters_non_embedding,
                cell.parameters_total,
                cell.steps,
                cell.tokens,
                cell.flops_exact,
                cell.data_point_steps
            )
        })
        .collect();
    lines.extend(view.dropped.iter().map(|cell| format!("dropped {}: {}", cell.name, cell.reason)));
    lines.extend(view.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines.join("\n")
}

#[test]
fn axes_multiply_in_order_and_tokens_are_rounded_up_to_whole_steps() {
    assert_snapshot!(table(&try_plan(&[]).unwrap()), @r"
    llama_study-s1 N=26944 P=43328 steps=977 D=1000448 C=3.5651e11 [20, 73, 267, 977]
    llama_study-s2 N=70272 P=103040 steps=977 D=1000448 C=8.1137e11 [20, 73, 267, 977]
    tnl-s1 N=28672 P=45056 steps=977 D=1000448 C=3.0426e11 [20, 73, 267, 977]
    tnl-s2 N=77824 P=110592 steps=977 D=1000448 C=7.9908e11 [20, 73, 267, 977]
    ");
}

#[test]
fn budgets_buy_tokens_and_what_is_out_of_range_is_dropped_with_the_reason() {
    assert_snapshot!(table(&try_plan(&[ISOFLOP]).unwrap()), @r"
    llama_study-s1-3e10 N=26944 P=43328 steps=82 D=83968 C=2.9922e10 [20, 32, 51, 82]
    llama_study-s2-3e10 N=70272 P=103040 steps=36 D=36864 C=2.9897e10 [20, 24, 30, 36]
    llama_study-s2-3e11 N=70272 P=103040 steps=361 D=369664 C=2.9980e11 [20, 52, 138, 361]
    tnl-s1-3e10 N=28672 P=45056 steps=96 D=98304 C=2.9897e10 [20, 34, 57, 96]
    tnl-s2-3e10 N=77824 P=110592 steps=37 D=37888 C=3.0262e10 [20, 25, 30, 37]
    tnl-s2-3e11 N=77824 P=110592 steps=367 D=375808 C=3.0017e11 [20, 53, 139, 367]
    dropped llama_study-s1-3e11: 8.417e5 tokens on 2.694e4 parameters are 31.240 tokens per parameter; the maximum is 30
    dropped tnl-s1-3e11: 9.861e5 tokens on 2.867e4 parameters are 34.393 tokens per parameter; the maximum is 30
    ");
}

#[test]
fn an_axis_may_set_the_training_and_its_numbers_carry_its_name() {
    let plan = try_plan(&[
        (
            "- {name: architecture, field: model.preset, values: [llama_study, tnl]}",
            "- {name: seed, field: training.seed, values: [0, 7]}",
        ),
        ("model: {", "model: {preset: hgrn2, "),
        ("group_by: architecture", "group_by: seed"),
    ])
    .unwrap();
    let names: Vec<&str> = plan.cells.iter().map(|cell| cell.name.as_str()).collect();
    assert_eq!(names, ["seed0-s1", "seed0-s2", "seed7-s1", "seed7-s2"]);
    let domain::recipe::CellConfig::Pretrain(last) = plan.cells[3].config();
    assert_eq!((last.training.seed, last.training.optimizer.learning_rate), (7, Some(5e-4)));
    assert_eq!(plan.cells[3].axis_values.get("seed"), Some("7"));
}

#[test]
fn what_seeds_share_changes_no_cell() {
    // Aim: a cell is what it is, whether or not others with its configuration stand beside it.
    // Method: an axis of seeds alone, and the same seeds beside another field, which shares nothing.
    let [axis, size] = RATES;
    let numbers = "training.optimizer.learning_rate, values: [1e-3, 2e-3]";
    let alone = (numbers, "training.seed, values: [0, 7, 4294967295]");
    let bundles: Vec<String> = [0, 7, 4_294_967_295_u32]
        .map(|seed| format!("{{label: rate{seed}, training.seed: {seed}, training.z_loss: 0}}"))
        .into();
    let bundles = format!("values: [{}]}}", bundles.join(", "));
    let field = "field: training.optimizer.learning_rate, values: [1e-3, 2e-3]}";
    let shared = try_plan(&[axis, size, alone]).unwrap();
    let apart = try_plan(&[axis, size, (field, &bundles)]).unwrap();
    assert_eq!(shared.cells.len(), 12);
    assert!(Arc::ptr_eq(&shared.cells[0].seedless, &shared.cells[4].seedless));
    for (one, other) in shared.cells.iter().zip(&apart.cells) {
        let identity = one.config().identity().unwrap();
        assert_eq!(one.canonical_json().unwrap(), identity.canonical_json);
        assert_eq!(one.identity_hash, identity.hash);
        assert_eq!(one.config(), other.config());
        assert_eq!((&one.name, &one.run_id), (&other.name, &other.run_id));
        let view = |cell| api::PlannedCellView { axis_values: BTreeMap::new(), ..cell_view(cell) };
        assert_eq!(view(one), view(other));
    }
}

#[test]
fn a_seed_that_is_none_is_refused_at_its_value() {
    let [axis, size] = RATES;
    let numbers = "training.optimizer.learning_rate, values: [1e-3, 2e-3]";
    let refused = |values| refusal(&[axis, size, (numbers, values)]);
    assert_snapshot!(refused("training.seed, values: [0, -1]"), @"tiny.yaml:19:60: `stages[0].recipe.pretrain.axes[0].values[1]`: cell `rate-1-llama_study-s1`: invalid value: integer `-1`, expected u32");
    assert_snapshot!(refused("training.seed, values: [0, 4294967296]"), @"tiny.yaml:19:60: `stages[0].recipe.pretrain.axes[0].values[1]`: cell `rate4294967296-llama_study-s1`: invalid value: integer `4294967296`, expected u32");
}

#[test]
fn an_axis_may_set_what_the_study_leaves_at_its_default() {
    // Aim: keys that a cell's identity leaves out are fields too. Method: the value of the default
    // makes the run that the study without the axis makes, and another value another run.
    let wsd = ("constant: {warmup_steps: 10}", "wsd: {warmup_steps: 10, decay_share: 0.2}");
    let without = run_ids(&try_plan(&[wsd]).unwrap());
    for (field, default, other) in [
        ("schedule.wsd.decay", "linear", "one_minus_sqrt"),
        ("stability.non_finite", "stop", "{skip: {at_most_in_a_row: 3}}"),
        ("z_loss", "0", "1e-4"),
        ("weight_average", "null", "{ema: {decay: 0.99}}"),
        ("stability.loss_spike", "null", "{above_nats: 1.0, window_steps: 20}"),
    ] {
        let values = format!(
            "axes:\n          - name: rule\n            values:\n              \
             - {{label: usual, training.{field}: {default}}}\n              \
             - {{label: other, training.{field}: {other}}}"
        );
        let runs = run_ids(&try_plan(&[wsd, ("axes:", &values)]).unwrap());
        assert_eq!(runs[..4], without, "{field}");
        assert!(runs[4..].iter().all(|run| !without.contains(run)), "{field}");
    }
}

fn run_ids(plan: &Plan) -> Vec<String> {
    plan.cells.iter().map(|cell| cell.run_id.to_string()).collect()
}

#[test]
fn a_field_that_its_own_bundle_takes_away_is_refused() {
    // The keys of a bundle are set in the order of their names.
    let taken = "{label: s1, training.schedule: {cosine: {warmup_steps: 3}}, \
                 training.schedule.constant.warmup_steps: 5, model.d_model: 32}";
    let message = refusal(&[("{label: s1, model.d_model: 32}", taken)]);
    assert!(
        message.contains("`training.schedule.constant.warmup_steps` is no longer"),
        "{message}"
    );
}

#[test]
fn a_study_without_learning_rate_gets_the_default_of_each_width_as_if_it_were_written() {
    let cells = |changes: &[(&str, &str)]| -> Vec<_> {
        let plan = try_plan(changes).unwrap();
        plan.cells.iter().map(|cell| (cell.name.clone(), cell.config())).collect()
    };
    let no_rate = ("optimizer: {learning_rate: 1e-3}", "optimizer: {beta1: 0.9}");
    let none_at_all = ("          optimizer: {learning_rate: 1e-3}\n", "");
    let no_second_rate = (", training.optimizer.learning_rate: 5e-4", "");
    let found = cells(&[no_rate, no_second_rate]);
    let rates = found.iter().map(|(name, config)| {
        let domain::recipe::CellConfig::Pretrain(cell) = config;
        (name.as_str(), cell.training.optimizer.learning_rate.unwrap())
    });
    let by_width = [("s1", 4.8e-3), ("s2", 2.4e-3)];
    for ((name, rate), (size, expected)) in rates.zip(by_width.into_iter().cycle()) {
        assert!(name.ends_with(size) && (rate / expected - 1.0_f64).abs() < 1e-12, "{name} {rate}");
    }
    assert_eq!(cells(&[none_at_all, no_second_rate]), found);
    // A rate that an axis sets for one size leaves the default to the other.
    let mixed = cells(&[no_rate]);
    let domain::recipe::CellConfig::Pretrain(second) = &mixed[1].1;
    assert_eq!(second.training.optimizer.learning_rate, Some(5e-4));
    assert_eq!(mixed[0], found[0]);
}

#[test]
fn equal_configurations_are_one_run_with_a_warning() {
    let plan = try_plan(&[(
        "model.d_model: 64, training.optimizer.learning_rate: 5e-4",
        "model.d_model: 32",
    )]);
    let view = plan_view(&plan.unwrap());
    assert_eq!((view.cells.len(), view.n_runs), (4, 2));
    assert!(view.warnings[0].contains("trained once"), "{:?}", view.warnings);
}

#[test]
fn slots_that_only_wait_are_warned_of() {
    let with = |slots: u32| {
        let runtime = format!("version: 1\nruntime: {{placement: {{slots: {slots}}}}}");
        try_plan(&[("version: 1", &runtime)]).unwrap().warnings
    };
    assert!(with(1).is_empty());
    assert!(with(4)[0].starts_with("`runtime.placement.slots` is 4: "), "{:?}", with(4));
}

#[test]
fn other_sources_make_other_runs_and_equal_ones_the_same() {
    let plan_of = |text: &[u8]| {
        let mut sources = sources();
        sources[0].file_hashes = vec![ContentHash::of(text)];
        plan(&parse(FIXED, "a.yaml").unwrap(), &sources).unwrap().cells[0].run_id.clone()
    };
    assert_eq!(plan_of(b"a"), plan_of(b"a"));
    assert_ne!(plan_of(b"a"), plan_of(b"b"));
}

#[test]
fn more_files_than_an_assignment_can_name_are_refused_with_both_numbers() {
    let plan_of = |n_files: usize| {
        let mut sources = sources();
        sources[0].file_hashes = vec![ContentHash::of(b"text"); n_files];
        plan(&parse(FIXED, "a.yaml").unwrap(), &sources).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(plan_of(100_000), Ok(()));
    let refused = plan_of(100_001).unwrap_err();
    assert!(refused.contains("100001 files") && refused.contains("may have 100000"), "{refused}");
}

#[test]
fn a_decaying_schedule_under_an_envelope_is_warned_of() {
    let plan = try_plan(&[("{constant: {warmup_steps: 10}}", "{cosine: {warmup_steps: 10}}")]);
    assert_snapshot!(plan.unwrap().warnings.join("\n"), @"`fit.methods` has `envelope` and `chinchilla`, but the learning rate of `llama_study-s1` decays: its checkpoints on the way are not comparable with the ends of shorter runs; use a constant schedule, or `checkpoints: final`");
}

#[test]
fn a_decaying_schedule_under_a_parametric_law_alone_is_warned_of() {
    let cosine = ("{constant: {warmup_steps: 10}}", "{cosine: {warmup_steps: 10}}");
    let warnings = |methods| try_plan(&[cosine, ("fit: {", methods)]).unwrap().warnings;
    let only = warnings("fit: {methods: [chinchilla], ");
    assert!(only[0].starts_with("`fit.methods` has `chinchilla`, but"), "{only:?}");
    let isoflop = warnings("fit: {methods: [isoflop], ");
    assert!(isoflop.iter().all(|text| !text.contains("decays")), "{isoflop:?}");
}

#[test]
fn a_short_decay_says_where_it_ends_and_one_of_a_single_step_is_refused() {
    let steps = try_plan(&[])
        .unwrap()
        .cells
        .iter()
        .map(|cell| {
            let CellConfig::Pretrain(config) = cell.config();
            config.steps
        })
        .min()
        .unwrap();
    let decay_over = |n: u64| {
        let share = (n as f64 - 0.5) / steps as f64;
        let wsd = format!("{{wsd: {{warmup_steps: 10, decay_share: {share}}}}}");
        try_plan(&[("{constant: {warmup_steps: 10}}", wsd.as_str())])
    };
    let warnings = decay_over(4).unwrap().warnings;
    let said = warnings.iter().find(|text| text.contains("decay over fewer")).unwrap();
    assert!(said.contains("over 4, and ends at 0.25 of the peak"), "{said}");
    let refused = decay_over(1).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("would not lower the rate"), "{refused}");
}

/// An axis of learning rates, and the size's own taken out.
const RATES: [(&str, &str); 2] = [
    (
        "axes:",
        "axes:\n          - {name: rate, field: training.optimizer.learning_rate, \
         values: [1e-3, 2e-3]}",
    ),
    (", training.optimizer.learning_rate: 5e-4", ""),
];

#[test]
fn cells_of_one_size_that_differ_in_more_than_the_seed_are_warned_of() {
    let warnings = try_plan(&RATES).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let expected = "`rate0.001-llama_study-s1` and `rate0.002-llama_study-s1` have the same N in one \
                    group of the fit and differ in `rate`, not only in the seed";
    assert!(warnings[0].starts_with(expected), "{warnings:?}");
    let [axis, size] = RATES;
    assert_eq!(try_plan(&[axis, size, ISOFLOP]).unwrap().warnings.len(), 1);
}

#[test]
fn seeds_and_groups_are_not_warned_of() {
    let seeds =
        ("training.optimizer.learning_rate, values: [1e-3, 2e-3]", "training.seed, values: [0, 1]");
    let [axis, size] = RATES;
    assert!(try_plan(&[axis, size, seeds]).unwrap().warnings.is_empty());
    let preset = ("[llama_study, tnl]", "[llama_study]");
    let group = ("group_by: architecture", "group_by: rate");
    assert!(try_plan(&[axis, size, preset, group]).unwrap().warnings.is_empty());
}

#[test]
fn so_many_sequences_of_unlike_lengths_are_warned_of() {
    let lengths = ("training.optimizer.learning_rate: 5e-4", "training.sequence_length: 256");
    assert!(try_plan(&[lengths]).unwrap().warnings.is_empty());
    let evaluate = (
        "checkpoints: {",
        "evaluate: [{task: validation_loss, sequences: 64}]\n        checkpoints: {",
    );
    let warnings = try_plan(&[lengths, evaluate]).unwrap().warnings;
    assert!(warnings[0].contains("differs between cells (128 to 256)"), "{warnings:?}");
}

#[test]
fn a_warm_up_that_overlaps_the_decay_is_refused_or_dropped() {
    let wsd =
        |warmup_steps: u64| format!("{{wsd: {{warmup_steps: {warmup_steps}, decay_share: 0.5}}}}");
    let from = "{constant: {warmup_steps: 10}}";
    let problem = refusal(&[(from, &wsd(500))]);
    assert!(problem.contains("`stages[0].recipe.pretrain.training.schedule`"), "{problem}");
    assert!(problem.contains("overlap in a run of 977 steps"), "{problem}");
    let plan = try_plan(&[ISOFLOP, (from, &wsd(20))]).unwrap();
    let reasons: Vec<&str> = plan.dropped.iter().map(|cell| cell.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("overlap in a run of 36")), "{reasons:?}");
}

#[test]
fn budgets_that_rounding_blurs_are_refused_at_the_later_one() {
    let problem = refusal(&[ISOFLOP, ("[3e10, 3e11]", "[3e10, 3e11, 3.1e10]")]);
    assert!(
        problem.contains(
            "`stages[0].recipe.pretrain.design.isoflop.budgets[2]`: the budget 3.1e10 is closer \
             than 5 % to the earlier 3e10"
        ),
        "{problem}"
    );
}

#[test]
fn an_impossible_shape_is_refused_at_the_axis_value_that_makes_it() {
    assert_snapshot!(refusal(&[("model.d_model: 64", "model.d_model: 63")]), @"tiny.yaml:23:29: `stages[0].recipe.pretrain.axes[1].values[1].model.d_model`: cell `llama_study-s2`: `d_model` is 63; valid: a multiple of `n_heads` 2, such as 62 or 64");
}

#[test]
fn an_impossible_shape_is_refused_at_the_model_key_that_makes_it() {
    assert_snapshot!(refusal(&[("ffn_hidden: 96", "ffn_hidden: 0")]), @"tiny.yaml:12:42: `stages[0].recipe.pretrain.model.ffn_hidden`: cell `llama_study-s1`: `ffn_hidden` is 0; valid: 1 to 16777216");
}

#[test]
fn an_unknown_model_key_is_refused_with_the_nearest_name() {
    assert_snapshot!(refusal(&[("n_layers: 2", "n_layer: 2")]), @"tiny.yaml:12:17: `stages[0].recipe.pretrain.model.n_layer`: cell `llama_study-s1`: unknown key `n_layer`; did you mean `n_layers`?");
}

#[test]
fn an_unknown_field_of_an_axis_is_refused_with_the_nearest_name() {
    assert_snapshot!(refusal(&[("{label: s1, model.d_model", "{label: s1, model.d_modle")]), @"tiny.yaml:22:29: `stages[0].recipe.pretrain.axes[1].values[0].model.d_modle`: `model.d_modle` is no field that an axis can set; did you mean `model.d_model`?");
    assert_snapshot!(refusal(&[("field: model.preset", "field: model.presset")]), @"tiny.yaml:19:34: `stages[0].recipe.pretrain.axes[0].field`: `model.presset` is no field that an axis can set; did you mean `model.preset`?");
}

#[test]
fn an_unknown_preset_is_refused_with_the_nearest_name() {
    assert_snapshot!(refusal(&[("values: [llama_study", "values: [lama_study")]), @r#"tiny.yaml:19:64: `stages[0].recipe.pretrain.axes[0].values[0]`: cell `lama_study-s1`: `preset` is "lama_study"; valid: `llama`, `llama_study`, `tnl`, `hgrn2`, `cosformer2`; did you mean `llama_study`?"#);
}

#[test]
fn the_vocabulary_is_the_tokenizers() {
    assert_snapshot!(refusal(&[("model: {", "model: {vocab_size: 7, ")]), @"tiny.yaml:12:17: `stages[0].recipe.pretrain.model.vocab_size`: the vocabulary's size comes from `data.tokenizer`; leave the key out");
}

#[test]
fn a_value_of_a_wrong_type_or_range_is_refused_at_the_axis() {
    assert_snapshot!(refusal(&[("learning_rate: 5e-4", "learning_rate: -5")]), @"tiny.yaml:23:48: `stages[0].recipe.pretrain.axes[1].values[1].training.optimizer.learning_rate`: cell `llama_study-s2`: `-5` is out of range; above 0");
    assert_snapshot!(refusal(&[("learning_rate: 5e-4", "learning_rate: fast")]), @r#"tiny.yaml:23:48: `stages[0].recipe.pretrain.axes[1].values[1].training.optimizer.learning_rate`: cell `llama_study-s2`: invalid type: string "fast", expected f64"#);
}

#[test]
fn a_budget_that_no_cell_meets_is_refused_with_the_first_reasons() {
    assert_snapshot!(refusal(&[ISOFLOP, ("[3e10, 3e11]", "[3e11, 3e8]")]), @"tiny.yaml:24:44: `stages[0].recipe.pretrain.design.isoflop.budgets[1]`: no cell meets the budget 3e8: `llama_study-s1-3e8`: 3e8 FLOPs buy 1 steps of 3.649e8 FLOPs; at least 20 are needed; `llama_study-s2-3e8`: 3e8 FLOPs buy 0 steps of 8.305e8 FLOPs; at least 20 are needed; `tnl-s1-3e8`: 3e8 FLOPs buy 1 steps of 3.114e8 FLOPs; at least 20 are needed");
}

#[test]
fn a_warm_up_longer_than_the_run_is_refused() {
    assert_snapshot!(refusal(&[("warmup_steps: 10", "warmup_steps: 5000")]), @"tiny.yaml:17:11: `stages[0].recipe.pretrain.training.schedule`: cell `llama_study-s1`: the warm-up of 5000 steps is not shorter than the run of 977 steps");
}

#[test]
fn equal_names_are_refused() {
    let same = "- {label: s1, model.d_model: 32}\n              - {label: s1, model.d_model: 64}";
    assert_snapshot!(refusal(&[("- {label: s1, model.d_model: 32}", same)]), @"tiny.yaml:23:17: `stages[0].recipe.pretrain.axes[1].values[1]`: `s1` stands in this axis already");
}

#[test]
fn two_axes_on_one_field_are_refused() {
    let twice = "{label: s1, model.preset: tnl, model.d_model: 32}";
    assert_snapshot!(refusal(&[("{label: s1, model.d_model: 32}", twice)]), @"tiny.yaml:22:29: `stages[0].recipe.pretrain.axes[1].values[0].model.preset`: `model.preset` is set by an earlier axis already");
}

#[test]
fn grouping_by_what_is_no_axis_is_refused() {
    assert_snapshot!(refusal(&[("group_by: architecture", "group_by: arcitecture")]), @"tiny.yaml:26:7: `fit.group_by`: `arcitecture` is no axis; did you mean `architecture`?");
}

#[test]
fn a_corpus_without_files_is_refused() {
    let error = plan(&parse(FIXED, "tiny.yaml").unwrap(), &[]).unwrap_err();
    assert_snapshot!(error, @"tiny.yaml:6:21: `data.corpora[0].files`: no file matches; `plays` needs at least one");
}

#[test]
fn memory_grows_with_the_micro_batch_and_covers_the_states() {
    let whole = try_plan(&[]).unwrap().cells[0].seedless.memory_bytes;
    let micro = try_plan(&[("fit: {", "runtime: {micro_batch_sequences: 1}\nfit: {")]).unwrap();
    let states = 16 * plan_view(&micro).cells[0].parameters_total;
    let of_micro = micro.cells[0].seedless.memory_bytes;
    assert!(states < of_micro && of_micro < whole);
}

/// Two sizes under a schedule with a trunk, in a study that shares them.
fn shared(budgets: &str, more: &[(&str, &str)]) -> Plan {
    let budgets = format!("design: {{isoflop: {{budgets: {budgets}}}}}");
    let base = [
        ("[llama_study, tnl]", "[llama_study]"),
        ("constant: {warmup_steps: 10}", "wsd: {warmup_steps: 10, decay_share: 0.2}"),
        ("design: {fixed_tokens: {tokens: 1e6}}", budgets.as_str()),
    ];
    let text = try_plan(&base.iter().chain(more).copied().collect::<Vec<_>>());
    text.unwrap()
}

/// Per cell its name, where it leaves the trunk, and where it goes on from.
fn trunks(plan: &Plan) -> Vec<String> {
    let name = |run: &domain::ids::RunId| {
        let cell = plan.cells.iter().find(|cell| cell.run_id == *run);
        cell.map_or("?", |cell| cell.name.as_str())
    };
    let line = |cell: &PlannedCell| match cell.trunk.as_deref() {
        None => format!("{}: none", cell.name),
        Some(PlannedTrunk { steps, from: None }) => format!("{}: {steps}", cell.name),
        Some(PlannedTrunk { steps, from: Some((run, step)) }) => {
            format!("{}: {steps}, from {} at {step}", cell.name, name(run))
        }
    };
    plan.cells.iter().map(line).collect()
}

const SHARE: (&str, &str) = ("\nfit:", "\nruntime: {share_trunks: true}\nfit:");
const FINAL: (&str, &str) =
    ("checkpoints: {log_spaced: {count: 4, first_step: 20}}", "checkpoints: final");

#[test]
fn the_longer_runs_of_a_size_go_on_from_the_shorter_ones() {
    let plan = shared("[1.2e11, 3e10, 6e10]", &[SHARE, FINAL]);
    assert_eq!(
        trunks(&plan),
        [
            "llama_study-s1-1.2e11: 264, from llama_study-s1-6e10 at 132",
            "llama_study-s1-3e10: 66",
            "llama_study-s1-6e10: 132, from llama_study-s1-3e10 at 66",
            "llama_study-s2-1.2e11: 116, from llama_study-s2-6e10 at 58",
            "llama_study-s2-3e10: 29",
            "llama_study-s2-6e10: 58, from llama_study-s2-3e10 at 29",
        ]
    );
    let view = plan_view(&plan);
    let saved = view.flops_exact_shared / view.flops_exact_total;
    // Of 7 parts, 0.8 + 1.6 are trained once.
    assert!((saved - 2.4 / 7.0).abs() < 0.01, "{saved}");
    assert_eq!(view.cells[0].continues.as_ref().unwrap().step, 132);
    let apart = shared("[1.2e11, 3e10, 6e10]", &[FINAL]);
    assert!(apart.cells.iter().all(|cell| cell.trunk.is_none()));
    assert_eq!(run_ids(&apart), run_ids(&plan), "what is trained is the same");
    assert_eq!(plan_view(&apart).flops_exact_shared, 0.0);
}

#[test]
fn a_run_with_data_points_on_the_trunk_trains_it() {
    let plan = shared("[3e10, 6e10]", &[SHARE]);
    assert!(trunks(&plan).iter().all(|line| !line.contains("from")), "{:?}", trunks(&plan));
}

#[test]
fn decays_from_one_step_go_on_from_one_run() {
    let decay = "axes:\n          - {name: decay, field: training.schedule.wsd.decay, values: \
                 [linear, one_minus_sqrt]}";
    let plan = shared("[3e10, 6e10]", &[SHARE, FINAL, ("axes:", decay)]);
    let lines = trunks(&plan);
    let of_size: Vec<&String> = lines.iter().filter(|line| line.contains("s1-")).collect();
    assert_eq!(of_size.len(), 4);
    // One of the shorter pair trains the trunk; the other, and one of the longer pair, go on from it
    // at its branch; the fourth goes on from the third at the longer one's.
    let ends = |step: &str| of_size.iter().filter(|line| line.ends_with(step)).count();
    assert_eq!((ends(": 66"), ends(" at 66"), ends(" at 132")), (1, 2, 1), "{lines:#?}");
}
