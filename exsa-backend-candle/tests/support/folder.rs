//! Folders of Hugging Face's form, made of GGUFs: what their converter did to names, rows and norms is
//! undone.

use exsa_conformance::edit::{Edit, Tensor};
use exsa_core::gguf::{Array, GgmlType, Value};
use serde_json::{Map, Value as Json, json};
use std::fs;
use std::path::Path;

/// A folder to write. The fields can be changed before.
pub struct Folder {
    pub config: Json,
    pub generation: Json,
    pub tokenizer: Json,
    pub settings: Json,
    /// Name, shape (slowest dimension first), and values.
    pub tensors: Vec<(String, Vec<u64>, Vec<f32>)>,
    pub dtype: GgmlType,
    pub shards: usize,
}

impl Folder {
    /// The folder of `edit`, a model of the families that folders may have.
    pub fn of(edit: &Edit) -> Self {
        let architecture = text(edit, "general.architecture").unwrap();
        let number = |key: &str| edit.get(&format!("{architecture}.{key}")).map(number);
        let plain = |x: f64| if x.fract() == 0.0 { json!(x as u64) } else { json!(x) };
        let size = |key: &str| number(key).map(plain);
        let (heads, width) = (number("attention.head_count").unwrap(), number("embedding_length").unwrap());
        let heads_kv = number("attention.head_count_kv").unwrap_or(heads);
        let head_dim = number("attention.key_length").unwrap_or(width / heads);
        let gemma = architecture.starts_with("gemma");
        let tokens = edit.get("tokenizer.ggml.tokens").map_or(0, |tokens| texts(tokens).len());
        let mut config = json!({
            "model_type": if architecture == "gemma3" { "gemma3_text" } else { architecture },
            "hidden_size": plain(width),
            "num_hidden_layers": size("block_count"),
            "num_attention_heads": plain(heads),
            "num_key_value_heads": plain(heads_kv),
            "head_dim": plain(head_dim),
            "intermediate_size": size("feed_forward_length"),
            "max_position_embeddings": size("context_length"),
            "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
            "rope_theta": number("rope.freq_base").unwrap_or(1e4),
            "vocab_size": tokens,
            "hidden_act": if gemma { "gelu_pytorch_tanh" } else { "silu" },
        });
        if let Some(window) = size("attention.sliding_window") {
            config["sliding_window"] = window;
        }
        if gemma {
            config["query_pre_attn_scalar"] = json!(head_dim);
            config["attn_logit_softcapping"] = if architecture == "gemma2" {
                json!(number("attn_logit_softcapping").unwrap_or(50.0))
            } else {
                Json::Null
            };
            let cap = if architecture == "gemma2" { 30.0 } else { 0.0 };
            config["final_logit_softcapping"] = json!(number("final_logit_softcapping").unwrap_or(cap));
        }
        if text(edit, &format!("{architecture}.rope.scaling.type")) == Some("linear") {
            let factor = number("rope.scaling.factor");
            config["rope_scaling"] = json!({ "rope_type": "linear", "factor": factor });
        }
        if let Some(Value::Array(Array::Bool(layers))) =
            edit.get(&format!("{architecture}.attention.sliding_window_pattern"))
        {
            let name = |local: &bool| if *local { "sliding_attention" } else { "full_attention" };
            config["layer_types"] = layers.iter().map(name).collect();
        }
        let tensors = edit.tensors.iter().map(|tensor| {
            let mut values = values(tensor);
            let mut shape = tensor.shape.clone();
            shape.reverse();
            let pairs = architecture == "llama";
            for (part, heads) in [(".attn_q.", heads), (".attn_k.", heads_kv)] {
                if pairs && tensor.name.contains(part) {
                    values = in_file_order(&values, shape[0] as usize, heads as usize);
                }
            }
            if gemma && tensor.name.ends_with("norm.weight") {
                values.iter_mut().for_each(|value| *value -= 1.0);
            }
            (name_of(&tensor.name, gemma), shape, values)
        });
        let tensors = tensors.collect();
        let (tokenizer, settings) = tokenizer(edit);
        let generation = json!({});
        Self { config, generation, tokenizer, settings, tensors, dtype: GgmlType::F32, shards: 1 }
    }

