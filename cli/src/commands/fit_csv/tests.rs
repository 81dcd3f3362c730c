//! Any file whatever is answered with a fit, or with an error that says where and what: never with a
//! panic, and never with a number that is none.

use std::fmt::Write as _;

use clap::Parser as _;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::args::{Args, Command};

/// What a fit of the bytes prints as JSON, with everything else that can be made of it made.
fn outcome(bytes: &[u8], arguments: &str) -> Result<Value, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("points.csv");
    std::fs::write(&file, bytes).unwrap();
    let line = format!("gradus fit --csv {} --draws 100 --threads 1 {arguments}", file.display());
    let parsed = Args::try_parse_from(line.split_whitespace()).unwrap();
    let Command::Fit(args) = parsed.command else { panic!("{line} is `gradus fit`") };
    let made = with_job(&file, &args, |job| {
        let fits = job.groups()?;
        keep::write(job, &fits, &folder.path().join("fit.json"))?;
        let picture = Picture::of(job, &fits);
        let svg = picture.svg() + &picture.text();
        assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
        let reports: Vec<FileFit> = fits.into_iter().map(|one| one.report).collect();
        Ok(serde_json::to_value(reports).unwrap())
    });
    made.map_err(|failure| failure.report())
}

/// `null` stands where a number is not known and the reference says so, and nowhere else.
fn check_nulls(value: &Value, key: &str) {
    const ALLOWED: [&str; 7] = [
        "huber_delta",
        "low",
        "high",
        "mean_absolute_error",
        "relative_error",
        "is_inside",
        "extrapolation",
    ];
    match value {
        Value::Null => assert!(ALLOWED.contains(&key), "`{key}` is null"),
        Value::Array(list) => list.iter().for_each(|one| check_nulls(one, key)),
        Value::Object(map) => {
            if map.get("status").is_some_and(|status| status == "identified") {
                let is_number = |name: &str| map[name].as_f64().is_some_and(f64::is_finite);
                assert!(["value", "low", "high"].into_iter().all(is_number), "{value}");
            }
            map.iter().for_each(|(name, one)| check_nulls(one, name));
        }
        _ => {}
    }
}

fn check(bytes: &[u8], arguments: &str) {
    match outcome(bytes, arguments) {
        Ok(value) => check_nulls(&value, ""),
        Err(message) => assert!(message.len() > "error: ".len(), "{message}"),
    }
}

const POWER: &str = "--law power --c c --loss l";
const JOINT: &str = "--law chinchilla --n n --d d --loss l --run run --group-by arch --stratify n";

/// A good file of 4 × 4 with all columns, whose rows start in line 2.
fn rows() -> Vec<Vec<String>> {
    let row = |i: i32| {
        let (n, d) = (1e6 * 4_f64.powi(i / 4), 2e7 * 4_f64.powi(i % 4));
        let luck = 1.0 + 0.002 * f64::from(i * 7 % 5);
        let loss = (1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31)) * luck;
        vec![format!("a{}", i % 2), i.to_string(), n.to_string(), d.to_string()]
            .into_iter()
            .chain([(6.0 * n * d).to_string(), loss.to_string()])
            .collect()
    };
    (0..16).map(row).collect()
}

const HEADER: [&str; 6] = ["arch", "run", "n", "d", "c", "l"];

fn text(rows: &[Vec<String>], end: &str) -> String {
    let header = HEADER.map(str::to_owned).to_vec();
    let lines = std::iter::once(&header).chain(rows).map(|row| row.join(","));
    lines.fold(String::new(), |mut text, line| {
        write!(text, "{line}{end}").unwrap();
        text
    })
}

/// What a fit of the good file says, or why there is none.
fn said(arguments: &str) -> Result<Value, String> {
    outcome(text(&rows(), "\n").as_bytes(), arguments)
}

