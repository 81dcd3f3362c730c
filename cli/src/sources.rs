//! The files that a study file's patterns match, with their hashes.
//!
//! It uploads nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use api::{CorpusSources, SourceFile};
use domain::ids::ContentHash;
use domain::spec::{ParsedSpec, parse};
use planner::{CorpusHashes, Plan};

use crate::failure::Failure;

/// A study file that was read and planned, with the files that it names.
#[derive(Debug)]
pub(crate) struct Study {
    /// The file's text.
    pub(crate) text: String,
    /// The file's name as given.
    pub(crate) file: String,
    /// The plan.
    pub(crate) plan: Plan,
    /// The source files of each corpus.
    pub(crate) sources: Vec<CorpusSources>,
    /// Where each source is on this machine, by hash.
    pub(crate) paths: BTreeMap<String, PathBuf>,
}

/// Reads, checks and plans a study file.
pub(crate) fn read_study(file: &Path) -> Result<Study, Failure> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("could not read the study file `{}`", file.display()))
        .map_err(Failure::Wrong)?;
    let name = file.display().to_string();
    let parsed = parse(&text, &name)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut paths = BTreeMap::new();
    let sources = find_sources(&parsed, folder, &mut paths)?;
    let hashes: Vec<CorpusHashes> = sources.iter().map(to_hashes).collect();
    let plan = planner::plan(&parsed, &hashes)?;
    Ok(Study { text, file: name, plan, sources, paths })
}

fn to_hashes(corpus: &CorpusSources) -> CorpusHashes {
    let hashes = corpus.files.iter().filter_map(|file| file.hash.parse::<ContentHash>().ok());
    CorpusHashes { corpus: corpus.corpus.clone(), file_hashes: hashes.collect() }
}

fn find_sources(
    parsed: &ParsedSpec,
    folder: &Path,
    paths: &mut BTreeMap<String, PathBuf>,
) -> Result<Vec<CorpusSources>, Failure> {
    let mut sources = Vec::new();
    for (index, corpus) in parsed.spec.data.corpora.iter().enumerate() {
        // By name, each once: the order of a directory is not the same everywhere.
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (position, pattern) in corpus.files.iter().enumerate() {
            let matches = matching(folder, pattern)?;
            if matches.is_empty() {
                let path = format!("data.corpora[{index}].files[{position}]");
                let problem = format!(
                    "`{pattern}` matches no file in `{}`; names are relative to the study file, \
                     and `*` stands for any part of a file name",
                    shown(folder)
                );
                return Err(parsed.locations.error(&path, problem).into());
            }
            found.extend(matches);
        }
        let mut files = Vec::new();
        let mut known = BTreeSet::new();
        for (name, path) in found {
            // Under another spelling it would be trained on twice.
            if !known.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                continue;
            }
            let (hash, n_bytes) = hash_file(&path)?;
            paths.insert(hash.clone(), path);
            files.push(SourceFile { name, hash, n_bytes });
        }
        sources.push(CorpusSources { corpus: corpus.name.clone(), files });
    }
    Ok(sources)
}

fn shown(folder: &Path) -> String {
    if folder.as_os_str().is_empty() { ".".to_owned() } else { folder.display().to_string() }
}

/// The files that a pattern matches, by the name that the pattern would spell out.
fn matching(folder: &Path, pattern: &str) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let (directory, file_pattern) = match pattern.rfind('/') {
        Some(slash) => pattern.split_at(slash + 1),
        None => ("", pattern),
    };
    if !file_pattern.contains('*') {
        let path = folder.join(pattern);
        let is_file = path.is_file();
        return Ok(is_file.then(|| (plain(pattern), path)).into_iter().collect());
    }
    let searched = folder.join(directory);
    let searched = if searched.as_os_str().is_empty() { PathBuf::from(".") } else { searched };
    let names = names_in(&searched, file_pattern)?;
    let matches = names.into_iter().map(|name| {
        let path = searched.join(&name);
        (plain(&format!("{directory}{name}")), path)
    });
    Ok(matches.collect())
}