    /// Writes the folder.
    pub fn write(&self, folder: &Path) {
        let json = |name: &str, value: &Json| fs::write(folder.join(name), value.to_string()).unwrap();
        json("config.json", &self.config);
        json("generation_config.json", &self.generation);
        json("tokenizer.json", &self.tokenizer);
        json("tokenizer_config.json", &self.settings);
        let each = self.tensors.len().div_ceil(self.shards);
        let mut map = Map::new();
        for (number, tensors) in (1..).zip(self.tensors.chunks(each)) {
            let name = match self.shards {
                1 => "model.safetensors".to_owned(),
                shards => format!("model-{number:05}-of-{shards:05}.safetensors"),
            };
            tensors.iter().for_each(|tensor| drop(map.insert(tensor.0.clone(), json!(name))));
            fs::write(folder.join(&name), shard(tensors, self.dtype)).unwrap();
        }
        if self.shards > 1 {
            json("model.safetensors.index.json", &json!({ "metadata": {}, "weight_map": map }));
        }
    }
}

/// A safetensors file.
pub fn shard(tensors: &[(String, Vec<u64>, Vec<f32>)], dtype: GgmlType) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let start = data.len();
        exsa_quant::quantize(dtype, values, values.len(), None, &mut data).unwrap();
        let entry = json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), entry);
    }
    let header = Json::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// The values of a tensor.
pub fn values(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.shape.iter().product::<u64>() as usize];
    exsa_quant::dequantize(tensor.dtype, &tensor.data, &mut values).unwrap();
    values
}

/// Rows of heads whose pairs are adjacent, in the order in which halves of heads follow each other.
fn in_file_order(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (len, head) = (values.len() / rows, rows / heads);
    let row = |row: usize| {
        let (first, row) = (row / head * head, row % head);
        first + row % (head / 2) * 2 + row / (head / 2)
    };
    (0..rows).flat_map(|at| values[row(at) * len..][..len].to_vec()).collect()
}

fn name_of(name: &str, gemma: bool) -> String {
    let outside = [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
    ];
    if let Some((_, name)) = outside.into_iter().find(|(known, _)| *known == name) {
        return name.to_owned();
    }
    let (layer, part) = name.strip_prefix("blk.").unwrap().split_once('.').unwrap();
    let (module, kind) = part.rsplit_once('.').unwrap();
    let module = match module {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "attn_norm" => "input_layernorm",
        "post_attention_norm" => "post_attention_layernorm",
        "ffn_norm" if gemma => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "post_ffw_norm" => "post_feedforward_layernorm",
        other => panic!("{other}"),
    };
    format!("model.layers.{layer}.{module}.{kind}")
}

