//! The files that a study file's patterns match, with their hashes.
//!
//! It uploads nothing.

use std::collections::{BTreeMap, BTreeSet};
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
            let matches = matching(folder, pattern);
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
fn matching(folder: &Path, pattern: &str) -> BTreeMap<String, PathBuf> {
    let (directory, file_pattern) = match pattern.rfind('/') {
        Some(slash) => pattern.split_at(slash + 1),
        None => ("", pattern),
    };
    if !file_pattern.contains('*') {
        let path = folder.join(pattern);
        let is_file = path.is_file();
        return is_file.then(|| (plain(pattern), path)).into_iter().collect();
    }
    let searched = folder.join(directory);
    let searched = if searched.as_os_str().is_empty() { PathBuf::from(".") } else { searched };
    let Ok(entries) = std::fs::read_dir(searched) else { return BTreeMap::new() };
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok().map(|name| (name, entry.path())))
        .filter(|(name, _)| is_match(file_pattern.as_bytes(), name.as_bytes()))
        .map(|(name, path)| (plain(&format!("{directory}{name}")), path))
        .collect()
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
        let found = matching(folder.path(), "texts/*.txt");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["texts/a.txt", "texts/b.txt"]);
        assert!(matching(folder.path(), "texts/d.txt").is_empty());
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
