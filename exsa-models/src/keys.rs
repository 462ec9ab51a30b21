//! Metadata keys of an architecture, read with their limits.

use crate::architecture::{Architecture, SlidingWindowRope, Windows};
use crate::config::{DeltaNetConfig, WindowPattern};
use crate::rope::{FreqFactors, RopeConfig, RopeScaling};
use exsa_core::backend::Pooling;
use exsa_core::error::LoadError;
use exsa_core::gguf::{FromValue, Metadata, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;

pub(crate) const LAYERS: RangeInclusive<usize> = 1..=1024;
pub(crate) const WIDTH: RangeInclusive<usize> = 1..=1 << 20;
pub(crate) const HEADS: RangeInclusive<usize> = 1..=1 << 12;
pub(crate) const HEAD_DIM: RangeInclusive<usize> = 2..=1 << 12;
pub(crate) const CONTEXT: RangeInclusive<usize> = 1..=1 << 28;
pub(crate) const CONV_TOKENS: RangeInclusive<usize> = 2..=64;
pub(crate) const ROPE_BASE: RangeInclusive<f32> = 1.0..=1e12;
pub(crate) const SCALE: RangeInclusive<f32> = 1e-6..=1e6;
pub(crate) const EPSILON: RangeInclusive<f32> = 0.0..=1.0;

/// The metadata keys of one architecture.
pub(crate) struct Keys<'a> {
    /// The metadata.
    pub metadata: &'a Metadata,
    /// Name of the architecture.
    pub prefix: &'static str,
}

/// Parts that models of some architectures have.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SupportedParts {
    /// Mixtures of experts.
    pub experts: bool,
    /// Layers that predict more tokens, which are left out.
    pub nextn: bool,
    /// RoPE by sections of positions.
    pub rope_sections: bool,
}

impl SupportedParts {
    /// Parts that `architecture` can have.
    pub fn of(architecture: &Architecture) -> Self {
        Self {
            experts: architecture.mixture.is_some(),
            nextn: architecture.leaves_out_nextn,
            rope_sections: architecture.rope_sections,
        }
    }
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    pub fn get<T: for<'a> FromValue<'a>>(&self, key: &str) -> Result<Option<T>, LoadError> {
        Ok(self.metadata.get(&self.name(key))?)
    }

    /// The value of `key`, else `default`; an error if there is none.
    pub fn get_or<T: for<'a> FromValue<'a>>(&self, key: &str, default: Option<T>) -> Result<T, LoadError> {
        match (self.get(key)?, default) {
            (Some(value), _) | (None, Some(value)) => Ok(value),
            (None, None) => Ok(self.metadata.require(&self.name(key))?),
        }
    }

    /// A [`LoadError::Unsupported`] about `key` unless `holds`.
    pub fn check(
        &self,
        key: &str,
        value: impl Display,
        holds: bool,
        supported: impl FnOnce() -> String,
    ) -> Result<(), LoadError> {
        if holds {
            return Ok(());
        }
        Err(LoadError::Unsupported { what: format!("{} = {value}", self.name(key)), supported: supported() })
    }

    /// The number that a list gives for every layer alike; `None` where the value is no list.
    fn same_in_all_layers(&self, key: &str) -> Result<Option<u64>, LoadError> {
        let name = self.name(key);
        let Some(Value::Array(_)) = self.metadata.get_value(&name) else { return Ok(None) };
        let values: Vec<u64> = self.metadata.require(&name)?;
        let n_layer = self.get::<u64>("block_count")?.unwrap_or(0);
        self.check(
            key,
            format_args!("a list of {} numbers", values.len()),
            values.len() as u64 == n_layer,
            || format!("a number, or {n_layer}, one for each layer"),
        )?;
        let first = values.first().copied();
        let other = values.iter().find(|value| Some(**value) != first);
        self.check(
            key,
            format_args!("{} and {}", first.unwrap_or(0), other.copied().unwrap_or(0)),
            other.is_none(),
            || "the same number for all layers; the llama.cpp backend runs models whose layers differ".into(),
        )?;
        Ok(first)
    }

    pub fn size(
        &self,
        key: &str,
        range: &RangeInclusive<usize>,
        default: Option<usize>,
    ) -> Result<usize, LoadError> {
        let value: u64 = match self.same_in_all_layers(key)? {
            Some(value) => value,
            None => self.get_or(key, default.map(|value| value as u64))?,
        };
        let size = usize::try_from(value).ok().filter(|size| range.contains(size));
        self.check(key, value, size.is_some(), || format!("{} to {}", range.start(), range.end()))?;
        Ok(size.unwrap_or_default())
    }

    pub fn float(
        &self,
        key: &str,
        range: &RangeInclusive<f32>,
        default: Option<f32>,
    ) -> Result<f32, LoadError> {
        let value: f32 = self.get_or(key, default)?;
        self.check(key, value, range.contains(&value), || format!("{} to {}", range.start(), range.end()))?;
        Ok(value)
    }

