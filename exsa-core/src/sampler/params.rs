//! Sampling parameters and their validation.

use super::error::SamplingError;
use super::order::{Mirostat, TransformKind};
use crate::token::TokenId;

/// Sampling parameters. Each field has a setter of the same name.
///
/// ```
/// use exsa_core::sampler::{SamplerContext, SamplingParams};
///
/// let params = SamplingParams::default().temperature(0.7).top_p(0.9).seed(1);
/// assert!(params.build(&SamplerContext::new(32_000)).is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct SamplingParams {
    /// Divides the logits: below 1 sharper, above 1 flatter; 0 is greedy. Finite, 0 or more; 0.8 by default.
    pub temperature: f32,
    /// Keeps the `k` best tokens. `None` or `Some(0)` keeps all; `Some(40)` by default.
    pub top_k: Option<u32>,
    /// Keeps the smallest set of best tokens whose probabilities sum to at least this (nucleus sampling,
    /// Holtzman et al. 2020). `0..=1`, where 1 keeps all and 0 keeps only the best token; 0.95 by default.
    pub top_p: f32,
    /// Keeps tokens whose probability is at least this ratio of the best token's
    /// (Nguyen et al. 2024). `0..=1`, where 0 keeps all; 0.05 by default.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the penalty window (Keskar et al. 2019,
    /// CTRL). `0.01..=100`; 1, the default, disables the penalty.
    #[cfg_attr(feature = "serde", serde(rename = "repeat_penalty", alias = "repetition_penalty"))]
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once per occurrence in the penalty window. `-100..=100`; 0 by default.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of every token that occurs
    /// in the penalty window. `-100..=100`; 0 by default.
    pub presence_penalty: f32,
    /// Number of last tokens, prompt and generated, considered by the three penalties; `None` means all.
    /// `Some(64)` by default.
    #[cfg_attr(feature = "serde", serde(rename = "repeat_last_n", with = "crate::wire::last_n"))]
    pub penalty_window: Option<u32>,
    /// Values added to the logits of individual tokens, each token at
    /// most once; negative infinity bans a token. Empty by default.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::logit_bias"))]
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Seed of the random numbers: the same seed and the same logits yield the same tokens. `None`, the
    /// default, lets the engine choose one when a request is submitted.
    pub seed: Option<u64>,
    /// Whether [`Sampled::logprob`](super::Sampled::logprob) is computed, at the cost of an additional pass
    /// over the vocabulary; `false` by default.
    pub logprobs: bool,
    /// Number of most probable tokens that [`Sampled::top_logprobs`](super::Sampled::top_logprobs) lists.
    /// `0..=20`; 0 by default, which costs nothing.
    pub top_logprobs: u32,
    /// The steps of the chain in order of application, each at most once; a step that is not listed is not
    /// applied. [`TransformKind::DEFAULT_ORDER`] by default. Minimum tokens and logit bias always come first,
    /// and mirostat always last. If [`Host`](TransformKind::Host) is not listed, a host's transforms come
    /// before the first step that is neither penalties nor DRY.
    #[cfg_attr(feature = "serde", serde(rename = "samplers"))]
    pub order: Vec<TransformKind>,
    /// Whether tokens of the prompt count for the three penalties; `true` by default.
    pub penalize_prompt: bool,
    /// Keeps the tokens whose surprise is nearest to the entropy, until their probabilities sum to at least
    /// this (locally typical sampling, Meister et al. 2022). `0..=1`; 1, the default, keeps all.
    pub typical_p: f32,
    /// Keeps tokens whose logit is at most this many standard deviations below the best (Tang et al. 2024).
    /// Finite; 0 or less keeps all. -1 by default.
    pub top_n_sigma: f32,
    /// Chance that XTC removes the top choices of a position (p-e-w 2024). `0..=1`; 0, the default, disables
    /// XTC.
    pub xtc_probability: f32,
    /// XTC's threshold: tokens with at least this probability are top choices, all of which except the least
    /// probable are removed. `0..=1`, where more than 0.5 never removes any; 0.1 by default.
    pub xtc_threshold: f32,
    /// Dynamic temperature: the range around [`temperature`](Self::temperature), not below 0, within which
    /// the temperature varies with the entropy of the distribution. Finite, 0 or more; 0, the default, keeps
    /// it fixed. Greedy decoding ignores it.
    pub dynatemp_range: f32,
    /// Dynamic temperature: exponent of the normalized entropy, which determines the temperature within the
    /// range. `0..=100`; 1 by default.
    pub dynatemp_exponent: f32,
    /// Controls the surprise of the text towards [`mirostat_tau`](Self::mirostat_tau) (Basu et al. 2021).
    /// Replaces top-nσ, top-k, typical-p, top-p, min-p and XTC; excludes adaptive-p; no effect on greedy
    /// decoding. Off by default.
    pub mirostat: Mirostat,
    /// Target surprise of mirostat, in bits per token. `0..=100`; 5 by default.
    pub mirostat_tau: f32,
    /// Learning rate of mirostat. `0..=100`; 0.1 by default.
    pub mirostat_eta: f32,
    /// Target probability of adaptive-p (2025), which favours tokens near it. `0..=1`; `None`, the default,
    /// disables adaptive-p.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::optional_target"))]
    pub adaptive_target: Option<f32>,
    /// Decay of adaptive-p's moving average of probabilities, which spans about `1 / (1 - decay)` tokens.
    /// `0..=0.99`; 0.9 by default.
    pub adaptive_decay: f32,
    /// DRY (p-e-w 2024): penalty of a token that would continue a repetition of exactly the allowed length.
    /// `0..=100`; 0, the default, disables DRY.
    pub dry_multiplier: f32,
    /// DRY: factor of the penalty for every further token of the repetition. `1..=100`; 1.75 by default.
    pub dry_base: f32,
    /// DRY: minimum length in tokens of a repetition that is penalized. 1 or more; 2 by default.
    pub dry_allowed_length: u32,
    /// DRY: number of last tokens, prompt and generated, searched for repetitions; `None` means all.
    /// `Some(64)` by default.
    #[cfg_attr(feature = "serde", serde(rename = "dry_penalty_last_n", with = "crate::wire::last_n"))]
    pub dry_window: Option<u32>,
    /// DRY: sequence breakers, texts across which repetitions are not matched; at most 64, of at most 64
    /// bytes each. Line break, colon, double quote and asterisk by default.
    pub dry_sequence_breakers: Vec<String>,
    /// Minimum generated tokens: before this, no end-of-generation token and no stop token is sampled, unless
    /// no other token is left; 0 by default. Stop strings end an answer at any time.
    pub min_tokens: u32,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: Some(40),
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: Some(64),
            logit_bias: Vec::new(),
            seed: None,
            logprobs: false,
            top_logprobs: 0,
            order: TransformKind::DEFAULT_ORDER.to_vec(),
            penalize_prompt: true,
            typical_p: 1.0,
            top_n_sigma: -1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            mirostat: Mirostat::Off,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            adaptive_target: None,
            adaptive_decay: 0.9,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_window: Some(64),
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
            min_tokens: 0,
        }
    }
}

