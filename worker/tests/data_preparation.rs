//! Text becomes a tokenizer and token shards, the same bytes each time, and bad text a clear message.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;

use std::fs;

use bench::work::{preparation, text};
use bench::{Site, Story};
use domain::spec::{CorpusFormat, TokenizerSpec};

const BPE: TokenizerSpec = TokenizerSpec::Bpe { vocab_size: 320 };

fn prepare(format: CorpusFormat, tokenizer: TokenizerSpec, files: &[&[u8]]) -> (Site, Story) {
    let site = Site::new();
    let (_, assignment) = preparation(&site, format, tokenizer, files);
    let story = site.trainer(1).carry_out(assignment);
    (site, story)
}

/// What the attempt with this token published.
fn published(site: &Site, config_hash: &str, token: u64) -> Vec<Vec<u8>> {
    ["manifest.json", "tokenizer.json", "train.bin", "validation.bin"]
        .iter()
        .map(|name| fs::read(site.path(&format!("data/{config_hash}/{token}/{name}"))).unwrap())
        .collect()
}

#[test]
fn the_same_text_gives_the_same_bytes_in_any_process_with_any_threads() {
    let texts = [text(900, 1), text(900, 2)];
    let files = [texts[0].as_bytes(), texts[1].as_bytes()];
    let mut all = Vec::new();
    for threads in [1, 2] {
        let site = Site::new();
        let (config, assignment) = preparation(&site, CorpusFormat::Text, BPE, &files);
        let story = site.trainer(threads).carry_out(assignment);
        assert_eq!(story.end, "succeeded", "{}", story.message);
        all.push(published(&site, config.identity().unwrap().hash.as_str(), 1)[1..].to_vec());
    }
    assert!(all[0] == all[1]);
}

#[test]
fn a_result_says_what_the_manifest_says_and_tokens_are_below_the_vocabulary() {
    let text = text(2000, 1);
    let site = Site::new();
    let (config, assignment) = preparation(&site, CorpusFormat::Text, BPE, &[text.as_bytes()]);
    let mut trainer = site.trainer(1);
    let story = trainer.carry_out(assignment.clone());
    let result = story.preparation();
    let hash = config.identity().unwrap().hash.to_string();
    let files = published(&site, &hash, 1);
    let manifest: serde_json::Value = serde_json::from_slice(&files[0]).unwrap();
    assert_eq!(manifest["preparation_hash"], hash.as_str());
    assert_eq!(manifest["n_training_tokens"], result.n_training_tokens);
    assert_eq!(files[2].len() as u64, 2 * result.n_training_tokens);
    assert_eq!(files[3].len() as u64, 2 * result.n_validation_tokens);
    assert_eq!(result.vocab_size, 320);
    let largest = files[2].chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).max();
    assert!(largest < Some(320));
    // The tokens are fewer than the bytes, and about a fifth is held out.
    let share = result.n_validation_tokens as f64
        / (result.n_training_tokens + result.n_validation_tokens) as f64;
    assert!(result.n_training_tokens < text.len() as u64 / 2 && (0.02..0.5).contains(&share));
    // The same attempt, told twice, meets its own manifest and gives the same.
    let again = trainer.carry_out(assignment);
    assert_eq!(again.preparation(), result);
}

/// Aim: an attempt that lost its lease cannot change what another has published. Method: it is
/// carried out after the other.
#[test]
fn every_attempt_publishes_under_its_own_token() {
    let site = Site::new();
    let text = text(900, 1);
    let (config, assignment) = preparation(&site, CorpusFormat::Text, BPE, &[text.as_bytes()]);
    let mut trainer = site.trainer(1);
    let second = proto::v1::Assignment { lease_token: 2, attempt: 2, ..assignment.clone() };
    let story = trainer.carry_out(second);
    let result = story.preparation().clone();
    let hash = config.identity().unwrap().hash.to_string();
    let before = published(&site, &hash, 2);
    let stale = trainer.carry_out(assignment);
    assert_eq!(stale.end, "succeeded", "{}", stale.message);
    assert_ne!(stale.preparation().manifest, result.manifest);
    assert!(published(&site, &hash, 2) == before);
    assert!(published(&site, &hash, 1)[1..] == before[1..], "the same text gives the same bytes");
}

#[test]
fn lines_of_json_are_documents() {
    let lines = (0..400)
        .map(|seed| serde_json::json!({ "id": seed, "text": text(20, seed) }).to_string())
        .collect::<Vec<_>>()
        .join("\n");
    let (_, story) = prepare(CorpusFormat::Jsonl, TokenizerSpec::Byte, &[lines.as_bytes()]);
    assert_eq!(story.end, "succeeded", "{}", story.message);
    assert!(story.logs("info")[0].contains("in 400 documents"), "{story:?}");
}

fn check_bad(format: CorpusFormat, tokenizer: TokenizerSpec, files: &[&[u8]], expected: &str) {
    let (site, story) = prepare(format, tokenizer, files);
    assert_eq!(story.end, "bad_data", "{}", story.message);
    assert!(story.message.contains(expected), "{}", story.message);
    assert!(!site.path("data").exists());
}

#[test]
fn bad_text_ends_as_bad_data_with_the_place() {
    for tokenizer in [TokenizerSpec::Byte, BPE] {
        let good = text(100, 1);
        let not_utf8: &[&[u8]] = &[good.as_bytes(), b"abc\xff"];
        check_bad(CorpusFormat::Text, tokenizer, not_utf8, "file 2 of corpus 1");
        check_bad(CorpusFormat::Text, tokenizer, not_utf8, "first bad byte is byte 3");
        let lines: &[&[u8]] = &[b"{\"text\": \"a\"}\n{\"txt\": \"b\"}\n"];
        check_bad(CorpusFormat::Jsonl, tokenizer, lines, "line 2: there is no text");
        check_bad(CorpusFormat::Text, tokenizer, &[b""], "the corpus is empty");
        check_bad(CorpusFormat::Text, tokenizer, &[b"short"], "the validation split is empty");
    }
}

#[test]
fn a_source_that_is_not_what_its_hash_says_is_refused() {
    let site = Site::new();
    let text = text(100, 1);
    let (_, assignment) =
        preparation(&site, CorpusFormat::Text, TokenizerSpec::Byte, &[text.as_bytes()]);
    let key = format!("sources/{}", blake3::hash(text.as_bytes()));
    fs::write(site.path(&key), text.replace("king", "King")).unwrap();
    let story = site.trainer(1).carry_out(assignment);
    assert_eq!(story.end, "bad_data");
    assert!(story.message.contains("has the hash"), "{}", story.message);
}
