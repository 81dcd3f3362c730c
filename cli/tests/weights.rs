//! `gradus weights` as people run it; that the converted weights compute the same, the tests in
//! `e2e` show.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod program;

use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use program::{gradus, shown};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hugging_face").join(case)
}

/// A folder with the golden case as `stock`, so that messages have short paths.
fn folder(case: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(golden(case).join("model"), folder.path().join("stock")).unwrap();
    folder
}

#[test]
fn an_import_says_what_the_model_is_and_what_was_widened() {
    let folder = folder("gqa-bf16");
    let output = gradus(folder.path(), &["weights", "import", "stock", "--out", "model"]);
    assert_snapshot!(shown(&output), @r"
    status 0
    --- out
    imported `stock` to `model`
    model        llama, 2 layers, 4 heads (2 for keys and values), untied embeddings
    widths       d_model 24, ffn_hidden 56, vocab_size 53
    parameters   14.2k (11.6k without embeddings)
    tensors      21, of them 21 BF16 widened to F32
    size         55.4 KiB
    stop tokens  2 (`gradus-worker generate --stop-token 2`)
    --- err
    ");
    assert!(folder.path().join("model/model.safetensors").is_file());
}

#[test]
fn a_dry_run_checks_and_writes_nothing() {
    let folder = folder("mha-tied");
    let args = ["weights", "import", "stock", "--out", "model", "--dry-run"];
    let output = gradus(folder.path(), &args);
    assert_snapshot!(shown(&output), @r"
    status 0
    --- out
    dry run: would import `stock` to `model`
    model        llama, 2 layers, 3 heads, tied embeddings
    widths       d_model 24, ffn_hidden 56, vocab_size 53
    parameters   14.1k (12.8k without embeddings)
    tensors      20
    size         54.9 KiB
    stop tokens  2 (`gradus-worker generate --stop-token 2`)
    --- err
    ");
    assert!(!folder.path().join("model").exists());
}

#[test]
fn an_export_prints_json() {
    let folder = folder("gqa-untied-sharded");
    let quiet = ["weights", "import", "stock", "--out", "model", "--quiet"];
    assert_snapshot!(shown(&gradus(folder.path(), &quiet)), @r"
    status 0
    --- out
    model
    --- err
    ");
    let args =
        ["weights", "export", "model", "--out", "theirs", "--context-length", "64", "--json"];
    assert_snapshot!(shown(&gradus(folder.path(), &args)), @r#"
    status 0
    --- out
    {
      "direction": "export",
      "is_dry_run": false,
      "source": "model",
      "out": "theirs",
      "config": {
        "architecture": "llama",
        "vocab_size": 53,
        "d_model": 24,
        "n_layers": 2,
        "n_heads": 6,
        "ffn_hidden": 56,
        "tie_embeddings": false,
        "norm": "rmsnorm",
        "norm_eps": 0.00001,
        "embedding_scale": false,
        "ffn_activation": "silu",
        "n_kv_heads": 2,
        "rope": "half",
        "rope_base": 500000.0
      },
      "parameters_total": 13800,
      "parameters_non_embedding": 11256,
      "n_tensors": 21,
      "weights_bytes": 55200,
      "widened": {},
      "ignored_keys": [],
      "ignored_tensors": [],
      "stop_tokens": []
    }
    --- err
    "#);
}

#[test]
fn an_export_writes_the_configuration_that_transformers_reads() {
    let folder = folder("gqa-untied-sharded");
    let import = ["weights", "import", "stock", "--out", "model", "--quiet"];
    assert!(gradus(folder.path(), &import).status.success());
    let export = ["weights", "export", "model", "--out", "theirs", "--context-length", "64"];
    assert!(gradus(folder.path(), &export).status.success());
    let config = std::fs::read_to_string(folder.path().join("theirs/config.json")).unwrap();
    assert_snapshot!(config, @r#"
    {
      "architectures": [
        "LlamaForCausalLM"
      ],
      "attention_bias": false,
      "bos_token_id": null,
      "eos_token_id": null,
      "head_dim": 4,
      "hidden_act": "silu",
      "hidden_size": 24,
      "intermediate_size": 56,
      "max_position_embeddings": 64,
      "mlp_bias": false,
      "model_type": "llama",
      "num_attention_heads": 6,
      "num_hidden_layers": 2,
      "num_key_value_heads": 2,
      "pad_token_id": null,
      "rms_norm_eps": 0.00001,
      "rope_parameters": {
        "rope_theta": 500000.0,
        "rope_type": "default"
      },
      "rope_theta": 500000.0,
      "tie_word_embeddings": false,
      "torch_dtype": "float32",
      "vocab_size": 53
    }
    "#);
}

#[test]
fn a_refused_model_is_the_users_error_and_makes_no_folder() {
    let folder = folder("mha-tied");
    let quiet = ["weights", "import", "stock", "--out", "model", "--quiet"];
    assert!(gradus(folder.path(), &quiet).status.success());
    let config = folder.path().join("model/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"half\"", "\"interleaved_full\"")).unwrap();
    let args = ["weights", "export", "model", "--out", "theirs"];
    assert_snapshot!(shown(&gradus(folder.path(), &args)), @r"
    status 2
    --- out
    --- err
    error: `model/config.json` describes a model that cannot be converted
      because: `rope` is `interleaved_full`; valid: `half`, the only one that `LlamaForCausalLM` has
    ");
    assert!(!folder.path().join("theirs").exists());
    let args = ["weights", "import", "stock", "--out", "model"];
    assert_snapshot!(shown(&gradus(folder.path(), &args)), @r"
    status 2
    --- out
    --- err
    error: `model` is there and is no empty folder; give another `--out`
    ");
}