/// Largest number of [`SamplingParams::dry_sequence_breakers`].
const BREAKERS_MAX: usize = 64;
/// Largest length of one of them.
const BREAKER_BYTES_MAX: usize = 64;
/// Largest value of [`SamplingParams::top_logprobs`].
pub(crate) const TOP_LOGPROBS_MAX: u32 = 20;

impl SamplingParams {
    /// Greedy decoding: always the most probable token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Sets [`temperature`](Self::temperature).
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets [`top_k`](Self::top_k).
    #[must_use]
    pub fn top_k(mut self, k: impl Into<Option<u32>>) -> Self {
        self.top_k = k.into();
        self
    }

    /// Sets [`top_p`](Self::top_p).
    #[must_use]
    pub fn top_p(mut self, p: f32) -> Self {
        self.top_p = p;
        self
    }

    /// Sets [`min_p`](Self::min_p).
    #[must_use]
    pub fn min_p(mut self, p: f32) -> Self {
        self.min_p = p;
        self
    }

    /// Sets [`repetition_penalty`](Self::repetition_penalty).
    #[must_use]
    pub fn repetition_penalty(mut self, penalty: f32) -> Self {
        self.repetition_penalty = penalty;
        self
    }

    /// Sets [`frequency_penalty`](Self::frequency_penalty).
    #[must_use]
    pub fn frequency_penalty(mut self, penalty: f32) -> Self {
        self.frequency_penalty = penalty;
        self
    }

    /// Sets [`presence_penalty`](Self::presence_penalty).
    #[must_use]
    pub fn presence_penalty(mut self, penalty: f32) -> Self {
        self.presence_penalty = penalty;
        self
    }

    /// Sets [`penalty_window`](Self::penalty_window).
    #[must_use]
    pub fn penalty_window(mut self, tokens: impl Into<Option<u32>>) -> Self {
        self.penalty_window = tokens.into();
        self
    }

    /// Sets [`logit_bias`](Self::logit_bias), all of it.
    #[must_use]
    pub fn logit_bias(mut self, biases: impl Into<Vec<(TokenId, f32)>>) -> Self {
        self.logit_bias = biases.into();
        self
    }