/// `tokenizer.json` and `tokenizer_config.json`.
fn tokenizer(edit: &Edit) -> (Json, Json) {
    let tokens = texts(edit.get("tokenizer.ggml.tokens").unwrap());
    let types: Vec<i32> = match edit.get("tokenizer.ggml.token_type") {
        Some(Value::Array(Array::I32(types))) => types.clone(),
        _ => vec![1; tokens.len()],
    };
    let vocabulary: Map<String, Json> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let added = tokens.iter().zip(&types).enumerate().filter(|(_, (_, kind))| [2, 3, 4].contains(*kind));
    let added: Vec<Json> = added
        .map(|(id, (token, kind))| {
            json!({ "id": id, "content": token, "special": *kind != 4, "normalized": false, "lstrip": false,
                "rstrip": false, "single_word": false })
        })
        .collect();
    let role = |key: &str| {
        let id = edit.get(&format!("tokenizer.ggml.{key}_token_id")).map(number);
        id.and_then(|id| tokens.get(id as usize)).map_or(Json::Null, |token| json!(token))
    };
    let flag = |key: &str| match edit.get(&format!("tokenizer.ggml.{key}")) {
        Some(Value::Bool(flag)) => json!(flag),
        _ => Json::Null,
    };
    let is_spm = text(edit, "tokenizer.ggml.model") == Some("llama");
    let (add_bos, bos) = match flag("add_bos_token") {
        Json::Null => (json!(is_spm), if is_spm { json!(tokens[1]) } else { Json::Null }),
        flag => (flag, Json::Null),
    };
    let settings = json!({
        "bos_token": if role("bos").is_null() { bos } else { role("bos") },
        "eos_token": if role("eos").is_null() && is_spm { json!(tokens[2]) } else { role("eos") },
        "unk_token": if role("unknown").is_null() && is_spm { json!(tokens[0]) } else { role("unknown") },
        "pad_token": role("padding"),
        "add_bos_token": add_bos,
        "add_eos_token": flag("add_eos_token"),
        "chat_template": text(edit, "tokenizer.chat_template"),
    });
    let tokenizer = if is_spm {
        let unknown = types.iter().position(|kind| *kind == 2).map_or(Json::Null, |id| json!(tokens[id]));
        json!({
            "added_tokens": added,
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "\u{2581}" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" },
            ] },
            "pre_tokenizer": null,
            "model": { "type": "BPE", "vocab": vocabulary, "merges": merges_by_score(edit, &tokens, &types),
                "byte_fallback": true, "unk_token": unknown, "fuse_unk": true },
        })
    } else {
        let merges: Vec<Json> = texts(edit.get("tokenizer.ggml.merges").unwrap())
            .iter()
            .map(|merge| json!(merge.split_once(' ').unwrap()))
            .collect();
        json!({
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": cuts(text(edit, "tokenizer.ggml.pre").unwrap()) },
            "model": { "type": "BPE", "vocab": vocabulary, "merges": merges },
        })
    };
    (tokenizer, settings)
}

/// Pre-tokenizers by the name in a GGUF.
fn cuts(pre: &str) -> Json {
    let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": regex });
    match pre {
        "smollm" => json!([{ "type": "Digits", "individual_digits": true }, bytes(true)]),
        "gpt-2" => json!([bytes(true)]),
        other => panic!("{other}"),
    }
}

/// The merges that a vocabulary by scores stands for: of the tokens by falling scores, all pairs of tokens.
fn merges_by_score(edit: &Edit, tokens: &[String], types: &[i32]) -> Vec<Json> {
    let Some(Value::Array(Array::F32(scores))) = edit.get("tokenizer.ggml.scores") else {
        panic!("no scores")
    };
    let known = |text: &str| tokens.iter().zip(types).any(|(token, kind)| token == text && *kind == 1);
    let mut order: Vec<usize> = (0..tokens.len()).filter(|id| types[*id] == 1).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut merges = Vec::new();
    for token in order.into_iter().map(|id| &tokens[id]) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if known(left) && known(right) {
                merges.push(json!(format!("{left} {right}")));
            }
        }
    }
    merges
}

fn texts(value: &Value) -> Vec<String> {
    let Value::Array(Array::Str(texts)) = value else { panic!("{}", value.type_name()) };
    texts.clone()
}

fn text<'a>(edit: &'a Edit, key: &str) -> Option<&'a str> {
    match edit.get(key)? {
        Value::Str(text) => Some(text),
        other => panic!("{}", other.type_name()),
    }
}

fn number(value: &Value) -> f64 {
    match *value {
        Value::U32(n) => n.into(),
        Value::I32(n) => n.into(),
        Value::U64(n) => n as f64,
        Value::F32(x) => x.into(),
        _ => panic!("{}", value.type_name()),
    }
}
