//! Settings of RoPE in `config.json`.

use super::json::Json;
use crate::gguf::Metadata;
use std::f64::consts::TAU;
use std::sync::Arc;

/// Name of the tensor of frequency factors in a GGUF.
pub(super) const FACTORS: &str = "rope_freqs.weight";

/// RoPE of a model.
#[derive(Debug)]
pub(super) struct Rope {
    pub(super) base: f32,
    /// Base in layers with a sliding window, where it is another.
    pub(super) base_of_windows: Option<f32>,
    /// The object with `rope_type` and what goes with it.
    pub(super) scaling: Option<Json>,
}

impl Rope {
    /// Reads `rope_theta` and `rope_scaling`, or `rope_parameters` of later files, which may be one object
    /// for all layers or one for each type of layers.
    pub(super) fn of(config: &Json, architecture: &str) -> Result<Self, String> {
        let all = config.object("rope_parameters").or_else(|| config.object("rope_scaling"));
        let by_type = |name: &str| all.as_ref().and_then(|all| all.object(name));
        let (full, sliding) = (by_type("full_attention"), by_type("sliding_attention"));
        let scaling = full.or(all);
        let own = scaling.as_ref().map(|rope| rope.number("rope_theta")).transpose()?.flatten();
        let default = if architecture == "gemma3" { 1e6 } else { 1e4 };
        let base = own.or(config.number("rope_theta")?).unwrap_or(default);
        let local = sliding.as_ref().map(|rope| rope.number("rope_theta")).transpose()?.flatten();
        let base_of_windows = local.or(config.number("rope_local_base_freq")?);
        if let Some(sliding) = sliding
            && !matches!(sliding.text("rope_type")?, None | Some("default"))
        {
            return Err(sliding.refuse("rope_type", "default is supported for layers with a sliding window"));
        }
        Ok(Self { base, base_of_windows, scaling })
    }
}

/// The frequency factors of Llama 3.1, `[rotary dimensions / 2]` in f32; `None` for other models. They are
/// those of llama.cpp's converter: frequencies whose wavelength is long against the original context are
/// divided by `factor`, short ones stay, and between them the two are mixed.
pub(super) fn factors(config: &Json, metadata: &Metadata) -> Result<Option<Arc<[u8]>>, String> {
    let architecture = metadata.require::<&str>("general.architecture").map_err(|error| error.to_string())?;
    let Some(rope) = Rope::of(config, architecture)?.scaling else { return Ok(None) };
    if rope.text("rope_type")?.or(rope.text("type")?) != Some("llama3") {
        return Ok(None);
    }
    let number = |key: &str| match rope.number(key)? {
        Some(number) if number > 0.0 => Ok(f64::from(number)),
        _ => Err(rope.refuse(key, "a number above 0 is needed")),
    };
    let (factor, low, high) = (number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?);
    let context = number("original_max_position_embeddings")?;
    if high <= low {
        return Err(rope.refuse("high_freq_factor", "a number above low_freq_factor is needed"));
    }
    let value = |key: &str| {
        metadata.require::<f32>(&format!("{architecture}.{key}")).map_err(|error| error.to_string())
    };
    let (base, dims) = (f64::from(value("rope.freq_base")?), value("rope.dimension_count")?);
    // Config's own limit on the width of a head.
    if !(2.0..=4096.0).contains(&dims) {
        return Err(config.refuse("head_dim", "2 to 4096 is allowed"));
    }
    let pairs = dims as usize / 2;
    let factors = (0..pairs).map(|pair| {
        let frequency = base.powf(-2.0 * pair as f64 / f64::from(dims));
        let wavelength = TAU / frequency;
        if wavelength < context / high {
            1.0
        } else if wavelength > context / low {
            factor
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    Ok(Some(factors.flat_map(|factor| (factor as f32).to_le_bytes()).collect()))
}