#[test]
fn a_rule_that_holds_nothing_out_is_refused_and_in_a_group_warned_of() {
    let refused = |rule: &str, law: &str| said(&format!("{law} --hold-out {rule}")).unwrap_err();
    for rule in ["arch=tln", "c>1e30", "c<1"] {
        let message = refused(rule, POWER);
        assert!(message.contains(&format!("`--hold-out {rule}` names no row")), "{message}");
    }
    // What no column has is no number.
    for (rule, what) in
        [("n>1e6", "N"), ("d>1", "D"), ("largest-size", "the rows of the largest N")]
    {
        let message = refused(rule, POWER);
        let expected = format!("asks for {what}, which is not known: give `--");
        assert!(message.contains(&expected), "{message}");
    }
    let message = refused("c>1e9", "--law power --n n --loss l");
    assert!(message.contains("asks for C"), "{message}");
    let fits = said(&format!("{POWER} --group-by arch --hold-out run=3")).unwrap();
    let warned = |at: usize| fits[at]["warnings"].to_string().contains("nothing-held-out: `run=3`");
    assert_eq!((warned(0), warned(1)), (true, false), "run 3 is of the second group");
}

#[test]
fn an_accuracy_is_held_out_by_its_task_loss() {
    let mut file = "task,acc\n".to_owned();
    for step in 0..24 {
        let loss = 1.0 + 0.1 * f64::from(step);
        let accuracy = 0.25 + 0.7 / (1.0 + (4.0 * (loss - 2.0)).exp());
        writeln!(file, "{loss},{accuracy}").unwrap();
    }
    let fit = |rule: &str| {
        let law = "--law sigmoid --loss task --accuracy acc --hold-out";
        outcome(file.as_bytes(), &format!("{law} {rule}"))
    };
    let held_out = fit("loss<1.35").unwrap()[0]["held_out"].clone();
    assert_eq!(held_out.as_array().unwrap().len(), 4, "{held_out}");
    assert!(held_out[0]["extrapolation"].is_null(), "there is no C: {held_out}");
    assert!(fit("loss<0.7").unwrap_err().contains("names no row"));
    assert!(fit("largest").unwrap_err().contains("asks for the rows of the largest C"));
}

#[test]
fn what_c_counts_is_said_of_a_column_of_c_or_of_flops_for_a_token_or_of_both() {
    let is_valid = |more: &str| {
        let line = format!("gradus fit --csv x.csv --law chinchilla --n n --d d --loss l {more}");
        Args::try_parse_from(line.split_whitespace()).is_ok()
    };
    assert!(is_valid("--c c --flops-per-token f --c-counts exact"));
    assert!(is_valid("--flops-per-token f --c-counts exact") && is_valid("--c c --c-counts exact"));
    assert!(!is_valid("--c-counts exact"));
}

#[test]
fn a_row_behind_empty_lines_is_named_by_its_own() {
    for end in ["\n", "\r\n"] {
        let file = ["c,l", "1e10,3", "", "", "x,3", ""].join(end);
        let message = outcome(file.as_bytes(), POWER).unwrap_err();
        assert!(message.contains("points.csv:5: "), "{message}");
        let file = ["c,l", "1e10,3", "", "", "x", ""].join(end);
        let message = outcome(file.as_bytes(), POWER).unwrap_err();
        assert!(message.contains("points.csv:5: the row has 1 cells"), "{message}");
    }
}

