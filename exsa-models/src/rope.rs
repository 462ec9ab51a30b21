//! Rotary position embedding: parameters and frequencies.

use crate::config::Config;
use exsa_core::error::LoadError;
use std::f64::consts::PI;

/// YaRN's parameters alpha and beta: turns over the original context below which a frequency is interpolated,
/// and above which it is left alone (arXiv:2309.00071, section 3.2).
const YARN_TURNS_LOW: f64 = 1.0;
const YARN_TURNS_HIGH: f64 = 32.0;

/// Names of the tensors with frequency factors.
pub(crate) const ROPE_FACTORS: &str = "rope_freqs.weight";
pub(crate) const ROPE_FACTORS_SHORT: &str = "rope_factors_short.weight";
pub(crate) const ROPE_FACTORS_LONG: &str = "rope_factors_long.weight";

/// Pairing of the `n` rotary dimensions of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// `2i` and `2i + 1`, as in the original RoPE.
    Interleaved,
    /// `i` and `i + n / 2`, as in GPT-NeoX.
    Neox,
}

/// RoPE of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerRope {
    /// [`Config::rope`].
    Global,
    /// [`Config::rope_sliding_window`].
    SlidingWindow,
    /// None.
    Absent,
}

/// Parameters of rotary position embedding (Su et al., arXiv:2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// Rotary dimensions of a head, even; the others pass.
    pub dims: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// How frequencies are scaled to a longer context.
    pub scaling: RopeScaling,
    /// Factor on cosine and sine.
    pub magnitude: f32,
    /// Tokens of context before scaling.
    pub original_context: usize,
    /// Whether the frequency factors of the file apply.
    pub freq_factors: FreqFactors,
}

/// How RoPE is scaled to a context longer than that of the training, besides [`FreqFactors`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not.
    None,
    /// Positions are divided by `factor` (Chen et al., arXiv:2306.15595).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// YaRN (Peng et al., arXiv:2309.00071).
    Yarn {
        /// How many times longer the context is.
        factor: f32,
    },
}

/// Frequency factors, divisors of single frequencies: `rope_freqs.weight` as in Llama 3, or
/// `rope_factors_short.weight` and `rope_factors_long.weight` as in LongRoPE (Ding et al., arXiv:2402.13753).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreqFactors {
    /// They do not apply.
    Never,
    /// They apply if the file has them.
    IfPresent,
    /// The file must have those of LongRoPE.
    Required,
}

/// Rotation per token of every pair of rotary dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeFrequencies {
    /// Radians per token, `[dims / 2]`.
    pub radians: Vec<f64>,
    /// Factor on cosine and sine.
    pub magnitude: f64,
}

impl RopeConfig {
    /// The frequencies; `freq_factors`, one for each pair, divide them unless
    /// [`freq_factors`](Self::freq_factors) says that they do not apply.
    #[must_use]
    pub fn frequencies(&self, freq_factors: Option<&[f32]>) -> RopeFrequencies {
        let freq_factors = freq_factors.filter(|_| self.freq_factors != FreqFactors::Never);
        let dims = self.dims as f64;
        let base = f64::from(self.base);
        let factor = |pair| freq_factors.and_then(|f: &[f32]| f.get(pair)).map_or(1.0, |&f| f64::from(f));
        let plain = |pair: usize| base.powf(-2.0 * pair as f64 / dims) / factor(pair);
        let mut magnitude = f64::from(self.magnitude);
        let n_pairs = self.dims / 2;
        let radians = match self.scaling {
            RopeScaling::None => (0..n_pairs).map(plain).collect(),
            RopeScaling::Linear { factor } => {
                (0..n_pairs).map(|pair| plain(pair) / f64::from(factor)).collect()
            }
            RopeScaling::Yarn { factor } => {
                let factor = f64::from(factor);
                magnitude *= 1.0 + 0.1 * factor.ln();
                // The pair that turns so many times over the original context.
                let context = self.original_context as f64;
                let pair_of = |turns: f64| dims * (context / (turns * 2.0 * PI)).ln() / (2.0 * base.ln());
                let low = pair_of(YARN_TURNS_HIGH).floor().max(0.0);
                let high = pair_of(YARN_TURNS_LOW).ceil().min(dims - 1.0);
                let ramp = |pair: usize| {
                    let interpolated = (pair as f64 - low) / (high - low).max(0.001);
                    let interpolated = interpolated.clamp(0.0, 1.0);
                    plain(pair) * (interpolated / factor + 1.0 - interpolated)
                };
                (0..n_pairs).map(ramp).collect()
            }
        };
        RopeFrequencies { radians, magnitude }
    }
}

/// Values of the frequency factors that a file has, one for each pair of rotary dimensions.
#[derive(Clone, Debug, Default)]
pub struct RopeFreqFactors {
    /// For every context.
    pub all: Option<Vec<f32>>,
    /// For contexts up to the original one.
    pub short: Option<Vec<f32>>,
    /// For longer ones.
    pub long: Option<Vec<f32>>,
}

impl RopeFreqFactors {
    /// Checks that all values are positive and finite.
    ///
    /// # Errors
    ///
    /// [`LoadError::Tensor`] with the tensor's name and the value.
    pub fn check(&self) -> Result<(), LoadError> {
        for (name, values) in
            [(ROPE_FACTORS, &self.all), (ROPE_FACTORS_SHORT, &self.short), (ROPE_FACTORS_LONG, &self.long)]
        {
            let mut values = values.iter().flatten();
            if let Some(bad) = values.find(|factor| !(factor.is_finite() && **factor > 0.0)) {
                return Err(LoadError::Tensor {
                    name: name.to_owned(),
                    problem: format!("it holds {bad}, but frequency factors are positive"),
                });
            }
        }
        Ok(())
    }

    /// The factors for sequences of up to `context` tokens of a model with `config`.
    #[must_use]
    pub fn of(&self, config: &Config, context: usize) -> Option<&[f32]> {
        let by_length = if config.is_long(context) { &self.long } else { &self.short };
        self.all.as_deref().or(by_length.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(scaling: RopeScaling, freq_factors: Option<&[f32]>) -> RopeFrequencies {
        let config = RopeConfig {
            dims: 64,
            base: 10_000.0,
            scaling,
            magnitude: 1.25,
            original_context: 4096,
            freq_factors: FreqFactors::IfPresent,
        };
        config.frequencies(freq_factors)
    }

    #[test]
    fn scaling_leaves_high_frequencies_and_divides_low_ones() {
        let plain = frequencies(RopeScaling::None, None);
        let linear = frequencies(RopeScaling::Linear { factor: 4.0 }, None);
        let yarn = frequencies(RopeScaling::Yarn { factor: 4.0 }, None);
        assert!((plain.radians[5] / linear.radians[5] - 4.0).abs() < 1e-12);
        assert_eq!(plain.radians[0], yarn.radians[0]);
        assert!((plain.radians[31] / yarn.radians[31] - 4.0).abs() < 1e-9);
        assert!(yarn.radians.windows(2).all(|pair| pair[0] > pair[1]));
        assert!((yarn.magnitude / plain.magnitude - (1.0 + 0.1 * 4f64.ln())).abs() < 1e-12);
        let divided = frequencies(RopeScaling::None, Some(&[2.0; 32]));
        assert!((plain.radians[9] / divided.radians[9] - 2.0).abs() < 1e-12);
    }
}
