//! LoRA adapters in folders saved by PEFT.

use super::{AdapterPair, AdapterTensor, BaseModel, RANK_MAX, SafetensorsHeader};
use crate::gguf::TensorInfo;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::{Read, Seek};

/// Name of the configuration in a folder.
pub(super) const CONFIG_FILE: &str = "adapter_config.json";

/// Name of the weights in a folder.
pub(super) const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// Maximum bytes of a configuration.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Architectures whose matrices have names and a row order that [`pair`] supports.
const ARCHITECTURES: [&str; 7] = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"];

/// Supported initializations, which leave the base model's weights unchanged.
const PLAIN_INITIALIZATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The supported LoRA settings of an `adapter_config.json`. Other settings are refused.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftConfig {
    rank: usize,
    alpha: f64,
    rank_stabilized: bool,
    rank_pattern: BTreeMap<String, f64>,
    alpha_pattern: BTreeMap<String, f64>,
}

impl PeftConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// Description of the problem: invalid JSON, or an unsupported setting such as DoRA.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let config: Value = serde_json::from_slice(json)
            .map_err(|error| format!("{CONFIG_FILE} is not valid JSON: {error}"))?;
        let Value::Object(config) = config else { return Err(format!("{CONFIG_FILE} is not a JSON object")) };
        check_supported(&config)?;
        let rank = match config.get("r").and_then(Value::as_u64) {
            Some(rank) if (1..=RANK_MAX as u64).contains(&rank) => rank as usize,
            _ => return Err(refuse(&config, "r", &format!("1 to {RANK_MAX} is allowed"))),
        };
        let alpha = config.get("lora_alpha").and_then(Value::as_f64);
        let alpha = alpha.ok_or_else(|| refuse(&config, "lora_alpha", "a number is required"))?;
        let rank_stabilized = match config.get("use_rslora") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(on)) => *on,
            Some(_) => return Err(refuse(&config, "use_rslora", "true or false is allowed")),
        };
        let (rank_pattern, alpha_pattern) =
            (pattern(&config, "rank_pattern")?, pattern(&config, "alpha_pattern")?);
        Ok(Self { rank, alpha, rank_stabilized, rank_pattern, alpha_pattern })
    }

    /// Rank of `module` (`model.layers.0.mlp.up_proj`), and the factor on its product.
    fn of(&self, module: &str) -> Result<(usize, f32), String> {
        let rank = matching(&self.rank_pattern, module)?.unwrap_or(self.rank as f64);
        let alpha = matching(&self.alpha_pattern, module)?.unwrap_or(self.alpha);
        let scale = alpha / if self.rank_stabilized { rank.sqrt() } else { rank };
        Ok((rank as usize, scale as f32))
    }
}

/// Refuses settings that change what a LoRA computes.
fn check_supported(config: &Map<String, Value>) -> Result<(), String> {
    match config.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        _ => return Err(refuse(config, "peft_type", "\"LORA\" is needed")),
    }
    for (key, what) in [
        ("use_dora", "DoRA"),
        ("fan_in_fan_out", "transposed weights"),
        ("lora_bias", "biases of the adapter's matrices"),
        ("use_qalora", "QALoRA"),
    ] {
        if !matches!(config.get(key), None | Some(Value::Null | Value::Bool(false))) {
            return Err(refuse(config, key, &format!("{what} is not supported; false is allowed")));
        }
    }
    for (key, what) in [
        ("modules_to_save", "whole modules that replace the model's"),
        ("layer_replication", "layers that occur several times"),
        ("trainable_token_indices", "trained embeddings of individual tokens"),
        ("target_parameters", "adapters of parameters that are not layers"),
        ("alora_invocation_tokens", "an adapter that only applies after certain tokens"),
    ] {
        let empty = match config.get(key) {
            None | Some(Value::Null) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(refuse(config, key, &format!("{what}: not supported; null is allowed")));
        }
    }
    match config.get("bias") {
        None | Some(Value::Null) => {}
        Some(Value::String(bias)) if bias == "none" => {}
        Some(_) => {
            return Err(refuse(config, "bias", "trained biases are not supported; \"none\" is allowed"));
        }
    }
    match config.get("init_lora_weights") {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if PLAIN_INITIALIZATIONS.contains(&name.as_str()) => Ok(()),
        Some(_) => Err(refuse(
            config,
            "init_lora_weights",
            "such an adapter belongs to changed weights of the model; convert it to a plain LoRA when saving",
        )),
    }
}

/// The error about the value of `key`.
fn refuse(config: &Map<String, Value>, key: &str, allowed: &str) -> String {
    /// Characters of a value in a message.
    const SHOWN: usize = 60;
    let value = config.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
    let value: String = value.chars().take(SHOWN).collect();
    format!("{CONFIG_FILE}: {key} is {value}; {allowed}")
}

