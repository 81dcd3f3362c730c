//! What is too much, too little or twice: refusals and warnings.

use super::*;

const TOKENS: &str = "tokens: 1e6";
const CONSTANT: &str = "{constant: {warmup_steps: 10}}";
const LOG_SPACED: &str = "checkpoints: {log_spaced: {count: 4, first_step: 20}}";

/// The warning that says something, among those of a plan.
#[track_caller]
fn warning(changes: &[(&str, &str)], says: &str) -> Option<String> {
    try_plan(changes).unwrap().warnings.into_iter().find(|text| text.contains(says))
}

#[test]
fn more_fixed_tokens_than_numbers_are_exact_for_are_refused_with_the_bound() {
    let refused = |tokens: &str| refusal(&[(TOKENS, tokens)]);
    assert_snapshot!(refused("tokens: 18446744073709551615"), @"tiny.yaml:24:33: `stages[0].recipe.pretrain.design.fixed_tokens.tokens`: cell `llama_study-s1`: `18446744073709551615`, rounded up to 18014398509481984 steps of 1024 tokens, is out of range; 1 to 9007199254740992 tokens");
    // One token more is a step more.
    assert!(refused("tokens: 9007199254740993").contains("rounded up to 8796093022209 steps"));
    let most = try_plan(&[(TOKENS, "tokens: 9007199254740992")]).unwrap();
    let view = plan_view(&most);
    assert_eq!((view.cells[0].steps, view.cells[0].tokens), (1 << 43, 1 << 53));
    assert_eq!(view.tokens_total, 4 << 53);
}

#[test]
fn a_batch_beyond_the_bound_is_refused_however_few_the_tokens() {
    let batch = ("batch_sequences: 8", "batch_sequences: 4294967295");
    let sequence = ("sequence_length: 128", "sequence_length: 4294967295");
    let schedule = (CONSTANT, "{constant: {warmup_steps: 0}}");
    let refused = refusal(&[batch, sequence, schedule]);
    assert!(refused.contains("rounded up to 1 steps of 18446744065119617025 tokens"), "{refused}");
}

#[test]
fn a_budget_that_buys_more_tokens_than_numbers_are_exact_for_drops_the_cell() {
    let isoflop = |budgets: &str| format!("design: {{isoflop: {{budgets: {budgets}}}}}");
    let design = ISOFLOP.0;
    let dropped = try_plan(&[(design, &isoflop("[3e10, 5e21]"))]).unwrap().dropped;
    let reasons: Vec<String> =
        dropped.iter().map(|cell| format!("{}: {}", cell.name, cell.reason)).collect();
    assert_snapshot!(reasons.join("\n"), @r"
    llama_study-s1-5e21: 5e21 FLOPs buy 1.403e16 tokens; the most is 9007199254740992
    tnl-s1-5e21: 5e21 FLOPs buy 1.644e16 tokens; the most is 9007199254740992
    ");
    let refused = refusal(&[(design, &isoflop("[3e10, 1e26]"))]);
    assert!(refused.contains("no cell meets the budget 1e26: `llama_study-s1-1e26`"), "{refused}");
}

#[test]
fn a_cosine_of_one_step_is_refused_or_dropped() {
    let cosine = |warmup_steps: u64| format!("{{cosine: {{warmup_steps: {warmup_steps}}}}}");
    let refused = refusal(&[(CONSTANT, &cosine(976))]);
    assert!(refused.contains("`stages[0].recipe.pretrain.training.schedule`"), "{refused}");
    assert!(refused.contains("the cosine over the last 1 of 977 steps"), "{refused}");
    assert!(try_plan(&[(CONSTANT, &cosine(975))]).is_ok());
    let dropped = try_plan(&[ISOFLOP, (CONSTANT, &cosine(35))]).unwrap().dropped;
    let is_said = |cell: &DroppedCell| cell.reason.contains("the cosine over the last 1 of 36");
    assert!(dropped.iter().any(is_said), "{dropped:?}");
}

#[test]
fn a_text_that_two_corpora_have_is_warned_of_with_their_names() {
    let corpora = |more: &str| {
        let plays = "    - {name: plays, files: ['texts/*.txt']}\n";
        FIXED.replacen(plays, &format!("{plays}    - {{name: more, files: [a]{more}}}\n"), 1)
    };
    let warnings = |more: &str, texts: [&[&str]; 2]| {
        let of = |(corpus, texts): (&str, &[&str])| CorpusHashes {
            corpus: corpus.to_owned(),
            file_hashes: texts.iter().map(|text| ContentHash::of(text.as_bytes())).collect(),
        };
        let sources: Vec<_> = ["plays", "more"].into_iter().zip(texts).map(of).collect();
        plan(&parse(&corpora(more), "a.yaml").unwrap(), &sources).unwrap().warnings
    };
    assert!(warnings("", [&["a", "b"], &["c"]]).is_empty());
    let both = warnings("", [&["a", "b"], &["b", "c", "a"]]);
    assert!(both[0].contains("has 2 files with the bytes of another one"), "{both:?}");
    assert!(both[0].contains("in `more` and `plays`"), "{both:?}");
    let one = warnings("", [&["a"], &["c", "c", "c"]]);
    assert!(one[0].contains("has 2 files"), "{one:?}");
    assert!(one[0].contains("in `more`:"), "{one:?}");
    let other_field = ", format: jsonl, text_field: answer";
    assert!(warnings(other_field, [&["a"], &["a"]]).is_empty());
}

#[test]
fn a_study_that_measures_nothing_is_warned_of() {
    let none = format!("evaluate: []\n        {LOG_SPACED}");
    let said = warning(&[(LOG_SPACED, &none)], "`evaluate` is empty").unwrap();
    assert!(said.contains("`envelope` and `chinchilla` of `fit.methods`"), "{said}");
    assert_eq!(warning(&[], "`evaluate` is empty"), None);
}

#[test]
fn a_first_data_point_at_or_beyond_the_last_step_is_warned_of() {
    let with = |step: u64| {
        let checkpoints = format!("checkpoints: {{log_spaced: {{count: 4, first_step: {step}}}}}");
        warning(&[ISOFLOP, (LOG_SPACED, &checkpoints)], "log_spaced.first_step` is")
    };
    assert_eq!(with(35), None);
    let said = with(36).unwrap();
    assert!(said.contains("is 36, and 1 of 6 cells"), "{said}");
    assert!(said.contains("(`llama_study-s2-3e10` has 36)"), "{said}");
    assert!(with(1000).unwrap().contains("6 of 6 cells"));
}

#[test]
fn an_average_whose_steps_are_rounded_away_is_warned_of_with_what_it_misses() {
    let averages = |decays: &[&str]| {
        let value = |decay: &&str| {
            let average = format!("training.weight_average: {{ema: {{decay: {decay}}}}}");
            format!("\n              - {{label: d{decay}, {average}}}")
        };
        let values: String = decays.iter().map(value).collect();
        let axis = format!("axes:\n          - name: average\n            values:{values}");
        warning(&[("axes:", &axis)], "no longer follows")
    };
    assert_eq!(averages(&["0.9", "0.9999"]), None);
    let said = averages(&["0.9999", "0.99999", "0.99995"]).unwrap();
    assert!(said.starts_with("8 of 12 cells"), "{said}");
    assert!(said.contains("with 0.99999)") && said.contains("within 0.30 % of it"), "{said}");
}