    /// Refuses parts of models that are not `supported`.
    pub fn refuse_unsupported(&self, supported: SupportedParts) -> Result<(), LoadError> {
        for (key, what, known) in [
            ("expert_count", "a mixture of experts", supported.experts),
            ("nextn_predict_layers", "layers that predict more tokens", supported.nextn),
        ] {
            if !known && self.get::<u64>(key)?.is_some_and(|n| n > 0) {
                return Err(LoadError::Unsupported {
                    what: format!("{} with {what}", self.prefix),
                    supported: format!("{} 0", self.name(key)),
                });
            }
        }
        let sections = self.get::<Vec<i64>>("rope.dimension_sections")?.unwrap_or_default();
        // The fourth position of text is 0 in place of that of the token.
        let allowed = supported.rope_sections && sections.get(3).is_none_or(|&section| section <= 0);
        if !allowed && sections.iter().filter(|&&section| section > 0).count() > 1 {
            return Err(LoadError::Unsupported {
                what: format!("{} with RoPE by sections of positions", self.prefix),
                supported: format!("{} absent", self.name("rope.dimension_sections")),
            });
        }
        Ok(())
    }

    /// A factor, where 0 stands for none.
    pub fn scale(&self, key: &str) -> Result<Option<f32>, LoadError> {
        match self.get_or(key, Some(0.0f32))? {
            0.0 => Ok(None),
            _ => self.float(key, &SCALE, None).map(Some),
        }
    }

    /// A cap, where 0 stands for none.
    pub fn softcap(&self, key: &str, default: Option<f32>) -> Result<Option<f32>, LoadError> {
        let cap = self.float(key, &(0.0..=1e6), Some(default.unwrap_or(0.0)))?;
        Ok(Some(cap).filter(|&cap| cap > 0.0))
    }

    /// The pooling that the file names, by llama.cpp's numbers; none where it names a head that ranks, which
    /// these models have not.
    pub fn pooling(&self) -> Result<Option<Pooling>, LoadError> {
        let causal: bool = self.get_or("attention.causal", Some(true))?;
        self.check("attention.causal", causal, causal, || "true".into())?;
        Ok(match self.size("pooling_type", &(0..=4), Some(0))? {
            1 => Some(Pooling::Mean),
            2 => Some(Pooling::First),
            3 => Some(Pooling::Last),
            _ => None,
        })
    }

    /// Heads of keys and values in the layers with attention, and which layers these are: a list with 0 for
    /// layers without, or one number for all.
    pub fn attention_layers(
        &self,
        n_layer: usize,
        n_head: usize,
    ) -> Result<(usize, Option<Vec<bool>>), LoadError> {
        let key = "attention.head_count_kv";
        let Some(Value::Array(_)) = self.metadata.get_value(&self.name(key)) else {
            return Ok((self.size(key, &(1..=n_head), Some(n_head))?, None));
        };
        let heads: Vec<u64> = self.metadata.require(&self.name(key))?;
        let values = || format!("{n_layer} values, one for each layer");
        self.check(key, format_args!("an array of {} values", heads.len()), heads.len() == n_layer, values)?;
        let n_head_kv = heads.iter().copied().find(|&heads| heads > 0).unwrap_or(0);
        let size = usize::try_from(n_head_kv).ok().filter(|size| (1..=n_head).contains(size));
        let Some(size) = size.filter(|_| heads.iter().all(|&heads| heads == 0 || heads == n_head_kv)) else {
            return Err(LoadError::Unsupported {
                what: format!("{} = {heads:?}", self.name(key)),
                supported: format!("0 and one number of 1 to {n_head}, which at least one layer has"),
            });
        };
        Ok((size, Some(heads.iter().map(|&heads| heads > 0).collect())))
    }

    /// Layers with attention among gated delta nets.
    pub fn layers_between_delta_nets(&self, n_layer: usize) -> Result<Vec<bool>, LoadError> {
        let key = "attention.recurrent_layers";
        let layers = match self.metadata.get_value(&self.name(key)) {
            Some(_) => {
                let recurrent: &[bool] = self.metadata.require(&self.name(key))?;
                self.check(
                    key,
                    format_args!("an array of {} values", recurrent.len()),
                    recurrent.len() >= n_layer,
                    || format!("{n_layer} values, one for each layer"),
                )?;
                recurrent[..n_layer].iter().map(|recurrent| !recurrent).collect()
            }
            None => {
                let interval = self.size("full_attention_interval", &LAYERS, Some(4))?;
                (1..=n_layer).map(|layer| layer % interval == 0).collect::<Vec<_>>()
            }
        };
        if !layers.contains(&true) {
            return Err(LoadError::Unsupported {
                what: format!("{} without attention in any layer", self.prefix),
                supported: "attention in at least one layer".to_owned(),
            });
        }
        Ok(layers)
    }

