//! `gradus-worker generate` adds the tokens that the parallel form would, as text where there is a
//! tokenizer, and refuses wrong input with exit status 2.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod program;

use std::fs;
use std::path::Path;
use std::process::Output;

use domain::spec::TokenizerSpec;
use program::{golden, worker};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tokenizers::{AddedToken, Tokenizer};
use worker::data::TextTokenizer;

fn generate(model: &Path, arguments: &[&str]) -> Output {
    let mut all = vec!["generate", "--model", model.to_str().unwrap()];
    all.extend(arguments);
    worker(&all)
}

#[track_caller]
fn text_of(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_str(&text_of(output)).unwrap()
}

/// A folder with a file of tokens.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(tokens: &Value) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.tokens(), tokens.to_string()).unwrap();
        folder
    }

    fn tokens(&self) -> String {
        self.0.path().join("tokens.json").to_str().unwrap().to_owned()
    }
}

/// The next token by `gradus-worker forward`, which knows nothing of states.
fn next_by_forward(model: &Path, text: &[i64]) -> i64 {
    let folder = Folder::new(&json!([text]));
    let out = folder.0.path().join("out.safetensors");
    let output = worker(&[
        "forward",
        "--model",
        model.to_str().unwrap(),
        "--tokens",
        &folder.tokens(),
        "--out",
        out.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    let vocab = logits.shape()[2];
    let last: Vec<f32> = logits.data()[(text.len() - 1) * vocab * 4..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let largest = (0..vocab).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
    i64::try_from(largest).unwrap()
}

#[test]
fn greedy_tokens_are_those_of_forward_for_every_architecture() {
    for name in ["llama-gqa-untied", "llama-study", "tnl-small", "hgrn2-small", "cosformer2-tpe8"] {
        let model = golden().join(name);
        let folder = Folder::new(&json!([[3, 1, 4, 1, 5]]));
        let arguments = ["--tokens", &folder.tokens(), "--max-new-tokens", "6"];
        let found = json_of(&generate(&model, &[&arguments[..], &["--json"]].concat()));
        let mut text = vec![3, 1, 4, 1, 5];
        for _ in 0..6 {
            text.push(next_by_forward(&model, &text));
        }
        assert_eq!(found["prompt_tokens"], json!([3, 1, 4, 1, 5]));
        assert_eq!(found["new_tokens"], json!(text[5..]), "{name}");
        assert_eq!(found["end"], "max_new_tokens");
        assert_eq!(found["text"], Value::Null);
        // Without `--json` and tokenizer: a file that `--tokens` takes again.
        assert_eq!(text_of(&generate(&model, &arguments)), format!("{}\n", json!([text])));
    }
}

/// A byte model whose head makes every token the likeliest after itself or what `head` says.
fn byte_model(folder: &Path, bigger: &[usize]) {
    // Aim: a text that is known beforehand. Method: identity embeddings of width 272, all other
    // weights 0, so the residual stream is the token itself and row i of the head asks for it.
    const VOCAB: usize = 272;
    let config = json!({
        "architecture": "llama", "vocab_size": VOCAB, "d_model": VOCAB, "n_layers": 1,
        "n_heads": 1, "ffn_hidden": 1, "tie_embeddings": false,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut embedding = vec![0.0_f32; VOCAB * VOCAB];
    let mut head = vec![0.0_f32; VOCAB * VOCAB];
    for token in 0..VOCAB {
        embedding[token * VOCAB + token] = 1.0;
        // Logit of `next` is channel `token` of the stream.
        let next = bigger.iter().position(|other| *other == token);
        let next = next.and_then(|at| bigger.get(at + 1)).copied().unwrap_or(token);
        head[next * VOCAB + token] = 1.0;
    }
    let zeros = vec![0.0_f32; VOCAB * VOCAB];
    let ones = vec![1.0_f32; VOCAB];
    let square = [VOCAB, VOCAB];
    let tensors: Vec<(&str, Vec<usize>, &[f32])> = vec![
        ("embedding.weight", square.to_vec(), &embedding),
        ("layers.0.mixer_norm.weight", vec![VOCAB], &ones),
        ("layers.0.mixer.q.weight", square.to_vec(), &zeros),
        ("layers.0.mixer.k.weight", square.to_vec(), &zeros),
        ("layers.0.mixer.v.weight", square.to_vec(), &zeros),
        ("layers.0.mixer.o.weight", square.to_vec(), &zeros),
        ("layers.0.channel_norm.weight", vec![VOCAB], &ones),
        ("layers.0.channel.gate.weight", vec![1, VOCAB], &zeros[..VOCAB]),
        ("layers.0.channel.up.weight", vec![1, VOCAB], &zeros[..VOCAB]),
        ("layers.0.channel.down.weight", vec![VOCAB, 1], &zeros[..VOCAB]),
        ("final_norm.weight", vec![VOCAB], &ones),
        ("head.weight", square.to_vec(), &head),
    ];
    let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, values)| {
            (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let dtype = safetensors::Dtype::F32;
        (*name, safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap())
        .unwrap();
}

fn byte_tokenizer() -> Vec<u8> {
    TextTokenizer::train(TokenizerSpec::Byte, std::iter::empty()).unwrap().to_json().unwrap()
}

#[test]
fn a_prompt_becomes_text_by_the_models_own_tokenizer_or_a_named_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // é is the bytes c3 a9.
    byte_model(path, &[b'b'.into(), 0xc3, 0xa9, b'!'.into()]);
    let elsewhere = path.join("elsewhere.json");
    fs::write(&elsewhere, byte_tokenizer()).unwrap();
    let arguments = ["--prompt", "ab", "--max-new-tokens", "4"];
    let named = ["--tokenizer", elsewhere.to_str().unwrap()];
    assert_eq!(text_of(&generate(path, &[&arguments[..], &named].concat())), "abé!!\n");
    fs::write(path.join("tokenizer.json"), byte_tokenizer()).unwrap();
    assert_eq!(text_of(&generate(path, &arguments)), "abé!!\n");
    let found = json_of(&generate(path, &[&arguments[..], &["--json"]].concat()));
    assert_eq!(found["prompt_tokens"], json!([97, 98]));
    assert_eq!(found["new_tokens"], json!([0xc3, 0xa9, 33, 33]));
    assert_eq!(found["text"], "é!!");
}

#[test]
fn the_end_of_a_document_ends_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    byte_model(path, &[b'a'.into(), b'.'.into(), 256]);
    fs::write(path.join("tokenizer.json"), byte_tokenizer()).unwrap();
    let arguments = ["--prompt", "a", "--max-new-tokens", "9"];
    assert_eq!(text_of(&generate(path, &arguments)), "a.\n");
    let found = json_of(&generate(path, &[&arguments[..], &["--json"]].concat()));
    assert_eq!(found["new_tokens"], json!([46, 256]));
    assert_eq!(found["end"], "end_of_document");
    assert_eq!(found["text"], ".");
}

#[test]
fn a_stop_token_ends_the_text_and_is_no_part_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    byte_model(path, &[b'a'.into(), b'.'.into(), b'\n'.into(), b'b'.into()]);
    fs::write(path.join("tokenizer.json"), byte_tokenizer()).unwrap();
    let start = ["--prompt", "a", "--max-new-tokens", "9"];
    for stop in [&["--stop-token", "\n"][..], &["--stop-token", "z", "--stop-token", "10"]] {
        let arguments = [&start[..], stop].concat();
        assert_eq!(text_of(&generate(path, &arguments)), "a.\n");
        let found = json_of(&generate(path, &[&arguments[..], &["--json"]].concat()));
        assert_eq!(found["new_tokens"], json!([46, 10]));
        assert_eq!(found["end"], "stop_token");
        assert_eq!(found["text"], ".");
    }
    // Without a tokenizer the ids are the text, and only ids can be named.
    fs::remove_file(path.join("tokenizer.json")).unwrap();
    let ids = Folder::new(&json!([[97]]));
    let tokens = ids.tokens();
    let arguments = ["--tokens", &tokens, "--max-new-tokens", "9", "--stop-token", "10"];
    assert_eq!(text_of(&generate(path, &arguments)), "[[97,46]]\n");
}

#[test]
fn a_special_token_is_a_stop_token_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Token 257 is the first that is no byte and does not end a document.
    byte_model(path, &[b'a'.into(), b'.'.into(), 257]);
    let mut tokenizer = Tokenizer::from_bytes(byte_tokenizer()).unwrap();
    tokenizer.add_special_tokens([AddedToken::from("</s>", true)]).unwrap();
    fs::write(path.join("tokenizer.json"), tokenizer.to_string(true).unwrap()).unwrap();
    let arguments = ["--prompt", "a", "--max-new-tokens", "9", "--stop-token", "</s>", "--json"];
    let found = json_of(&generate(path, &arguments));
    assert_eq!(found["new_tokens"], json!([46, 257]));
    assert_eq!(found["end"], "stop_token");
    assert_eq!(found["text"], ".");
}

#[test]
fn a_token_without_text_is_not_passed_over_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    byte_model(path, &[b'a'.into(), 260, b'b'.into()]);
    fs::write(path.join("tokenizer.json"), byte_tokenizer()).unwrap();
    let output = generate(path, &["--prompt", "a", "--max-new-tokens", "3"]);
    assert_eq!(text_of(&output), "abb\n");
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains("1 of the tokens are not in the tokenizer"), "{warning}");
}

