use serde_json::{Map, Value, json};

use super::*;

/// What Transformers 5.23 writes for a model with grouped queries.
fn written_by_transformers() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 1, "dtype": "float32", "eos_token_id": 2, "head_dim": 8,
        "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02,
        "intermediate_size": 80, "max_position_embeddings": 2048, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 2,
        "num_key_value_heads": 2, "pad_token_id": null, "pretraining_tp": 1,
        "rms_norm_eps": 1e-6,
        "rope_parameters": { "rope_theta": 500_000.0, "rope_type": "default" },
        "tie_word_embeddings": false, "transformers_version": "5.23.0", "use_cache": true,
        "vocab_size": 64,
    })
}

fn keys(changes: Value) -> Map<String, Value> {
    let (Value::Object(mut keys), Value::Object(changes)) = (written_by_transformers(), changes)
    else {
        panic!("both are objects");
    };
    keys.extend(changes);
    keys
}

fn read(changes: Value) -> Result<HuggingFaceModel, HuggingFaceError> {
    HuggingFaceModel::from_map(&keys(changes))
}

fn llama() -> ModelConfig {
    read(json!({})).unwrap().config
}

/// The message of a refused import, with its cause.
#[track_caller]
fn check_refused(changes: Value, message: &str) {
    let error = read(changes).unwrap_err();
    let text = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    assert_eq!(text, message);
}

#[test]
fn a_stock_llama_is_read_key_by_key() {
    let model = read(json!({})).unwrap();
    let expected = ModelConfig {
        shape: Shape { vocab_size: 64, d_model: 32, n_layers: 2, n_heads: 4, ffn_hidden: 80 },
        tie_embeddings: false,
        norm: Norm::RmsNorm,
        norm_eps: 1e-6,
        embedding_scale: false,
        ffn_activation: FfnActivation::Silu,
        mixer: MixerConfig::Llama { n_kv_heads: 2, rope: Rope::Half, rope_base: 500_000.0 },
    };
    assert_eq!(model.config, expected);
    assert_eq!(model.ignored_keys, Vec::<String>::new());
}

#[test]
fn absent_keys_have_the_defaults_of_transformers_and_not_ours() {
    let Value::Object(minimal) = json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 4, "intermediate_size": 80, "rope_scaling": null,
    }) else {
        panic!("an object");
    };
    let config = HuggingFaceModel::from_map(&minimal).unwrap().config;
    assert!(!config.tie_embeddings);
    assert_eq!(config.norm_eps, 1e-6);
    let expected = MixerConfig::Llama { n_kv_heads: 4, rope: Rope::Half, rope_base: 10_000.0 };
    assert_eq!(config.mixer, expected);
}

#[test]
fn the_base_of_the_rotation_is_found_where_old_and_new_files_have_it() {
    let base = |changes: Value| match read(changes).unwrap().config.mixer {
        MixerConfig::Llama { rope_base, .. } => rope_base,
        other => panic!("{other:?}"),
    };
    assert_eq!(base(json!({ "rope_parameters": null, "rope_theta": 700 })), 700.0);
    assert_eq!(base(json!({ "rope_parameters": {"type": "default"}, "rope_theta": 7.0 })), 7.0);
    assert_eq!(base(json!({ "rope_theta": 500_000, "rope_scaling": null })), 500_000.0);
}

#[test]
fn keys_that_the_class_does_not_read_are_named() {
    let model = read(json!({ "unsloth_version": "1", "use_mrope": false })).unwrap();
    assert_eq!(model.ignored_keys, ["unsloth_version", "use_mrope"]);
}

#[test]
fn another_class_of_models_is_refused() {
    check_refused(
        json!({ "model_type": "mistral" }),
        "`model_type` is \"mistral\"; valid: `llama`; other models compute something else",
    );
    check_refused(
        json!({ "architectures": ["LlamaForSequenceClassification"] }),
        "`architectures` is [\"LlamaForSequenceClassification\"]; valid: [\"LlamaForCausalLM\"]",
    );
    check_refused(
        json!({ "architectures": null, "model_type": null }),
        "`model_type` is missing; valid: `llama`",
    );
}

#[test]
fn a_key_that_changes_the_mathematics_is_refused() {
    let no_bias = "valid: `false`; a linear layer of the contract has no bias";
    let all_tokens = "valid: absent; the contract's attention is over all earlier tokens";
    let no_cap = "valid: absent; the contract does not cap scores or logits";
    for (field, value, valid) in [
        ("attention_bias", json!(true), no_bias),
        ("mlp_bias", json!(true), no_bias),
        ("hidden_act", json!("gelu"), "valid: `silu`"),
        ("sliding_window", json!(4096), all_tokens),
        ("use_sliding_window", json!(true), all_tokens),
        ("is_causal", json!(false), "valid: `true`; the contract's attention is causal"),
        (
            "quantization_config",
            json!({"bits": 4}),
            "valid: absent; only F32, F16 and BF16 weights can be read",
        ),
        (
            "auto_map",
            json!({"AutoModel": "a.B"}),
            "valid: absent; a model with code of its own may be any model",
        ),
        ("partial_rotary_factor", json!(0.5), "valid: 1; every channel is rotated"),
        ("attn_logit_softcapping", json!(50.0), no_cap),
        ("final_logit_softcapping", json!(30.0), no_cap),
        ("head_dim", json!(16), "valid: 8, that is `hidden_size` / `num_attention_heads`"),
    ] {
        check_refused(json!({ field: value }), &format!("`{field}` is {value}; {valid}"));
    }
}

