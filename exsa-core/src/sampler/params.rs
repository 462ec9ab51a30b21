//! Sampling parameters and their validation.

use super::error::SamplingError;
use super::logit_bias::LogitBias;
use super::min_p::MinP;
use super::penalties::Penalties;
use super::temperature::Temperature;
use super::top_k::TopK;
use super::top_p::TopP;
use super::transform::{SamplerContext, Transform, TransformFactory};
use super::window::Window;
use super::{Choice, Sampler};
use crate::token::TokenId;
use std::sync::Arc;

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
    /// Holtzman et al. 2020). `0..=1`, where 1 keeps all and 0 the best token alone; 0.95 by default.
    pub top_p: f32,
    /// Keeps tokens whose probability is at least this ratio of the best token's
    /// (Nguyen et al. 2024). `0..=1`, where 0 keeps all; 0.05 by default.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the penalty window (Keskar
    /// et al. 2019, CTRL). `0.01..=100`, where 1 changes nothing, which is the default.
    #[cfg_attr(feature = "serde", serde(rename = "repeat_penalty", alias = "repetition_penalty"))]
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once per occurrence in the penalty window. `-100..=100`; 0 by default.
    pub frequency_penalty: f32,
    /// Subtracted from the logit of every token that occurs
    /// in the penalty window. `-100..=100`; 0 by default.
    pub presence_penalty: f32,
    /// Number of last tokens, prompt and generated, considered by
    /// the three penalties; `None` is all. `Some(64)` by default.
    #[cfg_attr(feature = "serde", serde(rename = "repeat_last_n", with = "crate::wire::last_n"))]
    pub penalty_window: Option<u32>,
    /// Values added to the logits of individual tokens, each token at
    /// most once; negative infinity bans a token. Empty by default.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::logit_bias"))]
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Seed of the random numbers: the same seed and the same logits give the same tokens.
    /// `None`, the default, lets the engine choose one when a request is submitted.
    pub seed: Option<u64>,
    /// Whether [`Sampled::logprob`](super::Sampled::logprob) is computed, at
    /// the cost of one more pass over the vocabulary; `false` by default.
    pub logprobs: bool,
    /// Number of most probable tokens that [`Sampled::top_logprobs`](super::Sampled::top_logprobs) lists.
    /// `0..=20`; 0 by default, which costs nothing.
    pub top_logprobs: u32,
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
        }
    }
}

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

    /// Validates the parameters and builds the sampler of one sequence.
    ///
    /// A `seed` of `None` counts as 0 here: the engine fills in a random seed beforehand.
    pub fn build(&self, context: &SamplerContext<'_>) -> Result<Sampler, SamplingError> {
        self.build_with(context, &[])
    }

    /// Like [`build`](Self::build), with a host's transforms in the chain. They are
    /// applied in list order, after logit bias and penalties and before the filters.
    pub fn build_with(
        &self,
        context: &SamplerContext<'_>,
        transforms: &[Arc<dyn TransformFactory>],
    ) -> Result<Sampler, SamplingError> {
        let (host, n_vocab) = (transforms, context.n_vocab());
        if n_vocab == 0 || u32::try_from(n_vocab).is_err() {
            return Err(SamplingError::Vocabulary { n_vocab });
        }
        within("temperature", self.temperature, 0.0, f32::MAX, "a finite number, 0 or more")?;
        within("top_p", self.top_p, 0.0, 1.0, "a number from 0 to 1")?;
        within("min_p", self.min_p, 0.0, 1.0, "a number from 0 to 1")?;
        within("repetition_penalty", self.repetition_penalty, 0.01, 100.0, "a number from 0.01 to 100")?;
        within("frequency_penalty", self.frequency_penalty, -100.0, 100.0, "a number from -100 to 100")?;
        within("presence_penalty", self.presence_penalty, -100.0, 100.0, "a number from -100 to 100")?;
        if self.top_logprobs > TOP_LOGPROBS_MAX {
            let (parameter, value) = ("top_logprobs", self.top_logprobs as f32);
            return Err(SamplingError::Range { parameter, value, allowed: "an integer from 0 to 20" });
        }

        let mut transforms: Vec<Box<dyn Transform>> = Vec::new();
        let biases = self.biases(n_vocab)?;
        if !biases.is_empty() {
            transforms.push(Box::new(LogitBias { biases }));
        }
        let window = self.penalty_window.map_or(usize::MAX, |len| len as usize);
        let neutral =
            self.repetition_penalty == 1.0 && self.frequency_penalty == 0.0 && self.presence_penalty == 0.0;
        if !neutral && window > 0 {
            transforms.push(Box::new(Penalties {
                repetition: self.repetition_penalty,
                frequency: self.frequency_penalty,
                presence: self.presence_penalty,
                window: Window::new(window),
            }));
        }
        // At this place a host sees logits after bias and penalties, with every token
        // still a candidate: if it bans tokens, the filters choose among the rest.
        for factory in host {
            transforms.push(factory.build(context)?);
        }
        let choice = if self.temperature == 0.0 { Choice::Greedy } else { Choice::Draw };
        if choice == Choice::Draw {
            match self.top_k {
                Some(k) if k > 0 => transforms.push(Box::new(TopK { k: k as usize })),
                _ => {}
            }
            if self.top_p < 1.0 {
                transforms.push(Box::new(TopP { share: self.top_p }));
            }
            if self.min_p > 0.0 {
                transforms.push(Box::new(MinP { ratio: self.min_p }));
            }
            if self.temperature != 1.0 {
                transforms.push(Box::new(Temperature { temperature: self.temperature }));
            }
        }
        Ok(Sampler {
            n_vocab,
            seed: self.seed.unwrap_or(0),
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs as usize,
            choice,
            needs_logprob: transforms.iter().any(|transform| transform.needs_logprob()),
            drawn: None,
            transforms,
        })
    }

    /// The logit biases, ascending by token.
    fn biases(&self, n_vocab: usize) -> Result<Vec<(TokenId, f32)>, SamplingError> {
        for &(token, value) in &self.logit_bias {
            if token as usize >= n_vocab {
                return Err(SamplingError::BiasToken { token, n_vocab });
            }
            if value.is_nan() || value == f32::INFINITY {
                let allowed = "a finite number or negative infinity";
                return Err(SamplingError::Range { parameter: "logit_bias", value, allowed });
            }
        }
        let mut biases = self.logit_bias.clone();
        biases.sort_unstable_by_key(|&(token, _)| token);
        match biases.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(SamplingError::BiasTwice { token: pair[0].0 }),
            None => Ok(biases),
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
