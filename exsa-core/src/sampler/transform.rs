//! The interface between the sampler and the transforms of its chain.

use super::candidates::Candidates;
use super::error::SamplingError;
use super::random::Random;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::fmt::Debug;
use std::sync::Arc;

/// One step of the sampler's chain: changes the candidates before the draw.
///
/// Built-in transforms are in `sampler/transforms/`; [`SamplingParams::order`](super::SamplingParams::order)
/// sets their order. A host adds its own with a [`TransformFactory`] in
/// [`Request::transform`](crate::Request::transform).
///
/// # Contract
///
/// The result of [`apply`](Self::apply) depends on the parameters, the candidates, the step and the
/// tokens accepted so far (those not rolled back), and on nothing else: no clock, no other source of
/// random numbers. `apply` has no side effects: it may be called for a position any number of times,
/// with or without an `accept` in between. Caches, such as counts of the history, are allowed.
pub trait Transform: Debug + Send {
    /// Changes or removes candidates.
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>);

    /// Records a token appended to the sequence. Called for generated tokens,
    /// including those of a resumed request's earlier run, but not for prompt tokens.
    fn accept(&mut self, accepted: &Accepted) {
        let _ = accepted;
    }

    /// Undoes the last `n` calls of [`accept`](Self::accept), whose tokens
    /// were taken back. `n` is at most the number of calls not yet undone.
    fn rollback(&mut self, n: usize) {
        let _ = n;
    }

    /// Whether [`Accepted::logprob`] is needed, at the cost of one pass over the candidates per token.
    fn needs_logprob(&self) -> bool {
        false
    }

    /// One value per accepted token that a later run of a resumed request cannot derive from the tokens, such
    /// as the probability with which the token was drawn. `None`, the default, if the transform needs none.
    fn observations(&self) -> Option<&[f32]> {
        None
    }

    /// Restores the [`observations`](Self::observations) of an earlier run, for the tokens that will be
    /// accepted first. Called before the first `accept`, if the resumed request has a
    /// [state](crate::Resume::sampler_state). Since hosts store the values, they can be arbitrary: an
    /// implementation must ignore invalid ones.
    fn restore(&mut self, observations: &[f32]) {
        let _ = observations;
    }
}

/// A token appended to the sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Accepted {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of the token's probability under the final distribution, after all transforms; 0 for
    /// greedy decoding. `None` if no transform of the chain [needs it](Transform::needs_logprob), or if this
    /// sampler did not draw the token: a resumed request's earlier tokens, or a token forced by a grammar.
    pub logprob: Option<f32>,
    /// Whether the sampler's last call drew this token; `false` for tokens of an earlier run and tokens
    /// forced by a grammar.
    pub drawn: bool,
}

impl Accepted {
    /// An accepted token that the sampler did not draw.
    pub fn new(token: TokenId) -> Self {
        Self { token, logprob: None, drawn: false }
    }
}

/// State of the sequence when a token is sampled.
#[derive(Debug)]
pub struct Step<'a> {
    history: &'a [TokenId],
    generated: usize,
    position: u64,
    random: Random,
}

impl<'a> Step<'a> {
    pub(super) fn new(history: &'a [TokenId], generated: usize, seed: u64, position: u64) -> Self {
        Self { history, generated, position, random: Random::new(seed, position) }
    }

    /// The tokens of the sequence so far, prompt and generated.
    pub fn history(&self) -> &'a [TokenId] {
        self.history
    }

    /// Number of tokens generated so far, those of a resumed request's earlier run included.
    pub fn generated(&self) -> usize {
        self.generated
    }

    /// Length of the prompt: the tokens of the history that were not generated.
    pub fn prompt_len(&self) -> usize {
        self.history.len().saturating_sub(self.generated)
    }

    /// Position of the new token in the sequence.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next random number of this position, uniform in `0.0..1.0`. Numbers depend on
    /// seed, position and the count of numbers taken before, and are independent of the draw.
    pub fn random(&mut self) -> f64 {
        self.random.unit()
    }
}

/// Model facts available when a sampler is built.
#[derive(Clone, Copy)]
pub struct SamplerContext<'a> {
    n_vocab: usize,
    tokenizer: Option<&'a dyn Tokenizer>,
    stop_tokens: &'a [TokenId],
}

impl<'a> SamplerContext<'a> {
    /// A vocabulary of `n_vocab` tokens without texts.
    pub fn new(n_vocab: usize) -> Self {
        Self { n_vocab, tokenizer: None, stop_tokens: &[] }
    }

    /// Adds the model's tokenizer.
    #[must_use]
    pub fn with_tokenizer(mut self, tokenizer: &'a dyn Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Adds the request's stop tokens.
    #[must_use]
    pub fn with_stop_tokens(mut self, tokens: &'a [TokenId]) -> Self {
        self.stop_tokens = tokens;
        self
    }

    /// Number of tokens, the length of a row of logits.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// The model's tokenizer. Always set by an engine; optional for a sampler built by hand.
    pub fn tokenizer(&self) -> Option<&'a dyn Tokenizer> {
        self.tokenizer
    }

    /// The request's stop tokens.
    pub fn stop_tokens(&self) -> &'a [TokenId] {
        self.stop_tokens
    }
}

impl Debug for SamplerContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tokenizer = self.tokenizer.map(|tokenizer| tokenizer.n_vocab());
        f.debug_struct("SamplerContext")
            .field("n_vocab", &self.n_vocab)
            .field("tokenizer.n_vocab", &tokenizer)
            .field("stop_tokens", &self.stop_tokens)
            .finish()
    }
}

/// Builds a host's transform for one answer.
///
/// One factory may build several transforms: one per answer of a request,
/// and a new one for a resumed request. Each starts without accepted tokens.
pub trait TransformFactory: Debug + Send + Sync {
    /// Builds a transform for one sequence. An error fails the submission of
    /// the request; [`SamplingError::transform`] creates one from a text.
    fn build(&self, context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError>;
}

impl<T: TransformFactory + ?Sized> TransformFactory for Arc<T> {
    fn build(&self, context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        (**self).build(context)
    }
}
