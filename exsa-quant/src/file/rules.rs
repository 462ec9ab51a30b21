//! Assignment of types to tensors, by the rules of llama.cpp's `llama-quant.cpp` for decoder models.

use super::{Mixture, QuantizeOptions};
use exsa_core::gguf::{GgmlType, Gguf, GgufError, TensorInfo};

/// Role of a tensor, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Embedding,
    Output,
    AttentionQkv,
    AttentionKvB,
    AttentionV,
    AttentionK,
    AttentionOutput,
    FfnDown,
    Other,
}

impl Role {
    fn of(name: &str) -> Self {
        /// Parts of names; the first that occurs decides.
        const PARTS: [(&str, Role); 6] = [
            ("attn_qkv.weight", Role::AttentionQkv),
            ("attn_kv_b.weight", Role::AttentionKvB),
            ("attn_v.weight", Role::AttentionV),
            ("attn_k.weight", Role::AttentionK),
            ("attn_output.weight", Role::AttentionOutput),
            ("ffn_down", Role::FfnDown),
        ];
        match name {
            "output.weight" => Self::Output,
            "token_embd.weight" | "per_layer_token_embd.weight" => Self::Embedding,
            _ => PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Self::Other, |(_, role)| *role),
        }
    }

    /// Whether the tensor contains value projections, where errors matter most.
    fn has_values(self) -> bool {
        matches!(self, Self::AttentionV | Self::AttentionQkv | Self::AttentionKvB)
    }
}

/// Properties of a model that the rules depend on.
struct Facts {
    falcon: bool,
    layers: usize,
    /// Query heads per key head.
    heads_per_group: u64,
    experts: u64,
    /// Whether it is a Llama or Qwen2 with 70 billion parameters, whose value projections are small.
    seventy_billion: bool,
    tied: bool,
    /// Tensors with values.
    values: usize,
    has_importance: bool,
}

impl Facts {
    fn of(gguf: &Gguf, has_importance: bool) -> Result<Self, GgufError> {
        let metadata = gguf.metadata();
        let architecture = metadata.require::<&str>("general.architecture")?;
        let number = |key: &str, default: u64| -> Result<u64, GgufError> {
            let key = format!("{architecture}.{key}");
            // Models with different layers have an array; the first layer decides, as in llama.cpp.
            if let Ok(Some(numbers)) = metadata.get::<Vec<u64>>(&key) {
                return Ok(numbers.first().copied().unwrap_or(default));
            }
            Ok(metadata.get::<u64>(&key)?.unwrap_or(default))
        };
        let layers = number("block_count", 0)?;
        let heads = number("attention.head_count", 1)?;
        let heads_kv = number("attention.head_count_kv", heads)?;
        Ok(Self {
            falcon: architecture == "falcon",
            layers: usize::try_from(layers).unwrap_or(usize::MAX),
            heads_per_group: heads.checked_div(heads_kv).unwrap_or(0),
            experts: number("expert_count", 0)?,
            seventy_billion: layers == 80
                && matches!((architecture, heads == heads_kv), ("llama", false) | ("qwen2", _)),
            tied: gguf.tensor("output.weight").is_none(),
            values: gguf.tensors().iter().filter(|tensor| Role::of(&tensor.name).has_values()).count(),
            has_importance,
        })
    }

    /// Whether a layer is in the first or last eighth, or every third between them.
    fn more_bits(index: usize, count: usize) -> bool {
        let eighth = count / 8;
        index < eighth || index >= 7 * count / 8 || (index - eighth) % 3 == 2
    }
}