/// The names of the files in a folder that match a pattern; none where there is no such folder.
///
/// A file that matches and cannot be taken is an error: without it the study would be another one.
fn names_in(folder: &Path, pattern: &str) -> anyhow::Result<Vec<String>> {
    let unreadable = |path: &Path| format!("could not read `{}`", path.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.with_context(|| unreadable(folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| unreadable(folder))?;
        let (name, path) = (entry.file_name(), entry.path());
        let bytes = name.as_encoded_bytes();
        // Hidden files such as `.DS_Store` are no texts, unless the pattern asks for them.
        let is_shown = !bytes.starts_with(b".") || pattern.starts_with('.');
        if !is_shown || !is_match(pattern.as_bytes(), bytes) {
            continue;
        }
        if !std::fs::metadata(&path).with_context(|| unreadable(&path))?.is_file() {
            continue;
        }
        let name = name.into_string().map_err(|_| {
            anyhow::anyhow!("the name of `{}` is not UTF-8; rename the file", path.display())
        })?;
        names.push(name);
    }
    Ok(names)
}

/// A name without the parts that lead nowhere.
fn plain(name: &str) -> String {
    let leads_on = |(at, part): &(usize, &str)| *part != "." && (*at == 0 || !part.is_empty());
    let parts = name.split('/').enumerate().filter(leads_on).map(|(_, part)| part);
    parts.collect::<Vec<_>>().join("/")
}

/// Whether a name matches a pattern in which `*` stands for anything.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| is_match(rest, &name[skip..])),
        Some((letter, rest)) => name.first() == Some(letter) && is_match(rest, &name[1..]),
    }
}

fn hash_file(path: &Path) -> anyhow::Result<(String, u64)> {
    let context = || format!("could not read `{}`", path.display());
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path).with_context(context)?;
    hasher.update_reader(file).with_context(context)?;
    Ok((ContentHash::from(hasher.finalize()).to_string(), hasher.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, name: &str, expected: bool) {
        assert_eq!(is_match(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
    }

    #[test]
    fn a_star_stands_for_any_part_of_a_name() {
        check("*.txt", "hamlet.txt", true);
        check("ham*t.*", "hamlet.txt", true);
        check("*", "", true);
        check("*.txt", "hamlet.txt.gz", false);
        check("hamlet", "hamlet2", false);
    }

    #[test]
    fn files_are_found_relative_to_the_study_file_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("texts")).unwrap();
        for name in ["b.txt", "a.txt", "c.md"] {
            std::fs::write(folder.path().join("texts").join(name), name).unwrap();
        }
        let found = matching(folder.path(), "texts/*.txt").unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["texts/a.txt", "texts/b.txt"]);
        assert!(matching(folder.path(), "texts/d.txt").unwrap().is_empty());
        assert!(matching(folder.path(), "no_folder/*.txt").unwrap().is_empty());
    }

    #[test]
    fn a_star_takes_hidden_files_only_where_the_pattern_begins_with_a_dot() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        for name in ["a.txt", ".DS_Store", ".b.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            matching(folder.path(), pattern).unwrap().into_keys().collect()
        };
        assert_eq!(names("*"), ["a.txt"]);
        assert_eq!(names("*.txt"), ["a.txt"]);
        assert_eq!(names(".*.txt"), [".b.txt"]);
        assert_eq!(names("./*"), ["a.txt"]);
        assert_eq!(names(".b.txt"), [".b.txt"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_that_matches_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "a").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("gone.txt")).unwrap();
        let error = matching(folder.path(), "*.txt").unwrap_err();
        assert!(error.to_string().contains("gone.txt"), "{error}");
        assert_eq!(matching(folder.path(), "a*.txt").unwrap().len(), 1);
    }

    // Other systems refuse to make such a name.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_not_utf8_and_matches_is_an_error_that_names_it() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.md"), "a").unwrap();
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
        std::fs::write(folder.path().join(name), "b").unwrap();
        let error = matching(folder.path(), "*.txt").unwrap_err().to_string();
        assert!(error.contains("caf\u{fffd}.txt` is not UTF-8"), "{error}");
        assert_eq!(matching(folder.path(), "*.md").unwrap().len(), 1);
    }

    #[test]
    fn a_file_is_taken_once_however_it_is_spelled() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("texts")).unwrap();
        for name in ["b.txt", "a.txt"] {
            std::fs::write(folder.path().join("texts").join(name), name).unwrap();
        }
        let study = "version: 1
name: tiny
data:
  corpora:
    - {name: plays, files: ['texts/*.txt', './texts/a.txt', 'texts/../texts//b.txt']}
stages:
  - name: pretrain
    recipe:
      pretrain:
        model: {preset: llama_study, d_model: 32, n_layers: 2, n_heads: 2, ffn_hidden: 96}
        training: {sequence_length: 128, batch_sequences: 8}
        design: {fixed_tokens: {tokens: 1e5}}
";
        let parsed = domain::spec::parse(study, "tiny.yaml").unwrap();
        let mut paths = BTreeMap::new();
        let found = find_sources(&parsed, folder.path(), &mut paths).unwrap();
        let names: Vec<&str> = found[0].files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["texts/../texts/b.txt", "texts/a.txt"]);
        assert_eq!(paths.len(), 2);
    }
}
