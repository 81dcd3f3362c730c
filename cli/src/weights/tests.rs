use std::error::Error;
use std::fs::{read, read_dir, write};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A model on disk in the making: its configuration and its tensors.
struct Files {
    config: Value,
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

/// A tensor of F32 numbers, each different from its neighbours.
fn numbers(shape: &[usize], first: f32) -> (Dtype, Vec<usize>, Vec<u8>) {
    let n_numbers: usize = shape.iter().product();
    // Sums up to 2^24 are exact, so that every number differs from the next.
    let values = (0..n_numbers).scan(first, |next, _| {
        *next += 1.0;
        Some(*next)
    });
    (Dtype::F32, shape.to_vec(), values.flat_map(f32::to_le_bytes).collect())
}

impl Files {
    /// A LLaMA of one layer in the Hugging Face layout.
    fn hugging_face() -> Self {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 5,
            "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 6, "tie_word_embeddings": false,
        });
        let keys = config.as_object().unwrap();
        let config_of_ours = HuggingFaceModel::from_map(keys).unwrap().config;
        let tensors = hugging_face_tensors(&config_of_ours).unwrap().into_iter().enumerate();
        let tensors = tensors.map(|(number, pair)| {
            let shape: Vec<usize> =
                pair.tensor.shape.iter().map(|n| usize::try_from(*n).unwrap()).collect();
            (pair.hugging_face_name, numbers(&shape, 100.0 * number as f32))
        });
        Self { config, tensors: tensors.collect() }
    }

    /// With tied embeddings, and without a tensor for the head.
    fn tied() -> Self {
        let mut files = Self::hugging_face();
        files.config["tie_word_embeddings"] = true.into();
        files.tensors.remove("lm_head.weight");
        files
    }

    fn insert(&mut self, name: &str, tensor: (Dtype, Vec<usize>, Vec<u8>)) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    fn bytes(&self, holds: impl Fn(&str) -> bool) -> Vec<u8> {
        let views = self.tensors.iter().filter(|(name, _)| holds(name)).map(
            |(name, (dtype, shape, bytes))| {
                (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
            },
        );
        safetensors::serialize(views, None).unwrap()
    }

    /// In a folder of its own, with all tensors in one file.
    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path().join(CONFIG_FILE), self.config.to_string()).unwrap();
        write(folder.path().join(MODEL_FILE), self.bytes(|_| true)).unwrap();
        folder
    }

    /// In a folder of its own, with the embedding in one file, the rest in another, and an index.
    fn sharded(&self) -> TempDir {
        let folder = self.folder();
        std::fs::remove_file(folder.path().join(MODEL_FILE)).unwrap();
        let is_first = |name: &str| name == "model.embed_tokens.weight";
        write(folder.path().join("a.safetensors"), self.bytes(is_first)).unwrap();
        write(folder.path().join("b.safetensors"), self.bytes(|name| !is_first(name))).unwrap();
        let file = |name: &str| if is_first(name) { "a.safetensors" } else { "b.safetensors" };
        let map: Map<String, Value> =
            self.tensors.keys().map(|name| (name.clone(), file(name).into())).collect();
        write_index(&folder, &map);
        folder
    }
}

fn write_index(folder: &TempDir, weight_map: &Map<String, Value>) {
    let index = json!({ "metadata": {"total_size": 0}, "weight_map": weight_map });
    write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
}

fn read_index(folder: &TempDir) -> Map<String, Value> {
    let text = read(folder.path().join("model.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_slice(&text).unwrap();
    index["weight_map"].as_object().unwrap().clone()
}

/// The error and its causes, with the folder's own path shortened.
fn message(error: &WeightsError, folder: &Path) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace(&folder.display().to_string(), "DIR")
}

#[track_caller]
fn check_refused(folder: &TempDir, expected: &str) {
    let error = Transfer::import(folder.path()).unwrap_err();
    assert!(error.is_refusal());
    let message = message(&error, folder.path());
    assert!(message.starts_with(expected), "{message}");
}

#[track_caller]
fn check_files_refused(files: &Files, expected: &str) {
    check_refused(&files.folder(), expected);
}

/// Imports into a folder beside nothing else; gives both.
fn imported(folder: &TempDir) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("model");
    Transfer::import(folder.path()).unwrap().write(&out).unwrap();
    (place, out)
}

#[test]
fn imported_weights_are_the_file_that_a_trainer_would_write() {
    let files = Files::hugging_face();
    let config = HuggingFaceModel::from_map(files.config.as_object().unwrap()).unwrap().config;
    let pairs = hugging_face_tensors(&config).unwrap();
    let ours = Files {
        config: Value::Null,
        tensors: pairs
            .into_iter()
            .map(|pair| (pair.tensor.name, files.tensors[&pair.hugging_face_name].clone()))
            .collect(),
    };
    for folder in [files.folder(), files.sharded()] {
        let (_place, out) = imported(&folder);
        assert_eq!(read(out.join(MODEL_FILE)).unwrap(), ours.bytes(|_| true));
        let text = read(out.join(CONFIG_FILE)).unwrap();
        assert_eq!(text, serde_json::to_vec_pretty(&config).unwrap());
    }
}

