//! Metadata keys of an architecture, read with their limits.

use crate::architecture::{SlidingWindowRope, Windows};
use crate::config::WindowPattern;
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

    pub fn size(
        &self,
        key: &str,
        range: &RangeInclusive<usize>,
        default: Option<usize>,
    ) -> Result<usize, LoadError> {
        let value: u64 = self.get_or(key, default.map(|value| value as u64))?;
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

    /// Refuses parts of models that no architecture has here.
    pub fn refuse_unsupported(&self) -> Result<(), LoadError> {
        for (key, what) in [
            ("expert_count", "a mixture of experts"),
            ("nextn_predict_layers", "layers that predict more tokens"),
        ] {
            if self.get::<u64>(key)?.is_some_and(|n| n > 0) {
                return Err(LoadError::Unsupported {
                    what: format!("{} with {what}", self.prefix),
                    supported: format!("{} 0", self.name(key)),
                });
            }
        }
        let sections = self.get::<Vec<i64>>("rope.dimension_sections")?.unwrap_or_default();
        if sections.iter().filter(|&&section| section > 0).count() > 1 {
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
