//! The preparation of data: sources in, a tokenizer and two token shards out, behind a manifest.
//!
//! What becomes of the text is `data`'s.

use domain::attempt::AttemptEnd;
use domain::cell::Identity;
use domain::recipe::{PREPARATION_VERSION, PreparationConfig};
use proto::v1::{self, event::Kind};

use super::{Context, Outcome, RecipeError};
use crate::artifacts::manifest::{Content, DataContent, Manifest, ManifestFile};
use crate::data::shard::to_bytes;
use crate::data::{Corpus, CorpusFile, DataError, SplitRule, SplitTokens, TextTokenizer};

/// The tokenizer's file.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
/// The training split's file.
pub const TRAINING_FILE: &str = "train.bin";
/// The validation split's file.
pub(super) const VALIDATION_FILE: &str = "validation.bin";

/// Carries out a preparation. Doing it again gives the same bytes, each attempt under its own
/// token: one that lost its lease cannot change what another has published.
pub(super) fn prepare(
    context: &mut Context<'_>,
    work: &v1::PrepareData,
) -> Result<Outcome, RecipeError> {
    let config: PreparationConfig = Identity::parse(&work.config_json)?;
    if config.preparation_version != PREPARATION_VERSION {
        return Err(RecipeError::Version {
            what: "the data preparation".to_owned(),
            expected: config.preparation_version,
            found: PREPARATION_VERSION,
        });
    }
    context.start()?;
    let corpus = fetch_corpus(context, &config, &work.sources)?;
    let rule = SplitRule::of(&config);
    let tokenizer = train_tokenizer(&config, &corpus, rule)?;
    if let Some(outcome) = context.interruption() {
        return Ok(outcome);
    }
    let mut tokens = SplitTokens::default();
    for document in corpus.documents() {
        tokens.add(&document?, rule, &tokenizer)?;
        if let Some(outcome) = context.interruption() {
            return Ok(outcome);
        }
    }
    tokens.check(corpus.files.len(), rule)?;
    log_result(context, &config, &tokens, &tokenizer);
    let result = publish(context, &config, &tokens, &tokenizer)?;
    context.report.event(Kind::Preparation(result));
    Ok(Outcome::of(AttemptEnd::Succeeded))
}

/// The files in the configuration's order, fetched and checked.
fn fetch_corpus(
    context: &Context<'_>,
    config: &PreparationConfig,
    sources: &[v1::ArtifactRef],
) -> Result<Corpus, RecipeError> {
    let n_files: usize = config.sources.iter().map(|source| source.file_hashes.len()).sum();
    if sources.len() != n_files {
        let reason = format!("{} files are given, {n_files} are listed", sources.len());
        return Err(DataError::OtherSources { reason }.into());
    }
    let mut files = Vec::new();
    let mut given = sources.iter();
    for (number, source) in (1..).zip(&config.sources) {
        for (file, (hash, reference)) in (1..).zip(source.file_hashes.iter().zip(&mut given)) {
            let name = format!("file {file} of corpus {number} (`{}`)", reference.key);
            if reference.hash != *hash {
                let reason = format!("{name} is not the one with the hash {hash}");
                return Err(DataError::OtherSources { reason }.into());
            }
            let path = context.artifacts.fetch(reference).map_err(RecipeError::DataArtifact)?;
            let (format, text_field) = (source.format, source.text_field.clone());
            files.push(CorpusFile { path, name, format, text_field });
        }
    }
    Ok(Corpus { files })
}

/// Trains on the training split only: nothing held out shapes the tokens.
fn train_tokenizer(
    config: &PreparationConfig,
    corpus: &Corpus,
    rule: SplitRule,
) -> Result<TextTokenizer, DataError> {
    let mut failure = None;
    let documents = corpus.documents().map_while(|document| match document {
        Ok(document) => Some(document),
        Err(error) => {
            failure = Some(error);
            None
        }
    });
    let training_text = documents.flat_map(|document| {
        let blocks = rule.blocks(&document).filter(|block| !block.is_held_out);
        blocks.map(|block| block.text.to_owned()).collect::<Vec<_>>()
    });
    let tokenizer = TextTokenizer::train(config.tokenizer, training_text);
    match failure {
        Some(error) => Err(error),
        None => tokenizer,
    }
}

fn publish(
    context: &Context<'_>,
    config: &PreparationConfig,
    tokens: &SplitTokens,
    tokenizer: &TextTokenizer,
) -> Result<v1::PreparationResult, RecipeError> {
    let preparation_hash = config.identity()?.hash.to_string();
    let content = DataContent {
        n_training_tokens: tokens.training.len() as u64,
        n_validation_tokens: tokens.validation.len() as u64,
        vocab_size: config.tokenizer.vocab_size(),
        preparation_hash: preparation_hash.clone(),
    };
    let result = v1::PreparationResult {
        manifest: None,
        n_training_tokens: content.n_training_tokens,
        n_validation_tokens: content.n_validation_tokens,
        vocab_size: content.vocab_size,
    };
    let folder = format!("data/{preparation_hash}/{}", context.assignment.lease_token);
    let mut files = Vec::new();
    for (name, bytes) in [
        (TOKENIZER_FILE, tokenizer.to_json()?),
        (TRAINING_FILE, to_bytes(&tokens.training)),
        (VALIDATION_FILE, to_bytes(&tokens.validation)),
    ] {
        let key = format!("{folder}/{name}");
        let reference = context.artifacts.put(&key, bytes).map_err(RecipeError::DataArtifact)?;
        files.push(ManifestFile::new(name, reference));
    }
    let manifest = Manifest::new(Content::Data(content), files);
    let reference = context
        .artifacts
        .put_manifest(&format!("{folder}/manifest.json"), &manifest)
        .map_err(RecipeError::DataArtifact)?;
    Ok(v1::PreparationResult { manifest: Some(reference), ..result })
}

fn log_result(
    context: &mut Context<'_>,
    config: &PreparationConfig,
    tokens: &SplitTokens,
    tokenizer: &TextTokenizer,
) {
    let text = format!(
        "{} bytes in {} documents became {} training and {} validation tokens",
        tokens.n_bytes,
        tokens.n_documents,
        tokens.training.len(),
        tokens.validation.len()
    );
    context.report.log("info", text);
    let (asked, found) = (config.tokenizer.vocab_size() as usize, tokenizer.n_tokens());
    if found < asked {
        let text = format!("the text gives only {found} of the {asked} tokens that are asked for");
        context.report.log("warn", text);
    }
}