    /// Sets [`seed`](Self::seed).
    #[must_use]
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets [`logprobs`](Self::logprobs).
    #[must_use]
    pub fn logprobs(mut self, logprobs: bool) -> Self {
        self.logprobs = logprobs;
        self
    }

    /// Sets [`top_logprobs`](Self::top_logprobs).
    #[must_use]
    pub fn top_logprobs(mut self, n: u32) -> Self {
        self.top_logprobs = n;
        self
    }

    /// Sets [`order`](Self::order).
    #[must_use]
    pub fn order(mut self, kinds: impl Into<Vec<TransformKind>>) -> Self {
        self.order = kinds.into();
        self
    }

    /// Sets [`penalize_prompt`](Self::penalize_prompt).
    #[must_use]
    pub fn penalize_prompt(mut self, penalize: bool) -> Self {
        self.penalize_prompt = penalize;
        self
    }

    /// Sets [`typical_p`](Self::typical_p).
    #[must_use]
    pub fn typical_p(mut self, p: f32) -> Self {
        self.typical_p = p;
        self
    }

    /// Sets [`top_n_sigma`](Self::top_n_sigma).
    #[must_use]
    pub fn top_n_sigma(mut self, n: f32) -> Self {
        self.top_n_sigma = n;
        self
    }

    /// Sets [`xtc_probability`](Self::xtc_probability).
    #[must_use]
    pub fn xtc_probability(mut self, probability: f32) -> Self {
        self.xtc_probability = probability;
        self
    }

    /// Sets [`xtc_threshold`](Self::xtc_threshold).
    #[must_use]
    pub fn xtc_threshold(mut self, threshold: f32) -> Self {
        self.xtc_threshold = threshold;
        self
    }

    /// Sets [`dynatemp_range`](Self::dynatemp_range).
    #[must_use]
    pub fn dynatemp_range(mut self, range: f32) -> Self {
        self.dynatemp_range = range;
        self
    }

    /// Sets [`dynatemp_exponent`](Self::dynatemp_exponent).
    #[must_use]
    pub fn dynatemp_exponent(mut self, exponent: f32) -> Self {
        self.dynatemp_exponent = exponent;
        self
    }

    /// Sets [`mirostat`](Self::mirostat).
    #[must_use]
    pub fn mirostat(mut self, version: Mirostat) -> Self {
        self.mirostat = version;
        self
    }

    /// Sets [`mirostat_tau`](Self::mirostat_tau).
    #[must_use]
    pub fn mirostat_tau(mut self, tau: f32) -> Self {
        self.mirostat_tau = tau;
        self
    }

    /// Sets [`mirostat_eta`](Self::mirostat_eta).
    #[must_use]
    pub fn mirostat_eta(mut self, eta: f32) -> Self {
        self.mirostat_eta = eta;
        self
    }

    /// Sets [`adaptive_target`](Self::adaptive_target).
    #[must_use]
    pub fn adaptive_target(mut self, target: impl Into<Option<f32>>) -> Self {
        self.adaptive_target = target.into();
        self
    }

    /// Sets [`adaptive_decay`](Self::adaptive_decay).
    #[must_use]
    pub fn adaptive_decay(mut self, decay: f32) -> Self {
        self.adaptive_decay = decay;
        self
    }

    /// Sets [`dry_multiplier`](Self::dry_multiplier).
    #[must_use]
    pub fn dry_multiplier(mut self, multiplier: f32) -> Self {
        self.dry_multiplier = multiplier;
        self
    }

    /// Sets [`dry_base`](Self::dry_base).
    #[must_use]
    pub fn dry_base(mut self, base: f32) -> Self {
        self.dry_base = base;
        self
    }

    /// Sets [`dry_allowed_length`](Self::dry_allowed_length).
    #[must_use]
    pub fn dry_allowed_length(mut self, tokens: u32) -> Self {
        self.dry_allowed_length = tokens;
        self
    }

    /// Sets [`dry_window`](Self::dry_window).
    #[must_use]
    pub fn dry_window(mut self, tokens: impl Into<Option<u32>>) -> Self {
        self.dry_window = tokens.into();
        self
    }

