//! Keeps the house tidy: dependency edges, file lengths, words, leftovers, paired migrations.
//!
//! A rule that old code breaks gets a list of tolerated offenders, and that list may only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use domain::model::{Architecture, ModelConfig, Shape};

/// Which of our crates each crate may use. `ARCHITECTURE.md` draws the same picture.
const EDGES: [(&str, &[&str]); 13] = [
    ("domain", &[]),
    ("scaling", &[]),
    ("planner", &["domain", "scaling", "api"]),
    ("api", &["domain"]),
    ("proto", &["domain"]),
    ("torch_ext", &[]),
    ("models", &["domain", "torch_ext"]),
    ("coordinator", &["domain", "scaling", "planner", "api", "proto"]),
    ("worker", &["domain", "proto", "models", "torch_ext"]),
    ("cli", &["domain", "scaling", "planner", "api"]),
    ("test_postgres", &[]),
    (
        "e2e",
        &[
            "test_postgres",
            "domain",
            "scaling",
            "planner",
            "api",
            "proto",
            "torch_ext",
            "models",
            "coordinator",
            "worker",
            "cli",
        ],
    ),
    ("bench", &["api", "domain", "e2e", "models", "proto", "test_postgres", "torch_ext", "worker"]),
];

/// What a crate must never see, directly or through another.
const NEVER: [(&str, &[&str]); 8] = [
    ("domain", &["tokio", "tonic", "sqlx", "tch", "axum", "rand"]),
    ("scaling", &["tokio", "tonic", "sqlx", "tch", "axum", "domain"]),
    ("planner", &["tokio", "tonic", "sqlx", "tch", "axum"]),
    ("api", &["tokio", "tonic", "sqlx", "tch"]),
    ("proto", &["sqlx", "tch"]),
    ("models", &["tokio", "tonic", "sqlx", "axum"]),
    ("coordinator", &["tch", "torch-sys"]),
    ("cli", &["tch", "torch-sys", "sqlx", "tonic"]),
];

/// A file longer than this is split.
const LONGEST_FILE: usize = 600;

/// Words that this project has other words for (style, "Words"), with the right one.
const WRONG_WORDS: [(&str, &str); 6] = [
    ("canceled", "cancelled"),
    ("cancelling_task", "cancelled"),
    ("hyperparameter_trial", "run"),
    ("cfg.", "config"),
    ("keepalive_message", "heartbeat"),
    ("num_layers", "n_layers"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").into()
}

/// The files of the project: what git tracks and what it does not ignore.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "not a git checkout");
    String::from_utf8(output.stdout)
        .expect("file names are UTF-8")
        .lines()
        .map(|line| root().join(line))
        .filter(|path| path.is_file())
        .collect()
}

fn with_extension(extensions: &[&str]) -> Vec<(String, String)> {
    files()
        .into_iter()
        .filter(|path| {
            path.extension().is_some_and(|found| extensions.iter().any(|known| found == *known))
        })
        .filter_map(|path| {
            let name = path.strip_prefix(root()).expect("a file of ours").display().to_string();
            fs::read_to_string(&path).ok().map(|text| (name, text))
        })
        .collect()
}