/// Cells of every kind, good ones and others.
fn cell() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "",
        "NaN",
        "inf",
        "-1",
        "0",
        "1e400",
        "1e-320",
        "1e300",
        "1e-300",
        "x",
        "3,5",
        " 2.5 ",
        "\"2.5\"",
        "\"a,b\"",
        "\"two\nlines\"",
        "\"open",
        "1_000",
        "0x10",
        "٣",
        "2.5",
    ]);
    prop_oneof![
        3 => (0.5..9.0_f64).prop_map(|value| value.to_string()),
        2 => (5.0..20.0_f64).prop_map(|power| format!("{:e}", 10_f64.powf(power))),
        2 => odd.prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_no_reason_to_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes, POWER);
        let mut with_header = b"c,l\n1e10,3\n".to_vec();
        with_header.extend(bytes);
        check(&with_header, POWER);
    }

    #[test]
    fn cells_of_every_kind_give_a_fit_or_a_reason(
        rows in prop::collection::vec(prop::collection::vec(cell(), 5..8), 0..24),
    ) {
        check(text(&rows, "\n").as_bytes(), POWER);
        check(text(&rows, "\r\n").as_bytes(), JOINT);
    }

    #[test]
    fn one_wrong_cell_is_named_by_line_column_and_value(
        at in 0..16_usize,
        column in 2..6_usize,
        value in prop::sample::select(vec!["NaN", "-inf", "-2", "0", "1e999", "three", "1 2"]),
        end in prop::sample::select(vec!["\n", "\r\n"]),
    ) {
        let mut rows = rows();
        rows[at][column] = value.to_owned();
        let arguments = "--law overtraining --n n --d d --c c --loss l";
        let message = outcome(text(&rows, end).as_bytes(), arguments).unwrap_err();
        let place = format!("points.csv:{}:", at + 2);
        let name = format!("`{}`", HEADER[column]);
        prop_assert!(message.contains(&place) && message.contains(&name), "{message}");
        prop_assert!(message.contains(&format!("`{value}`")), "{message}");
    }

    #[test]
    fn a_row_with_too_many_or_too_few_cells_is_named_by_its_line(at in 0..16_usize, n in 1..9_usize) {
        prop_assume!(n != 6);
        let mut rows = rows();
        rows[at].resize(n, "1".to_owned());
        let message = outcome(text(&rows, "\n").as_bytes(), POWER).unwrap_err();
        let said = format!("points.csv:{}: the row has {n} cells and the header 6", at + 2);
        prop_assert!(message.contains(&said), "{message}");
    }
}

#[test]
fn byte_order_mark_line_ends_quotes_and_spaces_change_no_number() {
    let plain = outcome(text(&rows(), "\n").as_bytes(), JOINT).unwrap();
    let quoted: Vec<Vec<String>> =
        rows().iter().map(|row| row.iter().map(|cell| format!("\" {cell}\"")).collect()).collect();
    for same in [
        text(&rows(), "\r\n"),
        format!("\u{feff}{}", text(&rows(), "\n")),
        text(&quoted, "\n"),
        text(&rows(), "\n").replace(',', " , "),
        text(&rows(), "\n").trim_end().to_owned(),
    ] {
        let mut other = outcome(same.as_bytes(), JOINT).unwrap();
        for (one, group) in other.as_array_mut().unwrap().iter_mut().zip(plain.as_array().unwrap())
        {
            one["file"] = group["file"].clone();
        }
        assert_eq!(other, plain, "{same:?}");
    }
}