    /// Heads of gated delta nets.
    pub fn delta_net(&self) -> Result<DeltaNetConfig, LoadError> {
        let head_dim = self.size("ssm.state_size", &(1..=256), None)?;
        let n_key = self.size("ssm.group_count", &HEADS, None)?;
        let n_value = self.size("ssm.time_step_rank", &HEADS, None)?;
        let inner = self.size("ssm.inner_size", &WIDTH, None)?;
        self.check("ssm.time_step_rank", n_value, n_value.is_multiple_of(n_key), || {
            format!("the multiples of ssm.group_count, which is {n_key}")
        })?;
        self.check("ssm.inner_size", inner, inner == n_value * head_dim, || {
            format!("ssm.time_step_rank times ssm.state_size, which is {}", n_value * head_dim)
        })?;
        Ok(DeltaNetConfig { n_key, n_value, head_dim })
    }

    /// The window of the layers that have one, and which have.
    pub fn window(
        &self,
        windows: Windows,
        n_layer: usize,
    ) -> Result<(Option<usize>, WindowPattern), LoadError> {
        let (default, pattern) = match windows {
            Windows::Never => return Ok((None, WindowPattern::Period(1))),
            Windows::All => (None, WindowPattern::Period(1)),
            Windows::LocalGlobal { period, default } => (default, self.window_pattern(period, n_layer)?),
        };
        // 0 stands for none.
        let window = self.size("attention.sliding_window", &(0..=1 << 31), Some(default.unwrap_or(0)))?;
        Ok((Some(window).filter(|&window| window > 0), pattern))
    }

    /// The layers that have a window: `period`, or another, or a list of them.
    pub fn window_pattern(&self, period: usize, n_layer: usize) -> Result<WindowPattern, LoadError> {
        let key = "attention.sliding_window_pattern";
        let Some(Value::Array(_)) = self.metadata.get_value(&self.name(key)) else {
            return self.size(key, &LAYERS, Some(period)).map(WindowPattern::Period);
        };
        let layers: &[bool] = self.metadata.require(&self.name(key))?;
        let values = || format!("{n_layer} values, one for each layer");
        self.check(
            key,
            format_args!("an array of {} values", layers.len()),
            layers.len() == n_layer,
            values,
        )?;
        Ok(WindowPattern::Layers(layers.to_vec()))
    }

    pub fn rope_sliding_window(
        &self,
        global: &RopeConfig,
        kind: SlidingWindowRope,
        n_ctx: usize,
    ) -> Result<RopeConfig, LoadError> {
        let base = match kind {
            SlidingWindowRope::Same => return Ok(global.clone()),
            SlidingWindowRope::Unscaled => global.base,
            SlidingWindowRope::Base(base) => self.float("rope.freq_base_swa", &ROPE_BASE, Some(base))?,
        };
        Ok(RopeConfig {
            dims: global.dims,
            base,
            scaling: RopeScaling::None,
            magnitude: 1.0,
            original_context: n_ctx,
            freq_factors: FreqFactors::Never,
        })
    }

    pub fn rope(&self, head_dim: usize, n_ctx: usize) -> Result<RopeConfig, LoadError> {
        let dims = self.size("rope.dimension_count", &(2..=head_dim), Some(head_dim))?;
        self.check("rope.dimension_count", dims, dims.is_multiple_of(2), || "even counts".into())?;
        let base = self.float("rope.freq_base", &ROPE_BASE, Some(10_000.0))?;
        let (scaling, freq_factors) = self.rope_scaling()?;
        Ok(RopeConfig {
            dims,
            base,
            scaling,
            magnitude: self.float("rope.scaling.attn_factor", &SCALE, Some(1.0))?,
            original_context: self.size("rope.scaling.original_context_length", &CONTEXT, Some(n_ctx))?,
            freq_factors,
        })
    }

    fn rope_scaling(&self) -> Result<(RopeScaling, FreqFactors), LoadError> {
        // Files from before `rope.scaling.type` have `rope.scale_linear` alone.
        let old = self.get::<f32>("rope.scale_linear")?;
        let kind = self.get::<String>("rope.scaling.type")?;
        let factor = self.get::<f32>("rope.scaling.factor")?.or(old).filter(|&factor| factor != 0.0);
        let factor = factor.unwrap_or(1.0);
        self.check("rope.scaling.factor", factor, SCALE.contains(&factor), || {
            format!("{} to {}", SCALE.start(), SCALE.end())
        })?;
        let scaling = match kind.as_deref() {
            Some("none" | "longrope") => RopeScaling::None,
            None | Some("linear") if factor == 1.0 => RopeScaling::None,
            None | Some("linear") => RopeScaling::Linear { factor },
            Some("yarn") => {
                let multiplier = self.get_or("rope.scaling.yarn_log_multiplier", Some(0.0f32))?;
                self.check("rope.scaling.yarn_log_multiplier", multiplier, multiplier == 0.0, || "0".into())?;
                RopeScaling::Yarn { factor }
            }
            Some(other) => {
                return Err(LoadError::Unsupported {
                    what: format!("{} = {other}", self.name("rope.scaling.type")),
                    supported: "none, linear, yarn, longrope".to_owned(),
                });
            }
        };
        let long = kind.as_deref() == Some("longrope");
        Ok((scaling, if long { FreqFactors::Required } else { FreqFactors::IfPresent }))
    }
}
