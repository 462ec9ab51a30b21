//! Builds the chain of transforms from sampling parameters.

use super::error::SamplingError;
use super::order::{Mirostat as Version, TransformKind};
use super::params::SamplingParams;
use super::transform::{SamplerContext, Transform, TransformFactory};
use super::transforms::dynamic_temperature::DynamicTemperature;
use super::transforms::feedback::Surprise;
use super::transforms::feedback::adaptive_p::AdaptiveP;
use super::transforms::feedback::mirostat::Mirostat;
use super::transforms::feedback::mirostat_v2::MirostatV2;
use super::transforms::filters::min_p::MinP;
use super::transforms::filters::top_k::TopK;
use super::transforms::filters::top_n_sigma::TopNSigma;
use super::transforms::filters::top_p::TopP;
use super::transforms::filters::typical_p::TypicalP;
use super::transforms::filters::xtc::Xtc;
use super::transforms::logits::Window;
use super::transforms::logits::breakers::Breakers;
use super::transforms::logits::dry::{Dry, Matches};
use super::transforms::logits::logit_bias::LogitBias;
use super::transforms::logits::min_tokens::MinTokens;
use super::transforms::logits::penalties::Penalties;
use super::transforms::temperature::Temperature;
use super::{Choice, Sampler};
use crate::token::TokenId;
use std::sync::Arc;

impl SamplingParams {
    /// Validates the parameters and builds the sampler of one sequence.
    ///
    /// A `seed` of `None` is treated as 0: the engine sets a random seed before it builds the sampler.
    ///
    /// # Errors
    ///
    /// A parameter is out of range, conflicts with another, or requires a tokenizer that the context lacks.
    pub fn build(&self, context: &SamplerContext<'_>) -> Result<Sampler, SamplingError> {
        self.build_with(context, &[])
    }

    /// Like [`build`](Self::build), with a host's transforms in the chain, in list order, at the place of
    /// [`TransformKind::Host`].
    ///
    /// # Errors
    ///
    /// Those of [`build`](Self::build), and errors of the factories.
    pub fn build_with(
        &self,
        context: &SamplerContext<'_>,
        host: &[Arc<dyn TransformFactory>],
    ) -> Result<Sampler, SamplingError> {
        self.check(context.n_vocab())?;
        let greedy = self.temperature == 0.0;
        let mut transforms: Vec<Box<dyn Transform>> = Vec::new();
        transforms.extend(self.banned_ends(context).map(boxed));
        transforms.extend(self.biases().map(boxed));
        for kind in self.steps(greedy) {
            match kind {
                TransformKind::Host => {
                    for factory in host {
                        transforms.push(factory.build(context)?);
                    }
                }
                _ => transforms.extend(self.step(kind, context)?),
            }
        }
        let surprise = || Surprise::new(self.mirostat_tau, self.mirostat_eta);
        match self.mirostat {
            Version::V1 if !greedy => {
                let n_vocab = context.n_vocab();
                transforms.push(Box::new(Mirostat { surprise: surprise(), n_vocab }));
            }
            Version::V2 if !greedy => transforms.push(Box::new(MirostatV2 { surprise: surprise() })),
            _ => {}
        }
        Ok(Sampler {
            n_vocab: context.n_vocab(),
            seed: self.seed.unwrap_or(0),
            logprobs: self.logprobs,
            top_logprobs: self.top_logprobs as usize,
            choice: if greedy { Choice::Greedy } else { Choice::Draw },
            needs_logprob: transforms.iter().any(|transform| transform.needs_logprob()),
            drawn: None,
            accepted: 0,
            transforms,
        })
    }

    /// The steps to apply, in order. A host's transforms are applied even if `order` does not list them,
    /// since they may enforce required restrictions.
    fn steps(&self, greedy: bool) -> Vec<TransformKind> {
        let mut steps = self.order.clone();
        if !steps.contains(&TransformKind::Host) {
            let place = steps.iter().position(|kind| !kind.changes_logits()).unwrap_or(steps.len());
            steps.insert(place, TransformKind::Host);
        }
        steps.retain(|kind| match (greedy, self.mirostat) {
            (true, _) => kind.changes_logits(),
            (false, Version::Off) => true,
            (false, _) => !kind.truncates(),
        });
        steps
    }