#[test]
fn what_is_wrong_beyond_one_cell_is_named_with_its_line_too() {
    let check = |text: &str, arguments: &str, expected: &[&str]| {
        let message = outcome(text.as_bytes(), arguments).unwrap_err();
        for part in expected {
            assert!(message.contains(part), "no {part:?} in {message}");
        }
    };
    check("", POWER, &["is empty", "name the columns"]);
    check("c,l\n", POWER, &["has no row"]);
    check("a,b\n1,2\n", POWER, &["there is no column `c`", "the columns are `a`, `b`"]);
    let run = "--law chinchilla --n n --d d --loss l --run r";
    check("r,n,d,l\nx,1e6,1e8,3\nx,2e6,1e8,3\n", run, &["points.csv:3", "run 0 has 2000000"]);
    check("r,n,d,l\n,1e6,1e8,3\n", run, &["points.csv:2", "column `r` is empty"]);
    let tiny = "--law chinchilla --n n --d d --loss l";
    check("n,d,l\n1e-200,1e-200,3\n", tiny, &["points.csv:2", "`flops`", "found 0"]);
    let strata = "--law chinchilla --n n --d d --loss l --run r --stratify s";
    check(
        "r,s,n,d,l\nx,a,1e6,1e8,3\nx,b,1e6,2e8,3\n",
        strata,
        &["points.csv:3", "column `s` is `b`", "line 2"],
    );
    let trunks = "--law chinchilla --n n --d d --loss l --run r --trunk t";
    check(
        "r,t,n,d,l\nx,a,1e6,1e8,3\nx,b,1e6,2e8,3\n",
        trunks,
        &["points.csv:3", "column `t` is `b`", "line 2", "a run has one trunk"],
    );
    check("r,t,n,d,l\nx,,1e6,1e8,3\n", trunks, &["points.csv:2", "column `t` is empty"]);
    check(
        "r,t,n,d,l\nw,a,1e6,1e7,3\nx,a,1e6,1e8,3\ny,a,2e6,2e8,3\n",
        &format!("{trunks} --hold-out r=w"),
        &["points.csv:4", "2000000 parameters", "one size"],
    );
    check(
        "r,t,s,n,d,l\nx,a,u,1e6,1e8,3\ny,a,v,1e6,2e8,3\n",
        &format!("{trunks} --stratify s"),
        &["points.csv:3", "lie in one stratum"],
    );
    let group = "--law power --c c --loss l --group-by g";
    check("g,c,l\na,1e10,3\n,1e11,2\n", group, &["points.csv:3", "column `g` is empty"]);
    let bytes = b"c,l\n1e10,3\n1e11,\xff\n";
    let message = outcome(bytes, POWER).unwrap_err();
    assert!(message.contains("points.csv:3: cell 2 is not UTF-8"), "{message}");
}

/// A grid of 25 runs, with N, D and C divided by what their units are worth.
fn in_units(n: f64, d: f64, c: f64) -> String {
    let mut text = "n,d,c,loss\n".to_owned();
    for (i, j) in (0..25).map(|at| (at % 5, at / 5)) {
        let (size, tokens) = (1e7 * 3_f64.powi(i), 2e8 * 3_f64.powi(j));
        let loss = 1.7 + 400.0 / size.powf(0.34) + 1100.0 / tokens.powf(0.33);
        let flops = 6.0 * size * tokens;
        writeln!(text, "{},{},{},{loss}", size / n, tokens / d, flops / c).unwrap();
    }
    text
}

#[test]
fn numbers_in_other_units_are_suspected_and_those_in_the_usual_ones_are_not() {
    let columns = "--law chinchilla --n n --d d --c c --loss loss";
    let warnings = |text: &str, columns: &str| -> Vec<String> {
        let value = outcome(text.as_bytes(), columns).unwrap();
        let all: Vec<String> = serde_json::from_value(value[0]["warnings"].clone()).unwrap();
        all.into_iter().filter(|one| one.starts_with("units: ")).collect()
    };
    assert_eq!(warnings(&in_units(1.0, 1.0, 1.0), columns), [""; 0]);
    let billions = warnings(&in_units(1e6, 1e9, 1.0), columns);
    assert_eq!(billions.len(), 3, "{billions:?}");
    assert!(billions[0].contains("the largest N is 810"), "{billions:?}");
    let days = warnings(&in_units(1.0, 1.0, 8.64e19), columns);
    assert!(days.len() == 1 && days[0].contains("C / (N D)"), "{days:?}");
    let millions = "--law chinchilla --n n --d d --loss loss";
    assert_eq!(warnings(&in_units(1.0, 1.0, 1.0), millions), [""; 0]);
    let both = warnings(&in_units(1e4, 1e4, 1.0), millions);
    assert!(both.len() == 1 && both[0].contains("6 N D is 1.200e8"), "{both:?}");
    let named = |name: &str| {
        let text = in_units(1.0, 1.0, 1.0).replace("loss", name);
        warnings(&text, &columns.replace("--loss loss", &format!("--loss {name}")))
    };
    assert!(named("val_PPL")[0].contains("column `val_PPL` seems to be a perplexity"));
    assert!(named("bpb")[0].contains("column `bpb` seems to be in bits"));
    let perplexity = warnings(&in_units(1.0, 1.0, 1.0), "--law power --c c --loss n");
    assert!(perplexity.len() == 1 && perplexity[0].contains("perplexity"), "{perplexity:?}");
}