/// The type that [`quantize_gguf`](super::quantize_gguf) gives each tensor of a file, in its order.
///
/// # Errors
///
/// [`GgufError`] if the metadata lacks the architecture, or has values of the wrong type.
pub fn planned_types(gguf: &Gguf, options: &QuantizeOptions) -> Result<Vec<GgmlType>, GgufError> {
    let facts = Facts::of(gguf, options.importance.is_some())?;
    let tensors = gguf.tensors();
    let mut types: Vec<GgmlType> = tensors.iter().map(|tensor| tensor.dtype).collect();
    // Tensors of a role are numbered in layer order, independently of the order in the file.
    let mut order: Vec<usize> = (0..tensors.len()).filter(|i| is_quantized(&tensors[*i])).collect();
    order.sort_by_key(|i| (layer(&tensors[*i].name), &tensors[*i].name));
    let (mut values, mut downs) = (0, 0);
    for i in order {
        let tensor = &tensors[i];
        let role = Role::of(&tensor.name);
        let default = options.mixture.default_type();
        let forced = options.overrides.iter().find(|(part, _)| tensor.name.contains(part.as_str()));
        let wanted = match forced {
            Some((_, dtype)) => *dtype,
            None if default.block_len() == 1 || options.pure => default,
            None => {
                let down = match layer(&tensor.name) {
                    Some(layer) if facts.experts > 1 => layer,
                    _ => downs,
                };
                mixed(options.mixture, tensor, role, &facts, values, down)
            }
        };
        values += usize::from(role.has_values());
        downs += usize::from(role == Role::FfnDown);
        types[i] = fallback(wanted, tensor.shape[0]);
    }
    Ok(types)
}

/// The number in `blk.N.`.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Whether a tensor is a matrix to quantize; norms, biases, routers and small tensors are not.
fn is_quantized(tensor: &TensorInfo) -> bool {
    const KEPT: [&str; 36] = [
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_tid2eid.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "indexer.k_proj.weight",
        "indexer.q_proj.weight",
        "time_mix_first.weight",
        "time_mix_w0.weight",
        "time_mix_w1.weight",
        "time_mix_w2.weight",
        "time_mix_v0.weight",
        "time_mix_v1.weight",
        "time_mix_v2.weight",
        "time_mix_a0.weight",
        "time_mix_a1.weight",
        "time_mix_a2.weight",
        "time_mix_g1.weight",
        "time_mix_g2.weight",
        "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight",
        "time_mix_lerp_fused.weight",
        "attn_rel_b.weight",
        "position_embd",
        "token_types",
        "sam.pos_embd",
        "sam.neck.",
        "sam.net_",
        ".rel_pos",
        ".patch_embd",
        ".patch_merger",
        "a.rvq.codebook",
        "mm.a.code_embd",
    ];
    // Trailing dimensions of 1 do not count.
    let dimensions = tensor.shape.iter().rposition(|dim| *dim > 1).map_or(1, |last| last + 1);
    let name = tensor.name.as_str();
    let integers = matches!(tensor.dtype, GgmlType::I8 | GgmlType::I16 | GgmlType::I32 | GgmlType::I64);
    dimensions >= 2 && !integers && name.ends_with("weight") && !KEPT.iter().any(|part| name.contains(part))
}