    /// The transform of a step, unless the parameters make it neutral.
    fn step(
        &self,
        kind: TransformKind,
        context: &SamplerContext<'_>,
    ) -> Result<Option<Box<dyn Transform>>, SamplingError> {
        Ok(match kind {
            TransformKind::Penalties => self.penalties().map(boxed),
            TransformKind::Dry => self.dry(context)?.map(boxed),
            TransformKind::Host => None,
            TransformKind::TopNSigma => {
                (self.top_n_sigma > 0.0).then(|| boxed(TopNSigma { n: self.top_n_sigma }))
            }
            TransformKind::TopK => match self.top_k {
                Some(k) if k > 0 => Some(boxed(TopK { k: k as usize })),
                _ => None,
            },
            TransformKind::TypicalP => {
                (self.typical_p < 1.0).then(|| boxed(TypicalP { share: self.typical_p }))
            }
            TransformKind::TopP => (self.top_p < 1.0).then(|| boxed(TopP { share: self.top_p })),
            TransformKind::MinP => (self.min_p > 0.0).then(|| boxed(MinP { ratio: self.min_p })),
            TransformKind::Xtc => {
                let (probability, threshold) = (self.xtc_probability, self.xtc_threshold);
                (probability > 0.0 && threshold <= 0.5).then(|| boxed(Xtc { probability, threshold }))
            }
            TransformKind::Temperature => self.temperature_step(),
            TransformKind::AdaptiveP => {
                self.adaptive_target.map(|target| boxed(AdaptiveP::new(target, self.adaptive_decay)))
            }
        })
    }

    fn temperature_step(&self) -> Option<Box<dyn Transform>> {
        let (temperature, range) = (self.temperature, self.dynatemp_range);
        if range > 0.0 {
            let (low, high) = ((temperature - range).max(0.0), (temperature + range).min(f32::MAX));
            return Some(boxed(DynamicTemperature { low, high, exponent: self.dynatemp_exponent }));
        }
        (temperature != 1.0).then(|| boxed(Temperature { temperature }))
    }

    fn penalties(&self) -> Option<Penalties> {
        let (repetition, frequency) = (self.repetition_penalty, self.frequency_penalty);
        let presence = self.presence_penalty;
        let window = self.penalty_window.map_or(usize::MAX, |len| len as usize);
        let neutral = repetition == 1.0 && frequency == 0.0 && presence == 0.0;
        (!neutral && window > 0).then(|| Penalties {
            repetition,
            frequency,
            presence,
            window: Window::new(window),
            prompt: self.penalize_prompt,
        })
    }

    fn dry(&self, context: &SamplerContext<'_>) -> Result<Option<Dry>, SamplingError> {
        let window = self.dry_window.map_or(usize::MAX, |len| len as usize);
        if self.dry_multiplier == 0.0 || window == 0 {
            return Ok(None);
        }
        let texts = &self.dry_sequence_breakers;
        let breakers = match context.tokenizer() {
            Some(tokenizer) => Breakers::new(texts, tokenizer),
            None if texts.iter().all(String::is_empty) => Breakers::default(),
            None => return Err(SamplingError::NoTokenizer { parameter: "dry_sequence_breakers" }),
        };
        Ok(Some(Dry {
            multiplier: self.dry_multiplier,
            base: self.dry_base,
            allowed_length: self.dry_allowed_length as usize,
            window,
            breakers,
            matches: Matches::default(),
        }))
    }

    /// The logit biases, ascending by token.
    fn biases(&self) -> Option<LogitBias> {
        let mut biases = self.logit_bias.clone();
        biases.sort_unstable_by_key(|&(token, _)| token);
        (!biases.is_empty()).then_some(LogitBias { biases })
    }

    fn banned_ends(&self, context: &SamplerContext<'_>) -> Option<MinTokens> {
        let end_of_generation =
            context.tokenizer().map(|tokenizer| &tokenizer.special().end_of_generation[..]);
        let mut ends: Vec<TokenId> = end_of_generation.unwrap_or_default().to_vec();
        ends.extend_from_slice(context.stop_tokens());
        ends.sort_unstable();
        ends.dedup();
        (self.min_tokens > 0 && !ends.is_empty())
            .then(|| MinTokens { min: usize::try_from(self.min_tokens).unwrap_or(usize::MAX), ends })
    }
}

fn boxed<T: Transform + 'static>(transform: T) -> Box<dyn Transform> {
    Box::new(transform)
}
