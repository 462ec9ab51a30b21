//! Dynamic temperature: a temperature that grows with the entropy of the distribution (kalomaze's entropy
//! sampling, llama.cpp pull request 4972, 2024; the idea of entropy-dependent temperature: Zhu et al.,
//! arXiv:2309.02772).

use crate::sampler::candidates::Candidates;
use crate::sampler::exp::exp;
use crate::sampler::ln::ln;
use crate::sampler::transform::{Step, Transform};

/// The temperature is `low + (high - low) * h^exponent`, where `h` is the entropy over its largest value, the
/// logarithm of the number of candidates.
#[derive(Debug)]
pub(in crate::sampler) struct DynamicTemperature {
    /// 0 or more.
    pub low: f32,
    /// Above `low`.
    pub high: f32,
    /// 0 or more.
    pub exponent: f32,
}

impl DynamicTemperature {
    /// The temperature for `h` in `0..=1`.
    fn temperature(&self, h: f64) -> f32 {
        let power = if self.exponent == 1.0 {
            h as f32
        } else if self.exponent == 0.0 {
            1.0
        } else if h < f64::MIN_POSITIVE {
            0.0
        } else {
            exp((f64::from(self.exponent) * ln(h)) as f32)
        };
        self.low + (self.high - self.low) * power
    }
}

impl Transform for DynamicTemperature {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        let n = candidates.len();
        if n < 2 {
            return;
        }
        let h = (candidates.entropy() / ln(n as f64)).clamp(0.0, 1.0);
        let temperature = self.temperature(h);
        if temperature > 0.0 {
            candidates.scale_temperature(temperature);
        } else {
            candidates.keep_best(1);
        }
    }
}
