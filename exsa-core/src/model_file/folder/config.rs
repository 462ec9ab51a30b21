//! From `config.json` to metadata under llama.cpp's keys.

use super::json::Json;
use super::rope::Rope;
use crate::gguf::{Array, Metadata, Value};
use serde_json::Value as JsonValue;

/// A family of models: its name in `config.json` and in a GGUF, and what its converter does.
#[derive(Debug)]
pub(super) struct Family {
    model_type: &'static str,
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// Rows of queries and keys are reordered.
    pub(super) pairs_rows: bool,
    /// 1 is added to the weights of norms.
    pub(super) adds_one: bool,
    /// Norms around attention and MLP, before and behind.
    pub(super) four_norms: bool,
    /// Activation of the MLP.
    activation: &'static [&'static str],
}

const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "llama",
    pairs_rows: true,
    adds_one: false,
    four_norms: false,
    activation: &["silu", "swish"],
};

const GEMMA2: Family = Family {
    model_type: "gemma2",
    architecture: "gemma2",
    pairs_rows: false,
    adds_one: true,
    four_norms: true,
    activation: &["gelu_pytorch_tanh"],
};

const FAMILIES: [Family; 6] = [
    LLAMA,
    Family { model_type: "mistral", ..LLAMA },
    Family { model_type: "qwen2", architecture: "qwen2", pairs_rows: false, ..LLAMA },
    Family { model_type: "qwen3", architecture: "qwen3", pairs_rows: false, ..LLAMA },
    GEMMA2,
    Family { model_type: "gemma3_text", architecture: "gemma3", ..GEMMA2 },
];

/// Sizes that tensors depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) layers: u32,
    pub(super) heads: u64,
    pub(super) heads_kv: u64,
    /// Rotary dimensions of a head; rows are reordered in whole heads alone.
    pub(super) head_dim: u64,
}

/// The family of `config.json`.
pub(super) fn family(config: &Json) -> Result<&'static Family, String> {
    let name = config.text("model_type")?.unwrap_or_default();
    FAMILIES.iter().find(|family| family.model_type == name).ok_or_else(|| {
        let names: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        config.refuse(
            "model_type",
            &format!("folders of {} are supported; convert others to GGUF", names.join(", ")),
        )
    })
}

/// Puts the hyperparameters of `config` into `metadata`.
pub(super) fn translate(config: &Json, family: &Family, metadata: &mut Metadata) -> Result<Sizes, String> {
    refuse_unsupported(config, family)?;
    let prefix = family.architecture;
    let mut set = |key: &str, value: Value| metadata.set(&format!("{prefix}.{key}"), value);
    let layers = config.required("num_hidden_layers")?;
    let width = config.required("hidden_size")?;
    let heads = config.required("num_attention_heads")?;
    let heads_kv = config.size("num_key_value_heads")?.unwrap_or(heads);
    let default_dim = match prefix {
        "gemma2" | "gemma3" => 256,
        "qwen3" => 128,
        _ => width / heads,
    };
    let head_dim = config.size("head_dim")?.unwrap_or(default_dim);
    if heads_kv == 0 || head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(format!(
            "config.json: num_key_value_heads is {heads_kv} and head_dim {head_dim}; numbers from 1 on and an even \
             head_dim are needed"
        ));
    }
    set("block_count", Value::U32(layers));
    set("embedding_length", Value::U32(width));
    set("feed_forward_length", Value::U32(config.required("intermediate_size")?));
    set(
        "context_length",
        Value::U32(config.size("max_position_embeddings")?.filter(|n| *n > 0).unwrap_or(8192)),
    );
    set("attention.head_count", Value::U32(heads));
    set("attention.head_count_kv", Value::U32(heads_kv));
    set("attention.key_length", Value::U32(head_dim));
    set("attention.value_length", Value::U32(head_dim));
    set("rope.dimension_count", Value::U32(head_dim));
    set("attention.layer_norm_rms_epsilon", Value::F32(config.number("rms_norm_eps")?.unwrap_or(1e-6)));
    set("vocab_size", Value::U32(config.required("vocab_size")?));
    let rope = Rope::of(config, prefix)?;
    set("rope.freq_base", Value::F32(rope.base));
    if let Some(base) = rope.base_of_windows {
        set("rope.freq_base_swa", Value::F32(base));
    }
    if let Some(rope) = &rope.scaling {
        scaling(rope, &mut set)?;
    }
    windows(config, family, layers, &mut set)?;
    if prefix.starts_with("gemma") {
        // Executors know the scale of scores by the number of layers, as llama.cpp does.
        let wide = (prefix, layers) == ("gemma2", 46) || (prefix, layers) == ("gemma3", 62);
        let expected = if wide { width as f32 / heads as f32 } else { head_dim as f32 };
        if config.number("query_pre_attn_scalar")?.unwrap_or(256.0) != expected {
            return Err(
                config.refuse("query_pre_attn_scalar", &format!("{expected} is supported for this model"))
            );
        }
        // The default of the family holds for a missing key; null stands for none.
        let cap = |key: &str, default: f32| {
            let default = if prefix == "gemma2" && !config.has(key) { default } else { 0.0 };
            config.number(key).map(|cap| Value::F32(cap.unwrap_or(default)))
        };
        if prefix == "gemma2" {
            set("attn_logit_softcapping", cap("attn_logit_softcapping", 50.0)?);
        }
        set("final_logit_softcapping", cap("final_logit_softcapping", 30.0)?);
    }
    metadata.set("general.architecture", Value::Str(prefix.to_owned()));
    let [heads, heads_kv, head_dim] = [heads, heads_kv, head_dim].map(u64::from);
    Ok(Sizes { layers, heads, heads_kv, head_dim })
}