#[test]
fn weights_that_go_there_and_back_are_the_same_bit_for_bit() {
    for files in [Files::hugging_face(), Files::tied()] {
        let (place, ours) = imported(&files.folder());
        let theirs = place.path().join("theirs");
        Transfer::export(&ours, 64).unwrap().write(&theirs).unwrap();
        let bytes = read(theirs.join(MODEL_FILE)).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let format = metadata.metadata().as_ref().and_then(|extra| extra.get("format"));
        assert_eq!(format.map(String::as_str), Some("pt"));
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.len(), files.tensors.len());
        for (name, (dtype, shape, bytes)) in &files.tensors {
            let tensor = tensors.tensor(name).unwrap();
            assert_eq!((tensor.dtype(), tensor.shape()), (*dtype, shape.as_slice()), "{name}");
            assert_eq!(tensor.data(), bytes, "{name}");
        }
    }
}

#[test]
fn a_tensor_of_many_pieces_keeps_every_number() {
    // Aim: no number is lost, doubled or moved where one piece ends and the next begins.
    let n_rows = 300_001;
    let mut files = Files::tied();
    files.config["vocab_size"] = n_rows.into();
    let embedding = numbers(&[n_rows, 4], 0.0);
    files.insert("model.embed_tokens.weight", embedding.clone());
    let (_place, out) = imported(&files.folder());
    let bytes = read(out.join(MODEL_FILE)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert!(tensors.tensor("embedding.weight").unwrap().data() == embedding.2);
}

#[test]
fn half_precision_is_widened_exactly() {
    // Aim: the widening is that of IEEE 754 and bfloat16, also for subnormal numbers.
    let halves = [0x0001_u16, 0x8000, 0x3C00, 0x7BFF, 0xFC00];
    let brains = [0x0001_u16, 0x8000, 0x3F80, 0x7F7F, 0xFF80];
    let subnormal = f32::from_bits(0x0001_0000);
    let largest = f32::from_bits(0x7F7F_0000);
    for (dtype, bits, values) in [
        (Dtype::F16, halves, [2.0_f32.powi(-24), -0.0, 1.0, 65504.0, f32::NEG_INFINITY]),
        (Dtype::BF16, brains, [subnormal, -0.0, 1.0, largest, f32::NEG_INFINITY]),
    ] {
        let mut files = Files::tied();
        let repeated = bits.iter().cycle().take(20).flat_map(|bits| bits.to_le_bytes());
        files.insert("model.embed_tokens.weight", (dtype, vec![5, 4], repeated.collect()));
        let folder = files.folder();
        let transfer = Transfer::import(folder.path()).unwrap();
        assert_eq!(transfer.widened(), BTreeMap::from([(format!("{dtype}"), 1)]));
        let (_place, out) = imported(&folder);
        let bytes = read(out.join(MODEL_FILE)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let embedding = tensors.tensor("embedding.weight").unwrap();
        assert_eq!(embedding.dtype(), Dtype::F32);
        let expected: Vec<u8> =
            values.iter().cycle().take(20).flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(embedding.data(), expected);
    }
}

#[test]
fn tensors_that_the_configuration_already_says_are_named_and_left_out() {
    let mut files = Files::tied();
    files.insert("lm_head.weight", files.tensors["model.embed_tokens.weight"].clone());
    let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
    files.insert(buffer, numbers(&[1], 0.0));
    let transfer = Transfer::import(files.folder().path()).unwrap();
    assert_eq!(transfer.ignored_tensors, [buffer, "lm_head.weight"]);
    assert_eq!(transfer.n_tensors(), 11);
}

#[test]
fn the_tokens_that_end_a_text_are_those_of_generation_or_else_of_the_model() {
    let mut files = Files::hugging_face();
    let stop_tokens = |folder: &TempDir| Transfer::import(folder.path()).unwrap().stop_tokens;
    assert_eq!(stop_tokens(&files.folder()), Vec::<u64>::new());
    for (value, expected) in [
        (json!(2), vec![2_u64]),
        (json!([2, 4]), vec![2, 4]),
        (json!(null), vec![]),
        (json!("</s>"), vec![]),
    ] {
        files.config["eos_token_id"] = value;
        assert_eq!(stop_tokens(&files.folder()), expected);
    }
    files.config["eos_token_id"] = 2.into();
    let folder = files.folder();
    let generation = folder.path().join(GENERATION_FILE);
    write(&generation, r#"{"eos_token_id": [3, 4], "top_p": 0.9}"#).unwrap();
    assert_eq!(stop_tokens(&folder), [3_u64, 4]);
    write(&generation, r#"{"top_p": 0.9}"#).unwrap();
    assert_eq!(stop_tokens(&folder), [2_u64]);
}

#[test]
fn a_head_of_its_own_beside_tied_embeddings_is_refused() {
    let mut files = Files::tied();
    files.insert("lm_head.weight", numbers(&[5, 4], 7.5));
    check_files_refused(
        &files,
        "`lm_head.weight` is not `model.embed_tokens.weight`, but `tie_word_embeddings` is true; \
         valid: false, or weights without `lm_head.weight`",
    );
}

#[test]
fn tensors_that_are_missing_or_too_many_are_refused_by_name() {
    let mut files = Files::hugging_face();
    files.tensors.remove("lm_head.weight");
    let not_those = "the tensors are not those of `config.json`";
    check_files_refused(&files, &format!("{not_those}; missing: `lm_head.weight`"));
    files.insert("model.layers.0.self_attn.q_proj.bias", numbers(&[4], 0.0));
    check_files_refused(
        &files,
        &format!(
            "{not_those}; missing: `lm_head.weight`; not of the model: \
             `model.layers.0.self_attn.q_proj.bias`"
        ),
    );
    let mut files = Files::hugging_face();
    files.config["num_hidden_layers"] = 2.into();
    check_files_refused(
        &files,
        &format!(
            "{not_those}; missing: `model.layers.1.input_layernorm.weight`, \
             `model.layers.1.self_attn.q_proj.weight`, `model.layers.1.self_attn.k_proj.weight` \
             and 6 more"
        ),
    );
}

#[test]
fn a_tensor_of_another_shape_is_refused() {
    let mut files = Files::hugging_face();
    files.insert("model.layers.0.mlp.up_proj.weight", numbers(&[4, 6], 0.0));
    check_files_refused(
        &files,
        "`model.layers.0.mlp.up_proj.weight` has the shape [4, 6]; valid: [6, 4], by `config.json`",
    );
}

#[test]
fn numbers_that_would_lose_digits_or_are_quantised_are_refused() {
    for (dtype, n_bytes) in [(Dtype::F64, 32), (Dtype::I8, 4), (Dtype::F8_E4M3, 4)] {
        let mut files = Files::hugging_face();
        files.insert("model.norm.weight", (dtype, vec![4], vec![0; n_bytes]));
        check_files_refused(
            &files,
            &format!("`model.norm.weight` has elements of type {dtype}; valid: F32, F16, BF16"),
        );
    }
}

#[test]
fn a_damaged_file_is_refused() {
    let folder = Files::hugging_face().folder();
    let path = folder.path().join(MODEL_FILE);
    let bytes = read(&path).unwrap();
    let no_file = "`DIR/model.safetensors` is no whole safetensors file: ";
    for (content, problem) in [
        (&bytes[..5], "it has 5 bytes".to_owned()),
        (&bytes[..20], "its header would have".to_owned()),
        (&bytes[..bytes.len() - 1], format!("it has {} bytes of {}", bytes.len() - 1, bytes.len())),
        (&[&bytes[..], &[0]].concat(), format!("it has {} bytes of", bytes.len() + 1)),
        (&[2, 0, 0, 0, 0, 0, 0, 0, b'[', b']'], "invalid type".to_owned()),
    ] {
        write(&path, content).unwrap();
        check_refused(&folder, &format!("{no_file}{problem}"));
    }
}

#[test]
fn a_folder_without_weights_that_can_be_read_is_refused() {
    let folder = Files::hugging_face().folder();
    let path = folder.path().join(MODEL_FILE);
    std::fs::rename(&path, folder.path().join("pytorch_model.bin")).unwrap();
    check_refused(
        &folder,
        "`DIR` has neither `model.safetensors` nor `model.safetensors.index.json`; pickled weights",
    );
    let folder = Files::hugging_face().sharded();
    write(folder.path().join(MODEL_FILE), "").unwrap();
    check_refused(&folder, "`DIR` has `model.safetensors` and `model.safetensors.index.json`");
}

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let embedding = "model.embed_tokens.weight";
    for (tensor, file, problem) in [
        (embedding, json!("b.safetensors"), "`b.safetensors` does not hold `model.embed"),
        ("other", json!("a.safetensors"), "`a.safetensors` does not hold `other`"),
        (embedding, json!("../a.safetensors"), "`../a.safetensors` is not the name of a file"),
        (embedding, json!("/a.safetensors"), "`/a.safetensors` is not the name of a file"),
    ] {
        let folder = Files::hugging_face().sharded();
        let mut map = read_index(&folder);
        map.insert(tensor.to_owned(), file);
        write_index(&folder, &map);
        let index = "`DIR/model.safetensors.index.json` does not fit its files";
        let error = Transfer::import(folder.path()).unwrap_err();
        let message = message(&error, folder.path());
        assert!(message.starts_with(index) && message.contains(problem), "{message}");
    }
    let folder = Files::hugging_face().sharded();
    let mut map = read_index(&folder);
    map.remove("lm_head.weight");
    write_index(&folder, &map);
    check_refused(
        &folder,
        "`DIR/model.safetensors.index.json` does not fit its files: it does not say that \
         `b.safetensors` holds `lm_head.weight`",
    );
    std::fs::remove_file(folder.path().join("a.safetensors")).unwrap();
    check_refused(&folder, "could not read `DIR/a.safetensors`");
    write(folder.path().join("model.safetensors.index.json"), "{}").unwrap();
    check_refused(&folder, "`DIR/model.safetensors.index.json` is not the JSON");
}

#[test]
fn a_configuration_that_cannot_be_converted_is_refused_with_its_file() {
    let mut files = Files::hugging_face();
    files.config["attention_bias"] = true.into();
    check_files_refused(
        &files,
        "`DIR/config.json` describes a model that cannot be converted: `attention_bias` is true",
    );
    files.config = json!([]);
    check_files_refused(&files, "`DIR/config.json` is not the JSON that it should be");
    let empty = tempfile::tempdir().unwrap();
    check_refused(&empty, "could not read `DIR/config.json`");
}

#[test]
fn a_model_of_ours_that_transformers_cannot_express_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (changes, expected) in [
        (json!({"norm": "layernorm"}), "describes a model that cannot be converted: `norm`"),
        (json!({"architecture": "tnl"}), "describes a model that cannot be converted: `archi"),
        (json!({"n_head": 2}), "is no configuration of a model of ours: unknown key `n_head`"),
    ] {
        let mut config = json!({
            "architecture": "llama", "vocab_size": 5, "d_model": 4, "n_layers": 2, "n_heads": 2,
            "ffn_hidden": 6,
        });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        write(folder.path().join(CONFIG_FILE), config.to_string()).unwrap();
        let error = Transfer::export(folder.path(), 8).unwrap_err();
        let message = message(&error, folder.path());
        assert!(message.starts_with(&format!("`DIR/config.json` {expected}")), "{message}");
    }
}

#[test]
fn a_place_that_is_taken_is_refused_and_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    write(path("file"), "mine").unwrap();
    std::fs::create_dir(path("full")).unwrap();
    write(path("full/letter"), "mine").unwrap();
    std::os::unix::fs::symlink(path("full"), path("link")).unwrap();
    let source = Files::hugging_face().folder();
    let transfer = Transfer::import(source.path()).unwrap();
    for name in ["file", "full", "link"] {
        let error = transfer.write(&path(name)).unwrap_err();
        assert!(matches!(error, WeightsError::OutTaken { .. }), "{error}");
    }
    for nowhere in [".", "..", "/"] {
        let error = transfer.write(Path::new(nowhere)).unwrap_err();
        assert!(matches!(error, WeightsError::OutName { .. }), "{error}");
    }
    assert_eq!(read(path("full/letter")).unwrap(), b"mine");
    assert_eq!(read_dir(place.path()).unwrap().count(), 3);
}

#[test]
fn an_empty_or_absent_folder_is_filled() {
    let source = Files::hugging_face().folder();
    let transfer = Transfer::import(source.path()).unwrap();
    let place = tempfile::tempdir().unwrap();
    for name in ["empty", "a/b/c"] {
        let out = place.path().join(name);
        if name == "empty" {
            std::fs::create_dir(&out).unwrap();
        }
        transfer.write(&out).unwrap();
        assert_eq!(read_dir(&out).unwrap().count(), 2);
    }
    assert_eq!(read_dir(place.path()).unwrap().count(), 2);
}

#[test]
fn a_conversion_that_fails_half_way_leaves_nothing() {
    // Method: the source shrinks between the check and the copy, as when a disk goes away.
    let source = Files::hugging_face().folder();
    let transfer = Transfer::import(source.path()).unwrap();
    let path = source.path().join(MODEL_FILE);
    let n_bytes = read(&path).unwrap().len() as u64;
    std::fs::File::options().write(true).open(&path).unwrap().set_len(n_bytes - 8).unwrap();
    let place = tempfile::tempdir().unwrap();
    let error = transfer.write(&place.path().join("model")).unwrap_err();
    assert!(matches!(error, WeightsError::Read { .. }), "{error}");
    assert_eq!(read_dir(place.path()).unwrap().count(), 0);
}