/// The type of a tensor in a mixture, regardless of its row length.
///
/// `values` and `down` count the tensors with values and the down projections before this one.
fn mixed(
    mixture: Mixture,
    tensor: &TensorInfo,
    role: Role,
    facts: &Facts,
    values: usize,
    down: usize,
) -> GgmlType {
    use GgmlType::{Mxfp4, Q3K, Q4K, Q5K, Q6K, Q8_0};
    let default = mixture.default_type();
    let eight_experts = facts.experts == 8;
    if role == Role::Output || facts.tied && role == Role::Embedding {
        let whole = tensor.shape[0].is_multiple_of(default.block_len());
        return if mixture == Mixture::Mxfp4Moe || facts.falcon || !whole || default == Q8_0 {
            Q8_0
        } else {
            Q6K
        };
    }
    if mixture == Mixture::Mxfp4Moe {
        return if tensor.shape.get(2).is_some_and(|experts| *experts > 1) { Mxfp4 } else { Q8_0 };
    }
    match role {
        Role::Embedding if matches!(mixture, Mixture::Tq1_0 | Mixture::Tq2_0 | Mixture::Q2_0) => Q4K,
        _ if role.has_values() => {
            let grouped = facts.heads_per_group >= 4;
            let dtype = match mixture {
                Mixture::Q2K => [Q3K, Q4K][usize::from(grouped)],
                Mixture::Q2KS if grouped => Q4K,
                Mixture::Q3KM => [Q4K, Q5K][usize::from(values < 2)],
                Mixture::Q3KL => Q5K,
                Mixture::Iq4Nl | Mixture::Iq4Xs if grouped => Q5K,
                Mixture::Q4KM | Mixture::Q5KM if Facts::more_bits(values, facts.values) => Q6K,
                Mixture::Q4KS if values < 4 => Q5K,
                _ => default,
            };
            if eight_experts {
                Q8_0
            } else if facts.seventy_billion && matches!(dtype, Q3K | Q4K) {
                Q5K
            } else {
                dtype
            }
        }
        Role::AttentionK if eight_experts => Q8_0,
        Role::FfnDown => ffn_down(mixture, facts, down),
        Role::AttentionOutput if facts.falcon => [default, Q4K][usize::from(mixture == Mixture::Q3KL)],
        Role::AttentionOutput if eight_experts => match mixture {
            Mixture::Q2K
            | Mixture::Q3KS
            | Mixture::Q3KM
            | Mixture::Iq4Nl
            | Mixture::Iq4Xs
            | Mixture::Q4KS
            | Mixture::Q4KM => Q5K,
            _ => default,
        },
        Role::AttentionOutput => match mixture {
            Mixture::Q2K => Q3K,
            Mixture::Q3KM => Q4K,
            Mixture::Q3KL => Q5K,
            _ => default,
        },
        _ => default,
    }
}

/// The type of the down projection with `index` others before it.
fn ffn_down(mixture: Mixture, facts: &Facts, index: usize) -> GgmlType {
    use GgmlType::{Q3K, Q4_1, Q4K, Q5_1, Q5K, Q6K};
    let default = mixture.default_type();
    let more_bits = Facts::more_bits(index, facts.layers);
    let (first_eighth, first_sixteenth) = (index < facts.layers / 8, index < facts.layers / 16);
    match mixture {
        Mixture::Q2K => Q3K,
        Mixture::Q2KS if first_eighth => Q4K,
        Mixture::Q3KM if first_sixteenth => Q5K,
        Mixture::Q3KM if !facts.falcon || more_bits => Q4K,
        Mixture::Q3KL => [Q5K, Q4K][usize::from(facts.falcon)],
        Mixture::Q4KM if facts.falcon && first_sixteenth => Q6K,
        Mixture::Q4KM if more_bits => [Q6K, Q5K][usize::from(facts.falcon)],
        Mixture::Iq4Nl | Mixture::Iq4Xs if first_eighth && !facts.has_importance => Q5K,
        Mixture::Q5KM if more_bits => Q6K,
        Mixture::Q4KS if first_eighth && !facts.falcon => Q5K,
        Mixture::Q4_0 if first_eighth && facts.has_importance => Q4_1,
        Mixture::Q5_0 if first_eighth && facts.has_importance => Q5_1,
        _ => default,
    }
}

/// The type for rows of `columns` values: one with smaller blocks if the rows are not whole blocks of
/// `wanted`.
fn fallback(wanted: GgmlType, columns: u64) -> GgmlType {
    use GgmlType::{F16, Iq4Nl, Iq4Xs, Q2_0, Q2K, Q3K, Q4_0, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, Tq1_0, Tq2_0};
    let fits = |dtype: GgmlType| columns.is_multiple_of(dtype.block_len());
    let smaller = match wanted {
        _ if fits(wanted) => return wanted,
        Iq4Xs => Iq4Nl,
        Q2_0 | Q2K | Q3K | Tq1_0 | Tq2_0 => Q4_0,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        _ => F16,
    };
    if fits(smaller) { smaller } else { F16 }
}
