//! `gradus-worker generate`: a model from its files goes on with a prompt.
//!
//! It chooses no tokens itself; `models::sampling` does.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use models::{LanguageModel, Sampler, Sampling};
use serde::Serialize;
use tokenizers::Tokenizer;

use super::{input, print, warn};
use crate::cli::GenerateArgs;
use crate::data::tokenizer::END_OF_DOCUMENT;

/// The tokenizer beside a model.
const TOKENIZER_FILE: &str = "tokenizer.json";

/// What there is to do, with all input checked.
#[derive(Debug)]
pub(super) struct Generation {
    model: LanguageModel,
    tokenizer: Option<Tokenizer>,
    prompt: Vec<i64>,
    sampler: Sampler,
    seed: u64,
    max_new_tokens: usize,
    is_json: bool,
}

/// Why no more tokens were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum End {
    MaxNewTokens,
    EndOfDocument,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Generated {
    /// The ids that the model was given.
    prompt_tokens: Vec<i64>,
    /// The ids that it added, the end of the document among them where it came.
    new_tokens: Vec<i64>,
    /// The text of the added ids; none without a tokenizer.
    text: Option<String>,
    /// Why it ended.
    end: End,
    /// The seed of the draws.
    seed: u64,
    /// Memory of the state at the end.
    state_bytes: usize,
}

impl Generation {
    /// Reads and checks what the arguments name; an error is the user's.
    pub(super) fn new(args: &GenerateArgs) -> Result<Self> {
        let sampling =
            Sampling { temperature: args.temperature, top_k: args.top_k, top_p: args.top_p };
        let sampler = Sampler::new(sampling, args.seed)?;
        if sampling.temperature == 0.0 && sampling != Sampling::GREEDY {
            warn("`--top-k` and `--top-p` change nothing without a `--temperature` above 0");
        }
        let tokenizer = tokenizer(args)?;
        let model = input::model(&args.model)?;
        let prompt = prompt(args, tokenizer.as_ref(), model.config().shape.vocab_size)?;
        Ok(Self {
            model,
            tokenizer,
            prompt,
            sampler,
            seed: args.seed,
            max_new_tokens: usize::try_from(args.max_new_tokens)?,
            is_json: args.json,
        })
    }

    /// Generates and prints.
    pub(super) fn run(self) -> Result<()> {
        let end_of_document =
            self.tokenizer.as_ref().and_then(|tokenizer| tokenizer.token_to_id(END_OF_DOCUMENT));
        let mut continuation = self.model.continuation(&self.prompt, self.sampler);
        let (mut new_tokens, mut end) = (Vec::new(), End::MaxNewTokens);
        for token in continuation.by_ref().take(self.max_new_tokens) {
            let token = token?;
            new_tokens.push(token);
            if end_of_document.is_some_and(|end| i64::from(end) == token) {
                end = End::EndOfDocument;
                break;
            }
        }
        let state_bytes = continuation.state().bytes();
        let whole = [&self.prompt[..], &new_tokens].concat();
        let text =
            self.tokenizer.as_ref().map(|tokenizer| decode(tokenizer, &whole)).transpose()?;
        if !self.is_json {
            print(&text.map_or_else(|| serde_json::to_string(&[whole]), Ok)?);
            return Ok(());
        }
        let text = match (&self.tokenizer, text) {
            (Some(tokenizer), Some(text)) => Some(added(tokenizer, &self.prompt, &text)?),
            _ => None,
        };
        let (prompt_tokens, seed) = (self.prompt, self.seed);
        let generated = Generated { prompt_tokens, new_tokens, text, end, seed, state_bytes };
        print(&serde_json::to_string_pretty(&generated)?);
        Ok(())
    }
}

/// The tokenizer that was asked for, or that of the model's folder if there is one.
fn tokenizer(args: &GenerateArgs) -> Result<Option<Tokenizer>> {
    let beside = args.model.join(TOKENIZER_FILE);
    let path = match &args.tokenizer {
        Some(path) => path,
        None if beside.exists() => &beside,
        None => return Ok(None),
    };
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("could not read `{name}`"))?;
    let mut tokenizer = Tokenizer::from_bytes(bytes)
        .map_err(|error| anyhow!("`{name}` is no tokenizer: {error}"))?;
    // As in training, a text that spells a special token does not become it.
    tokenizer.set_encode_special_tokens(true);
    Ok(Some(tokenizer))
}

/// The ids to go on with, at least one and all below `vocab_size`.
fn prompt(args: &GenerateArgs, tokenizer: Option<&Tokenizer>, vocab_size: u32) -> Result<Vec<i64>> {
    if let Some(path) = &args.tokens {
        return one_row(path, vocab_size);
    }
    let Some(tokenizer) = tokenizer else {
        bail!(
            "`--prompt` needs a tokenizer and `{}` does not exist; name one by `--tokenizer`, or \
             give token ids by `--tokens`",
            args.model.join(TOKENIZER_FILE).display()
        );
    };
    let text = args.prompt.as_deref().unwrap_or_default();
    let encoding = tokenizer
        .encode(text, true)
        .map_err(|error| anyhow!("could not encode `--prompt`: {error}"))?;
    let ids = encoding.get_ids();
    ensure!(!ids.is_empty(), "`--prompt` is empty; valid: a text of at least one token");
    if let Some(id) = ids.iter().find(|id| **id >= vocab_size) {
        bail!(
            "`--prompt` holds token {id}; `vocab_size` {vocab_size} allows 0 to {}, so this is not \
             the model's tokenizer",
            vocab_size - 1
        );
    }
    Ok(ids.iter().map(|id| i64::from(*id)).collect())
}

fn one_row(path: &Path, vocab_size: u32) -> Result<Vec<i64>> {
    let (ids, length) = input::tokens(path, vocab_size)?;
    let rows = ids.len() / usize::try_from(length)?;
    ensure!(rows == 1, "`{}` holds {rows} rows; valid: one", path.display());
    Ok(ids)
}

/// The text of ids, special tokens left out.
fn decode(tokenizer: &Tokenizer, ids: &[i64]) -> Result<String> {
    let ids: Vec<u32> = ids.iter().map(|id| u32::try_from(*id)).collect::<Result<_, _>>()?;
    let unknown = ids.iter().filter(|id| tokenizer.id_to_token(**id).is_none()).count();
    if unknown > 0 {
        warn(&format!("{unknown} of the tokens are not in the tokenizer and have no text"));
    }
    tokenizer.decode(&ids, true).map_err(|error| anyhow!("could not decode the tokens: {error}"))
}

/// The text after that of the prompt: some tokenizers write a token differently where a text begins,
/// so the added ids are not decoded alone.
fn added(tokenizer: &Tokenizer, prompt: &[i64], text: &str) -> Result<String> {
    let before = decode(tokenizer, prompt)?;
    let common = before.chars().zip(text.chars()).take_while(|(a, b)| a == b);
    let bytes: usize = common.map(|(letter, _)| letter.len_utf8()).sum();
    Ok(text[bytes..].to_owned())
}