    /// Sets [`dry_sequence_breakers`](Self::dry_sequence_breakers), all of them.
    #[must_use]
    pub fn dry_sequence_breakers<T: Into<String>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.dry_sequence_breakers = texts.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`min_tokens`](Self::min_tokens).
    #[must_use]
    pub fn min_tokens(mut self, tokens: u32) -> Self {
        self.min_tokens = tokens;
        self
    }

    /// Refuses values that are out of range.
    pub(super) fn check(&self, n_vocab: usize) -> Result<(), SamplingError> {
        if n_vocab == 0 || u32::try_from(n_vocab).is_err() {
            return Err(SamplingError::Vocabulary { n_vocab });
        }
        let not_negative = "a finite number, 0 or more";
        let hundred = "a number from 0 to 100";
        let share = "a number from 0 to 1";
        let penalty = "a number from -100 to 100";
        within("temperature", self.temperature, 0.0, f32::MAX, not_negative)?;
        within("top_p", self.top_p, 0.0, 1.0, share)?;
        within("min_p", self.min_p, 0.0, 1.0, share)?;
        within("repetition_penalty", self.repetition_penalty, 0.01, 100.0, "a number from 0.01 to 100")?;
        within("frequency_penalty", self.frequency_penalty, -100.0, 100.0, penalty)?;
        within("presence_penalty", self.presence_penalty, -100.0, 100.0, penalty)?;
        within(
            "top_logprobs",
            self.top_logprobs as f32,
            0.0,
            TOP_LOGPROBS_MAX as f32,
            "an integer from 0 to 20",
        )?;
        within("typical_p", self.typical_p, 0.0, 1.0, share)?;
        within("top_n_sigma", self.top_n_sigma, f32::MIN, f32::MAX, "a finite number")?;
        within("xtc_probability", self.xtc_probability, 0.0, 1.0, share)?;
        within("xtc_threshold", self.xtc_threshold, 0.0, 1.0, share)?;
        within("dynatemp_range", self.dynatemp_range, 0.0, f32::MAX, not_negative)?;
        within("dynatemp_exponent", self.dynatemp_exponent, 0.0, 100.0, hundred)?;
        within("mirostat_tau", self.mirostat_tau, 0.0, 100.0, hundred)?;
        within("mirostat_eta", self.mirostat_eta, 0.0, 100.0, hundred)?;
        within("adaptive_target", self.adaptive_target.unwrap_or(0.0), 0.0, 1.0, share)?;
        within("adaptive_decay", self.adaptive_decay, 0.0, 0.99, "a number from 0 to 0.99")?;
        within("dry_multiplier", self.dry_multiplier, 0.0, 100.0, hundred)?;
        within("dry_base", self.dry_base, 1.0, 100.0, "a number from 1 to 100")?;
        within("dry_allowed_length", self.dry_allowed_length as f32, 1.0, f32::MAX, "an integer, 1 or more")?;
        self.check_breakers()?;
        self.check_order()?;
        self.check_biases(n_vocab)
    }

    fn check_breakers(&self) -> Result<(), SamplingError> {
        let breakers = &self.dry_sequence_breakers;
        if breakers.len() > BREAKERS_MAX {
            return Err(SamplingError::BreakerCount { count: breakers.len() });
        }
        match breakers.iter().enumerate().find(|(_, text)| text.len() > BREAKER_BYTES_MAX) {
            Some((index, text)) => Err(SamplingError::BreakerLength { index, bytes: text.len() }),
            None => Ok(()),
        }
    }

    fn check_order(&self) -> Result<(), SamplingError> {
        // A list longer than the number of kinds names one twice, so the search is short.
        let twice = self.order.iter().enumerate().find(|(i, kind)| self.order[..*i].contains(kind));
        if let Some((_, &kind)) = twice {
            return Err(SamplingError::OrderTwice { kind });
        }
        if self.mirostat != Mirostat::Off && self.adaptive_target.is_some() {
            return Err(SamplingError::Conflict { parameters: ["mirostat", "adaptive_target"] });
        }
        Ok(())
    }

    fn check_biases(&self, n_vocab: usize) -> Result<(), SamplingError> {
        for &(token, value) in &self.logit_bias {
            if token as usize >= n_vocab {
                return Err(SamplingError::BiasToken { token, n_vocab });
            }
            if value.is_nan() || value == f32::INFINITY {
                let allowed = "a finite number or negative infinity";
                return Err(SamplingError::Range { parameter: "logit_bias", value, allowed });
            }
        }
        let mut tokens: Vec<TokenId> = self.logit_bias.iter().map(|&(token, _)| token).collect();
        tokens.sort_unstable();
        match tokens.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(SamplingError::BiasTwice { token: pair[0] }),
            None => Ok(()),
        }
    }
}

/// Refuses a `value` outside `low..=high`. A NaN is in no range.
fn within(
    parameter: &'static str,
    value: f32,
    low: f32,
    high: f32,
    allowed: &'static str,
) -> Result<(), SamplingError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(SamplingError::Range { parameter, value, allowed })
    }
}