/// Aim: a unit is seen also where the largest number is none too small. Method: sizes over three and a half decades, in
/// millions, with other columns in the same unit or not; and compute by itself.
#[test]
fn other_units_are_suspected_by_the_smallest_number_and_by_ratios() {
    let table = |n: f64, d: f64, unique: f64| {
        let mut text = "n,d,c,unique,loss\n".to_owned();
        for (i, j) in (0..36).map(|at| (at % 6, at / 6)) {
            let (size, tokens) = (4.4e7 * 3.3_f64.powi(i), 2.2e8 * 4_f64.powi(j));
            let loss = 1.7 + 400.0 / size.powf(0.34) + 1100.0 / tokens.powf(0.33);
            let c = 6.0 * size * tokens / 8.64e19;
            let own = if (i + j) % 2 == 0 { tokens } else { tokens / 3.0 };
            writeln!(text, "{},{},{c},{},{loss}", size / n, tokens / d, own / unique).unwrap();
        }
        text
    };
    let warnings = |text: &str, columns: &str, name: &str| -> Vec<String> {
        let value = outcome(text.as_bytes(), columns).unwrap();
        let all: Vec<String> = serde_json::from_value(value[0]["warnings"].clone()).unwrap();
        all.into_iter().filter(|one| one.starts_with(&format!("{name}: "))).collect()
    };
    let check = |text: &str, columns: &str, expected: &[&str]| {
        let found = warnings(text, columns, "units");
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(found.iter().zip(expected).all(|(one, part)| one.contains(part)), "{found:?}");
    };
    let both = "--law chinchilla --n n --d d --loss loss";
    check(&table(1.0, 1.0, 1.0), both, &[]);
    check(&table(1e6, 1.0, 1.0), both, &["the smallest N is 44,"]);
    check(&table(1e6, 1e6, 1.0), both, &["the smallest N is 44,", "the smallest D is 220,"]);
    check(&table(1e3, 1e-3, 1.0), both, &["D / N is"]);
    check(&table(1e-3, 1e3, 1.0), both, &["D / N is"]);
    check(&table(1.0, 1.0, 1.0), "--law power --c c --loss loss", &["the smallest C is"]);
    let repeated = "--law data_constrained --n n --d d --unique unique --loss loss";
    check(&table(1.0, 1.0, 1.0), repeated, &[]);
    check(&table(1.0, 1.0, 1e9), repeated, &["the smallest number of unique tokens is"]);
    let above = |unique: f64| warnings(&table(1.0, 1.0, unique), repeated, "unique-above-d");
    assert!(above(1.0).is_empty());
    let said = above(0.5);
    assert!(said.len() == 1 && said[0].contains("18 of 36 rows have more"), "{said:?}");
}

#[test]
fn files_of_other_habits_are_refused_with_what_would_be_right() {
    let columns = "--law power --n n --loss loss";
    let refused = |text: &str| outcome(text.as_bytes(), columns).unwrap_err();
    assert!(refused("n;loss\n1e7;3\n").contains("separated by commas"));
    assert!(refused("# made by hand\n1e7\n").contains("take out comments before it"));
    assert!(refused("n,loss\n1e7,\n").contains("take out rows that have no number"));
    let accuracy = outcome(b"n,acc\n3,26\n", "--law sigmoid --loss n --accuracy acc").unwrap_err();
    assert!(accuracy.contains("26 in column `acc`; divide per cent by 100"), "{accuracy}");
    let suffix = refused("n,loss\n10M,3\n");
    assert!(suffix.contains("`10M` is not a number") && suffix.contains("1.5e6"), "{suffix}");
}