fn metadata() -> cargo_metadata::Metadata {
    cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        // Other platforms' crates were never downloaded, and no test needs the network.
        .other_options(
            ["--offline", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
                .map(str::to_owned)
                .to_vec(),
        )
        .exec()
        .expect("cargo metadata reads the workspace")
}

#[test]
fn crates_use_only_what_the_architecture_allows() {
    let metadata = metadata();
    let ours: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    for package in metadata.workspace_packages() {
        let allowed = EDGES
            .iter()
            .find(|(name, _)| *name == package.name.as_str())
            .unwrap_or_else(|| panic!("`{}` is not in the table of edges", package.name))
            .1;
        for dependency in package.dependencies.iter().filter(|d| ours.contains(d.name.as_str())) {
            let is_dev = dependency.kind == cargo_metadata::DependencyKind::Development;
            assert!(
                is_dev || allowed.contains(&dependency.name.as_str()),
                "`{}` must not depend on `{}`",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn no_crate_reaches_what_it_must_never_see() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().expect("metadata with dependencies");
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|p| (&p.id, p.name.to_string())).collect();
    let edges: BTreeMap<_, Vec<_>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node.deps.iter().filter(|dep| {
                dep.dep_kinds.iter().any(|k| k.kind == cargo_metadata::DependencyKind::Normal)
            });
            (&node.id, normal.map(|dep| &dep.pkg).collect())
        })
        .collect();
    for (name, never) in NEVER {
        let start = metadata
            .workspace_packages()
            .into_iter()
            .find(|package| package.name.as_str() == name)
            .expect("a crate of the workspace");
        let mut seen = BTreeSet::from([&start.id]);
        let mut queue = vec![&start.id];
        while let Some(id) = queue.pop() {
            for next in &edges[id] {
                if seen.insert(next) {
                    queue.push(next);
                }
            }
        }
        for id in seen {
            let reached = names[id].as_str();
            assert!(!never.contains(&reached), "`{name}` reaches `{reached}`");
        }
    }
}

#[test]
fn no_file_is_too_long() {
    for (name, text) in with_extension(&["rs", "ts", "svelte", "cpp", "py"]) {
        if name.ends_with(".d.ts") {
            continue;
        }
        let lines = text.lines().count();
        assert!(lines <= LONGEST_FILE, "{name} has {lines} lines; split it at {LONGEST_FILE}");
    }
}

#[test]
fn no_component_is_too_long() {
    for (name, text) in with_extension(&["svelte"]) {
        let lines = text.lines().count();
        assert!(lines <= 200, "{name} has {lines} lines; a component has at most 200");
    }
}

#[test]
fn one_word_has_one_meaning() {
    for (name, text) in with_extension(&["rs", "proto", "sql", "svelte", "ts"]) {
        if name.ends_with("tidy.rs") || name.ends_with(".d.ts") {
            continue;
        }
        for (wrong, right) in WRONG_WORDS {
            assert!(!text.contains(wrong), "{name} says `{wrong}`; the word is `{right}`");
        }
    }
}

#[test]
fn nothing_is_left_lying_about() {
    // The markers are put together here, so that this file does not contain them.
    let markers =
        [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["FIX", "ME"].concat()];
    let homes = [["/ho", "me/"].concat(), ["/ro", "ot/"].concat(), ["/wo", "rk/"].concat()];
    for (name, text) in with_extension(&["rs", "py", "ts", "svelte", "toml", "md", "yaml"]) {
        for marker in markers.iter().chain(&homes) {
            assert!(!text.contains(marker.as_str()), "{name} contains `{marker}`");
        }
    }
}

#[test]
fn every_migration_has_its_undoing() {
    let mut numbers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, _) in with_extension(&["sql"]) {
        let Some(file) = name.strip_prefix("migrations/sqlite/") else { continue };
        let (stem, kind) = file
            .strip_suffix(".sql")
            .and_then(|rest| rest.rsplit_once('.'))
            .unwrap_or_else(|| panic!("{name} is not named NNNN_name.up.sql or .down.sql"));
        assert!(stem.as_bytes()[..4].iter().all(u8::is_ascii_digit), "{name} has no number");
        numbers.entry(stem.to_owned()).or_default().insert(kind.to_owned());
    }
    assert!(!numbers.is_empty());
    for (stem, kinds) in numbers {
        assert_eq!(kinds, BTreeSet::from(["down".into(), "up".into()]), "{stem}");
    }
}

#[test]
fn only_torch_ext_is_unsafe() {
    let unsafe_block = ["unsafe", " {"].concat();
    for (name, text) in with_extension(&["rs"]) {
        if name.starts_with("torch_ext/") {
            continue;
        }
        assert!(!text.contains(&unsafe_block), "{name} has an unsafe block");
    }
}

#[test]
fn the_lock_file_names_no_download_address() {
    let lock = fs::read_to_string(root().join("dashboards/web/package-lock.json"))
        .expect("the web application has a lock file");
    assert!(!lock.contains("\"resolved\""), "npm wrote addresses; see dashboards/web/.npmrc");
}

#[test]
fn every_series_of_a_run_is_defined_and_no_other() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("a file of ours");
    // A point is made of pairs such as `("train_loss_nats", value)`.
    let code = read("worker/src/recipes/pretrain/metrics.rs");
    let written = code.split("(\"").skip(1).filter_map(|rest| Some(rest.split_once("\",")?.0));
    let sent: BTreeSet<String> = written.map(str::to_owned).chain(flop_terms()).collect();
    let page = read("docs/reference/metrics.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Series of a run"));
    let defined: BTreeSet<String> = section
        .expect("the page has the section")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    assert!(sent.contains("train_loss_nats"), "{sent:?}");
    assert_eq!(sent, defined);
}

/// The series that are named after the terms of a model's FLOPs, of all architectures.
fn flop_terms() -> Vec<String> {
    let shape = Shape { vocab_size: 5, d_model: 4, n_layers: 2, n_heads: 2, ffn_hidden: 3 };
    let of = |architecture| ModelConfig::new(architecture, shape).expect("a valid shape");
    let terms = Architecture::ALL.iter().flat_map(|one| of(*one).flops_exact(8).terms);
    terms.map(|term| format!("flops_{}", term.name)).collect()
}