#[test]
fn a_seed_draws_the_same_text_again() {
    let model = golden().join("tnl-small");
    let folder = Folder::new(&json!([[1, 2]]));
    let draw = |seed: &str| {
        let tokens = folder.tokens();
        let arguments = ["--tokens", &tokens, "--max-new-tokens", "40", "--temperature", "1.5"];
        let output =
            generate(&model, &[&arguments[..], &["--top-k", "50", "--seed", seed]].concat());
        text_of(&output)
    };
    assert_eq!(draw("7"), draw("7"));
    assert_ne!(draw("7"), draw("8"));
}

#[track_caller]
fn check_refused(model: &Path, arguments: &[&str], expected: &str) {
    let output = generate(model, arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(expected), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_input_is_refused_with_what_would_be_valid() {
    let model = golden().join("hgrn2-small");
    let one = Folder::new(&json!([[1, 2]]));
    let two = Folder::new(&json!([[1, 2], [3, 4]]));
    let bad = Folder::new(&json!([[1, 1000]]));
    let new = ["--max-new-tokens", "2"];
    let with = |arguments: &[&'static str]| -> Vec<String> {
        let owned = [&["--tokens"][..], &[""], &new, arguments].concat();
        owned.iter().map(|text| (*text).to_owned()).collect()
    };
    let refuse = |tokens: &Folder, arguments: &[&'static str], expected: &str| {
        let mut all = with(arguments);
        all[1] = tokens.tokens();
        check_refused(&model, &all.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    };
    refuse(&one, &["--temperature", "-1"], "`temperature` is -1; valid: 0 (greedy) or a positive");
    refuse(&one, &["--top-k", "0"], "`top_k` is 0; valid: at least 1");
    refuse(&one, &["--top-p", "1.2"], "`top_p` is 1.2; valid: more than 0 and at most 1");
    refuse(&two, &[], "holds 2 rows; valid: one");
    refuse(&bad, &[], "row 0, token 1 is 1000; `vocab_size`");
    refuse(&one, &["--tokenizer", "no-such-file"], "could not read `no-such-file`");
    refuse(&one, &["--prompt", "a"], "cannot be used with");
    refuse(&one, &["--stop-token", "a"], "`--stop-token a` needs a tokenizer and");
    for id in ["1000", "99999999999"] {
        refuse(&one, &["--stop-token", id], "is no token of the model; `vocab_size`");
    }
    check_refused(&model, &[&["--prompt", "a"][..], &new].concat(), "`--prompt` needs a tokenizer");
    check_refused(&model, &new, "required");
    check_refused(&model, &["--prompt", "a"], "--max-new-tokens");
    check_refused(
        &golden().join("nothing"),
        &[&["--tokens", &one.tokens()][..], &new].concat(),
        "nothing/config.json`: No such file",
    );
    let tokenizer = one.0.path().join("tokenizer.json");
    fs::write(&tokenizer, byte_tokenizer()).unwrap();
    let named = ["--tokenizer", tokenizer.to_str().unwrap()];
    let prompt = |text: &'static str| [&["--prompt", text][..], &new, &named].concat();
    check_refused(&model, &prompt(""), "`--prompt` is empty");
    // é is two bytes, though its letter stands for one in the file.
    let tokens = one.tokens();
    for text in ["ab", "é", ""] {
        let arguments = [&["--tokens", &tokens][..], &new, &named, &["--stop-token", text]];
        check_refused(&model, &arguments.concat(), "is not one token of the tokenizer");
    }
    check_refused(&model, &prompt("z"), "`--prompt` holds token 122; `vocab_size`");
    fs::write(&tokenizer, "{}").unwrap();
    check_refused(&model, &prompt("a"), "tokenizer.json` is no tokenizer");
}
