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
    ends: Vec<(i64, Ending)>,
    sampler: Sampler,
    seed: u64,
    max_new_tokens: usize,
    is_json: bool,
}

/// Why no more tokens were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    MaxNewTokens,
    EndOfDocument,
    StopToken,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Generated {
    /// The ids that the model was given.
    prompt_tokens: Vec<i64>,
    /// The ids that it added, the end of the document or the stop token among them where it came.
    new_tokens: Vec<i64>,
    /// The text of the added ids without the stop token; none without a tokenizer.
    text: Option<String>,
    /// Why it ended.
    end: Ending,
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
        let vocab_size = model.config().shape.vocab_size;
        let prompt = prompt(args, tokenizer.as_ref(), vocab_size)?;
        let ends = ends(args, tokenizer.as_ref(), vocab_size)?;
        Ok(Self {
            model,
            tokenizer,
            prompt,
            ends,
            sampler,
            seed: args.seed,
            max_new_tokens: usize::try_from(args.max_new_tokens)?,
            is_json: args.json,
        })
    }

    /// Generates and prints.
    pub(super) fn run(self) -> Result<()> {
        let mut continuation = self.model.continuation(&self.prompt, self.sampler);
        let (mut new_tokens, mut end) = (Vec::new(), Ending::MaxNewTokens);
        for token in continuation.by_ref().take(self.max_new_tokens) {
            let token = token?;
            new_tokens.push(token);
            if let Some((_, found)) = self.ends.iter().find(|(id, _)| *id == token) {
                end = *found;
                break;
            }
        }
        let state_bytes = continuation.state().bytes();
        let n_of_text = new_tokens.len() - usize::from(end == Ending::StopToken);
        let whole = [&self.prompt[..], &new_tokens[..n_of_text]].concat();
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

/// The tokens at which the text ends, each with what is said then.
fn ends(
    args: &GenerateArgs,
    tokenizer: Option<&Tokenizer>,
    vocab_size: u32,
) -> Result<Vec<(i64, Ending)>> {
    let of_document = tokenizer.and_then(|tokenizer| tokenizer.token_to_id(END_OF_DOCUMENT));
    let mut ends: Vec<_> =
        of_document.into_iter().map(|id| (i64::from(id), Ending::EndOfDocument)).collect();
    for name in &args.stop_tokens {
        let id = stop_token(name, args, tokenizer)?;
        let Some(id) = id.filter(|id| *id < vocab_size) else {
            bail!(
                "`--stop-token {name}` is no token of the model; `vocab_size` {vocab_size} allows \
                 0 to {}",
                vocab_size - 1
            );
        };
        ends.push((i64::from(id), Ending::StopToken));
    }
    Ok(ends)
}

/// The id that a `--stop-token` names, which is one if it is all digits; none if no id is so large.
fn stop_token(
    name: &str,
    args: &GenerateArgs,
    tokenizer: Option<&Tokenizer>,
) -> Result<Option<u32>> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(name.parse().ok());
    }
    let Some(tokenizer) = tokenizer else {
        bail!(
            "`--stop-token {name}` needs a tokenizer and `{}` does not exist; name one by \
             `--tokenizer`, or give the token's id",
            args.model.join(TOKENIZER_FILE).display()
        );
    };
    let Some(id) = token_of(tokenizer, name)? else {
        bail!(
            "`--stop-token {name}` is not one token of the tokenizer; valid: a text that is one, the \
             name of a special token, or a token's id"
        );
    };
    Ok(Some(id))
}

/// The special token of this name, or the one token that the text is. A token that stands for other
/// texts too, as for all that is unknown, is none.
fn token_of(tokenizer: &Tokenizer, text: &str) -> Result<Option<u32>> {
    if tokenizer.get_added_vocabulary().is_special_token(text) {
        return Ok(tokenizer.token_to_id(text));
    }
    let encoding = tokenizer
        .encode(text, false)
        .map_err(|error| anyhow!("could not encode `--stop-token {text}`: {error}"))?;
    let [id] = encoding.get_ids() else { return Ok(None) };
    let is_its_text = tokenizer.decode(&[*id], false).is_ok_and(|decoded| decoded == text);
    Ok(is_its_text.then_some(*id))
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