#[test]
fn every_other_rotation_is_refused() {
    let no_scaling = "the contract has no scaled rotation";
    check_refused(
        json!({ "rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "rope_parameters": null }),
        &format!("`rope_scaling.rope_type` is \"llama3\"; valid: `default`; {no_scaling}"),
    );
    check_refused(
        json!({ "rope_scaling": {"rope_type": "default", "factor": 8.0} }),
        &format!("`rope_scaling.factor` is 8.0; valid: absent; {no_scaling}"),
    );
    check_refused(
        json!({ "rope_parameters": {"rope_type": "yarn"} }),
        &format!("`rope_parameters.rope_type` is \"yarn\"; valid: `default`; {no_scaling}"),
    );
    check_refused(
        json!({ "rope_scaling": {"type": "linear"} }),
        &format!("`rope_scaling.type` is \"linear\"; valid: `default`; {no_scaling}"),
    );
    check_refused(
        json!({ "rope_parameters": {"partial_rotary_factor": 0.5} }),
        &format!("`rope_parameters.partial_rotary_factor` is 0.5; valid: absent; {no_scaling}"),
    );
    check_refused(
        json!({ "rope_scaling": "linear" }),
        "`rope_scaling` is \"linear\"; valid: an object",
    );
    check_refused(
        json!({ "rope_theta": 1e4 }),
        "`rope_parameters.rope_theta` is 500000.0; valid: 10000.0, as elsewhere in the file",
    );
}

#[test]
fn sizes_are_required_and_must_be_those_of_a_model() {
    check_refused(
        json!({ "hidden_size": null }),
        "`hidden_size` is missing; valid: a whole number from 1",
    );
    check_refused(
        json!({ "num_attention_heads": 5 }),
        "`hidden_size`, which becomes `d_model`, is not valid: `d_model` is 32; valid: a multiple \
         of `n_heads` 5, such as 30 or 35",
    );
    check_refused(
        json!({ "num_key_value_heads": 3 }),
        "`num_key_value_heads`, which becomes `n_kv_heads`, is not valid: `n_kv_heads` is 3; \
         valid: a divisor of `n_heads` 4",
    );
    check_refused(
        json!({ "rope_parameters": {"rope_theta": "1e4"} }),
        "`rope_theta`, which becomes `rope_base`, is not valid: `rope_base` is \"1e4\"; valid: a \
         number",
    );
}

#[test]
fn what_is_written_is_read_back_as_the_same_model() {
    for tie_embeddings in [false, true] {
        let config = ModelConfig { tie_embeddings, norm_eps: 3e-5, ..llama() };
        let keys = to_hugging_face(&config, 128).unwrap();
        let model = HuggingFaceModel::from_map(&keys).unwrap();
        assert_eq!(model, HuggingFaceModel { config, ignored_keys: Vec::new() });
    }
}

#[test]
fn only_a_stock_llama_can_be_written() {
    let llama = llama();
    let mixer =
        MixerConfig::Llama { n_kv_heads: 4, rope: Rope::InterleavedFull, rope_base: 10_000.0 };
    for (config, message) in [
        (
            ModelConfig::new(Architecture::Tnl, llama.shape).unwrap(),
            "`architecture` is `tnl`; valid: `llama`, the only one that `LlamaForCausalLM` has",
        ),
        (
            ModelConfig { norm: Norm::LayerNorm, ..llama },
            "`norm` is `layernorm`; valid: `rmsnorm`, the only one that `LlamaForCausalLM` has",
        ),
        (
            ModelConfig { mixer, ..llama },
            "`rope` is `interleaved_full`; valid: `half`, the only one that `LlamaForCausalLM` has",
        ),
        (
            ModelConfig { ffn_activation: FfnActivation::Identity, ..llama },
            "`ffn_activation` is `identity`; valid: `silu`, the only one that `LlamaForCausalLM` \
             has",
        ),
        (
            ModelConfig { embedding_scale: true, ..llama },
            "`embedding_scale` is true; valid: `false`: `LlamaForCausalLM` does not scale its \
             embedding",
        ),
    ] {
        assert_eq!(to_hugging_face(&config, 1).unwrap_err().to_string(), message);
        assert_eq!(hugging_face_tensors(&config).unwrap_err().to_string(), message);
    }
}

#[test]
fn every_tensor_has_its_name_on_the_other_side() {
    let one_layer = ModelConfig { shape: Shape { n_layers: 1, ..llama().shape }, ..llama() };
    let pairs = hugging_face_tensors(&one_layer).unwrap();
    let lines: Vec<String> = pairs
        .iter()
        .map(|pair| {
            format!("{} {:?} {}", pair.tensor.name, pair.tensor.shape, pair.hugging_face_name)
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    embedding.weight [64, 32] model.embed_tokens.weight
    layers.0.mixer_norm.weight [32] model.layers.0.input_layernorm.weight
    layers.0.mixer.q.weight [32, 32] model.layers.0.self_attn.q_proj.weight
    layers.0.mixer.k.weight [16, 32] model.layers.0.self_attn.k_proj.weight
    layers.0.mixer.v.weight [16, 32] model.layers.0.self_attn.v_proj.weight
    layers.0.mixer.o.weight [32, 32] model.layers.0.self_attn.o_proj.weight
    layers.0.channel_norm.weight [32] model.layers.0.post_attention_layernorm.weight
    layers.0.channel.gate.weight [80, 32] model.layers.0.mlp.gate_proj.weight
    layers.0.channel.up.weight [80, 32] model.layers.0.mlp.up_proj.weight
    layers.0.channel.down.weight [32, 80] model.layers.0.mlp.down_proj.weight
    final_norm.weight [32] model.norm.weight
    head.weight [64, 32] lm_head.weight
    ");
}