/// Numbers by module.
fn pattern(config: &Map<String, Value>, key: &str) -> Result<BTreeMap<String, f64>, String> {
    let map = match config.get(key) {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(refuse(config, key, "numbers by name are allowed")),
    };
    let number = |(module, value): (&String, &Value)| {
        let plain = module.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        let number = value.as_f64().filter(|value| *value >= 1.0 && *value <= f64::from(u32::MAX));
        match number {
            Some(number) if plain => Ok((module.clone(), number)),
            Some(_) => Err(format!("{CONFIG_FILE}: {key}: '{module}' is not a plain module name")),
            None => Err(format!("{CONFIG_FILE}: {key}: '{module}' is {value}, but 1 or more is allowed")),
        }
    };
    map.iter().map(number).collect()
}

/// The number for `module`: that of the pattern name with which it ends.
fn matching(pattern: &BTreeMap<String, f64>, module: &str) -> Result<Option<f64>, String> {
    let is_end = |name: &str| {
        module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let mut found = pattern.iter().filter(|(name, _)| is_end(name)).map(|(_, number)| *number);
    let first = found.next();
    if found.any(|other| Some(other) != first) {
        return Err(format!("{CONFIG_FILE}: several patterns match {module}, with different numbers"));
    }
    Ok(first)
}

/// Reads a configuration from a file.
pub(super) fn read_config(reader: &mut impl Read) -> Result<PeftConfig, String> {
    let mut json = Vec::new();
    reader
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut json)
        .map_err(|error| format!("{CONFIG_FILE}: {error}"))?;
    if json.len() as u64 > CONFIG_BYTES_MAX {
        return Err(format!("{CONFIG_FILE} has more than {CONFIG_BYTES_MAX} bytes"));
    }
    PeftConfig::from_json(&json)
}

/// Reads the header of the weights and checks it.
pub(super) fn pairs(
    config: &PeftConfig,
    reader: &mut (impl Read + Seek),
    base: &BaseModel<'_>,
) -> Result<Vec<AdapterPair>, String> {
    if !ARCHITECTURES.contains(&base.architecture) {
        return Err(format!(
            "PEFT folders are supported for the architectures {}, but not for {}; convert the adapter to GGUF \
             with llama.cpp's convert_lora_to_gguf.py",
            ARCHITECTURES.join(", "),
            base.architecture
        ));
    }
    let header = SafetensorsHeader::read(reader).map_err(|problem| format!("{WEIGHTS_FILE}: {problem}"))?;
    let mut halves = BTreeMap::<&str, [Option<&TensorInfo>; 2]>::new();
    for tensor in &header.tensors {
        let name = tensor.name.as_str();
        let half = [".lora_A.weight", ".lora_B.weight"].iter().enumerate();
        let half = half.filter_map(|(i, end)| Some((i, name.strip_suffix(end)?))).next();
        let half = half.and_then(|(i, module)| Some((i, module.strip_prefix("base_model.model.")?)));
        let Some((i, module)) = half else {
            return Err(format!(
                "tensor '{name}': the tensors of an adapter are named \
                 base_model.model.MODULE.lora_A.weight and .lora_B.weight"
            ));
        };
        halves.entry(module).or_default()[i] = Some(tensor);
    }
    if halves.is_empty() {
        return Err(format!("{WEIGHTS_FILE}: it holds no tensors"));
    }
    let pairs = halves.into_iter().map(|(module, halves)| {
        pair(config, module, halves, base).map_err(|problem| format!("module '{module}': {problem}"))
    });
    pairs.collect()
}

fn pair(
    config: &PeftConfig,
    module: &str,
    halves: [Option<&TensorInfo>; 2],
    base: &BaseModel<'_>,
) -> Result<AdapterPair, String> {
    let (a, b) = match halves {
        [Some(a), Some(b)] => (a, b),
        [Some(_), None] => return Err("there is no lora_B".to_owned()),
        _ => return Err("there is no lora_A".to_owned()),
    };
    let weight = gguf_name(module).ok_or("no layer of this name is supported")?;
    let (rank, scale) = config.of(module)?;
    let part = |tensor: &TensorInfo| AdapterTensor::new(tensor.dtype, tensor.offset, tensor.bytes);
    let pair = AdapterPair::new(&weight, base, (part(a), &a.shape), (part(b), &b.shape))?;
    if pair.rank != rank {
        return Err(format!("its rank is {}, but {CONFIG_FILE} says {rank}", pair.rank));
    }
    // In GGUF files of this architecture, the rows of queries and keys are permuted so that RoPE pairs are
    // adjacent.
    let heads = match (base.architecture, weight.rsplit_once(".attn_").map(|(_, end)| end)) {
        ("llama", Some("q.weight")) => Some(base.n_head),
        ("llama", Some("k.weight")) => Some(base.n_head_kv),
        _ => None,
    };
    if heads == Some(0) {
        return Err("the model's number of heads is unknown".to_owned());
    }
    let pair = pair.scaled(scale)?;
    Ok(match heads {
        Some(heads) => pair.interleaved(heads),
        None => pair,
    })
}

/// The GGUF name of a module's weight.
fn gguf_name(module: &str) -> Option<String> {
    if module == "lm_head" {
        return Some("output.weight".to_owned());
    }
    let layers = ["model.layers.", "model.language_model.layers.", "language_model.model.layers."];
    let (layer, part) = layers.iter().find_map(|start| module.strip_prefix(start))?.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let part = match part {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        _ => return None,
    };
    Some(format!("blk.{layer}.{part}.weight"))
}
