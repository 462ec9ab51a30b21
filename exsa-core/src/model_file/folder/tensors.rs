//! From the tensors of a folder to those of a GGUF: names, and what is done to the values.

use super::config::{Family, Sizes};
use super::shards::Shards;
use crate::gguf::{GgmlType, TensorInfo};
use crate::model_file::{Conversion, TensorSource};
use std::collections::BTreeMap;

/// Names of tensors outside layers, in the folder and in a GGUF.
const OUTSIDE: [(&str, &str); 3] = [
    ("embed_tokens.weight", "token_embd.weight"),
    ("norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// Names of modules in layers. Families with four norms call one by another name.
const LAYER: [(&str, &str); 11] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];

/// Names of norms in families with four, before those of [`LAYER`].
const FOUR_NORMS: [(&str, &str); 3] = [
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// Tensors that a GGUF does not have: buffers that are computed.
const COMPUTED: &str = "rotary_emb.inv_freq";

/// Tensors, and the sources of those that are converted.
type Translated = (Vec<TensorInfo>, BTreeMap<String, TensorSource>);

/// The tensors of `shards` under the names of a GGUF.
pub(super) fn translate(shards: &Shards, family: &Family, sizes: &Sizes) -> Result<Translated, String> {
    let (mut tensors, mut sources) = (Vec::new(), BTreeMap::new());
    for tensor in shards.tensors.iter().filter(|tensor| !tensor.name.ends_with(COMPUTED)) {
        let refuse = |problem: &str| format!("tensor '{}': {problem}", tensor.name);
        let name = gguf_name(&tensor.name, family, sizes.layers)
            .ok_or_else(|| refuse("the architecture knows no such tensor"))?;
        if tensor.shape.is_empty() || tensor.shape.contains(&0) {
            return Err(refuse(&format!(
                "its shape is {:?}, but 1 to 4 dimensions from 1 on are allowed",
                tensor.shape
            )));
        }
        let mut translated = TensorInfo { name: name.clone(), ..tensor.clone() };
        let conversion = conversion(&name, family, sizes);
        match conversion {
            Conversion::None => {}
            Conversion::PairRows { heads } => {
                let rows = tensor.shape.last().copied().unwrap_or(0);
                if rows != heads.saturating_mul(sizes.head_dim) {
                    let expected = heads.saturating_mul(sizes.head_dim);
                    return Err(refuse(&format!(
                        "it has {rows} rows, but its {heads} heads have {expected}"
                    )));
                }
            }
            Conversion::AddOne => {
                let len = tensor.elements();
                (translated.dtype, translated.bytes) = (GgmlType::F32, len.saturating_mul(4));
            }
        }
        if conversion != Conversion::None {
            let source = TensorSource { dtype: tensor.dtype, bytes: tensor.bytes, conversion };
            sources.insert(name, source);
        }
        tensors.push(translated);
    }
    Ok((tensors, sources))
}

/// The name in a GGUF; `None` for a tensor that no family has.
fn gguf_name(name: &str, family: &Family, layers: u32) -> Option<String> {
    let name = name.strip_prefix("language_model.").unwrap_or(name);
    let inner = name.strip_prefix("model.").unwrap_or(name);
    if let Some((_, known)) = OUTSIDE.iter().find(|(outside, _)| *outside == inner) {
        return Some((*known).to_owned());
    }
    let (layer, part) = inner.strip_prefix("layers.")?.split_once('.')?;
    let is_number = !layer.is_empty() && layer.bytes().all(|digit| digit.is_ascii_digit());
    let index: u32 = layer.parse().ok().filter(|index| is_number && *index < layers)?;
    if index.to_string() != layer {
        return None;
    }
    let (module, kind) = part.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))?;
    let four: &[(&str, &str)] = if family.four_norms { &FOUR_NORMS } else { &[] };
    let (_, known) = four.iter().chain(&LAYER).find(|(from, _)| *from == module)?;
    Some(format!("blk.{index}.{known}.{kind}"))
}

/// The change that llama.cpp's converter makes to the tensor `name`.
fn conversion(name: &str, family: &Family, sizes: &Sizes) -> Conversion {
    let part = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map(|(_, part)| part);
    let module = part.and_then(|part| part.split('.').next()).unwrap_or_default();
    if family.adds_one && (name.ends_with("norm.weight")) {
        return Conversion::AddOne;
    }
    match module {
        "attn_q" if family.pairs_rows => Conversion::PairRows { heads: sizes.heads },
        "attn_k" if family.pairs_rows => Conversion::PairRows { heads: sizes.heads_kv },
        _ => Conversion::None,
    }
}