/// Refuses what changes the computation and is not translated.
fn refuse_unsupported(config: &Json, family: &Family) -> Result<(), String> {
    for key in ["hidden_activation", "hidden_act"] {
        // Gemma's `hidden_act` is without effect where the other is there.
        if let Some(name) = config.text(key)? {
            if !family.activation.contains(&name) {
                return Err(config.refuse(key, &format!("{} is supported", family.activation.join(", "))));
            }
            break;
        }
    }
    if config.value("quantization_config").is_some() {
        return Err(config.refuse("quantization_config", "weights in F32, F16 and BF16 are supported"));
    }
    let partial = config.number("partial_rotary_factor")?;
    if partial.is_some_and(|factor| factor != 1.0) {
        return Err(config.refuse("partial_rotary_factor", "1 is supported"));
    }
    for key in ["num_local_experts", "num_experts"] {
        if config.size(key)?.is_some_and(|experts| experts > 0) {
            return Err(config.refuse(key, "dense models are supported"));
        }
    }
    if config.flag("use_bidirectional_attention")? == Some(true) {
        return Err(config.refuse("use_bidirectional_attention", "false is supported"));
    }
    Ok(())
}

/// The scaling of RoPE.
fn scaling(rope: &Json, set: &mut impl FnMut(&str, Value)) -> Result<(), String> {
    let kind = rope.text("rope_type")?.or(rope.text("type")?).unwrap_or("default");
    let factor = || match rope.number("factor")? {
        Some(factor) if factor > 0.0 => Ok(factor),
        _ => Err(rope.refuse("factor", "a number above 0 is needed")),
    };
    match kind {
        // The factors of llama3 are a tensor.
        "default" | "llama3" => {}
        "linear" => {
            set("rope.scaling.type", Value::Str("linear".into()));
            set("rope.scaling.factor", Value::F32(factor()?));
        }
        "yarn" => {
            for key in ["beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor"] {
                if rope.value(key).is_some() && !is_default_yarn(rope, key) {
                    return Err(rope.refuse(key, "yarn with its usual settings is supported"));
                }
            }
            set("rope.scaling.type", Value::Str("yarn".into()));
            set("rope.scaling.factor", Value::F32(factor()?));
            if let Some(context) = rope.size("original_max_position_embeddings")? {
                set("rope.scaling.original_context_length", Value::U32(context));
            }
        }
        _ => {
            let key = if rope.value("rope_type").is_some() { "rope_type" } else { "type" };
            return Err(rope.refuse(key, "default, linear, llama3 and yarn are supported"));
        }
    }
    Ok(())
}

fn is_default_yarn(rope: &Json, key: &str) -> bool {
    let usual = match key {
        "beta_fast" => 32.0,
        "beta_slow" => 1.0,
        _ => return false,
    };
    rope.number(key) == Ok(Some(usual))
}

/// Layers with a sliding window.
fn windows(
    config: &Json,
    family: &Family,
    layers: u32,
    set: &mut impl FnMut(&str, Value),
) -> Result<(), String> {
    let window = config.size("sliding_window")?.filter(|window| *window > 0);
    let list = match config.value("layer_types") {
        None => None,
        Some(JsonValue::Array(types)) if types.len() as u64 == u64::from(layers) => {
            let kind = |kind: &JsonValue| match kind.as_str() {
                Some("sliding_attention") => Ok(true),
                Some("full_attention") => Ok(false),
                _ => Err(config.refuse("layer_types", "full_attention and sliding_attention are supported")),
            };
            Some(types.iter().map(kind).collect::<Result<Vec<bool>, _>>()?)
        }
        Some(_) => return Err(config.refuse("layer_types", &format!("a list of {layers} names is expected"))),
    };
    match family.architecture {
        "llama" => {
            if let Some(window) = window {
                set("attention.sliding_window", Value::U32(window));
            }
        }
        "gemma2" | "gemma3" => {
            set("attention.sliding_window", Value::U32(window.unwrap_or(0)));
            if let Some(list) = list {
                set("attention.sliding_window_pattern", Value::Array(Array::Bool(list)));
            } else if let Some(period) = config.size("sliding_window_pattern")?.filter(|period| *period > 0) {
                set("attention.sliding_window_pattern", Value::U32(period));
            }
        }
        _ => {
            let used = config.flag("use_sliding_window")?.unwrap_or(false);
            if used || list.is_some_and(|list| list.contains(&true)) {
                return Err(config.refuse("use_sliding_window", "false is supported for this family"));
            }
        }
    }
    Ok(())
}
