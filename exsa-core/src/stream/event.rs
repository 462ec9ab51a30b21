//! Events of a stream: tokens, reasoning, tool calls, and the ends of answers.

use crate::finish::{FinishReason, Usage};
use crate::generator::Continued;
use crate::sampler::SamplerState;
use crate::token::TokenId;

/// An item of a [`TokenStream`](super::TokenStream).
///
/// A stream carries one or more answers to one prompt, numbered from 0: `index` in each payload. **Every
/// answer ends once.** A single answer ends with [`Finished`](Self::Finished). Of several answers, each ends
/// with [`AnswerFinished`](Self::AnswerFinished), except for the last one, which ends with `Finished`, as
/// does the stream. An earlier `Finished`, because the request was cancelled or failed, ends all answers that
/// are still open.
///
/// The in-process engine generates [`Request::n`](crate::Request::n) answers, each with its own sequence. The
/// failure of an answer does not affect the others; cancellation, a deadline or a shutdown ends all answers,
/// one after the other.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(tag = "type", rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Event {
    /// A generated token.
    Token(Token),
    /// A token of the model's reasoning, whose text is not part of the answer's text.
    Reasoning(Token),
    /// A part of a tool call. The tokens of the call are sent as [`Token`](Self::Token)s without text.
    ToolCall(ToolCallDelta),
    /// Text that began like a tool call but is invalid or incomplete.
    MalformedToolCall(MalformedToolCall),
    /// One of several answers ended; others continue.
    AnswerFinished(AnswerFinished),
    /// The request ended. Always sent, and always last.
    Finished(Finished),
    /// Log-probabilities of a part of the prompt, if requested
    /// ([`Request::prompt_logprobs`](crate::Request::prompt_logprobs)). All parts are sent in order, before
    /// the first token.
    Prompt(PromptLogprobs),
}

impl Event {
    /// Sets the index of the answer, if the event has one.
    pub(crate) fn set_index(&mut self, index: usize) {
        match self {
            Self::Token(token) | Self::Reasoning(token) => token.index = index,
            Self::ToolCall(delta) => delta.index = index,
            Self::MalformedToolCall(malformed) => malformed.index = index,
            Self::AnswerFinished(end) => end.index = index,
            Self::Finished(finished) => finished.index = index,
            Self::Prompt(_) => {}
        }
    }
}

/// Log-probabilities of consecutive tokens of a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PromptLogprobs {
    /// Position of the first token in the prompt, counted from 0, including BOS.
    pub start: usize,
    /// The tokens.
    pub tokens: Vec<PromptToken>,
}

impl PromptLogprobs {
    /// Log-probabilities of `tokens`, which begin at position `start`.
    pub fn new(start: usize, tokens: impl Into<Vec<PromptToken>>) -> Self {
        Self { start, tokens: tokens.into() }
    }
}

/// A token of a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct PromptToken {
    /// Token id.
    pub id: TokenId,
    /// Natural logarithm of the token's probability after the tokens before it, under the model; `None` for
    /// the first token of a prompt, which has no predecessor.
    pub logprob: Option<f32>,
    /// The most probable tokens at this position, best first, as many as requested.
    pub top_logprobs: Vec<TopLogprob>,
}

impl PromptToken {
    /// A token of a prompt.
    pub fn new(id: TokenId, logprob: impl Into<Option<f32>>) -> Self {
        Self { id, logprob: logprob.into(), top_logprobs: Vec::new() }
    }

    /// Sets the most probable tokens, the best first.
    #[must_use]
    pub fn top_logprobs<T: Into<TopLogprob>>(mut self, top: impl IntoIterator<Item = T>) -> Self {
        self.top_logprobs = top.into_iter().map(Into::into).collect();
        self
    }
}

/// Log-probability of an answer under the model: the sum over its tokens, including the token that ended it.
///
/// It refers to the model's own distribution, before penalties, filters and temperature, as in
/// [`Token::logprob`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AnswerLogprob {
    /// Sum of the natural logarithms of the tokens' probabilities.
    pub sum: f64,
    /// Number of tokens.
    pub tokens: usize,
}

impl AnswerLogprob {
    /// The log-probability `sum` of `tokens` tokens.
    pub fn new(sum: f64, tokens: usize) -> Self {
        Self { sum, tokens }
    }

    /// Mean per token, by which [`Request::best_of`](crate::Request::best_of) ranks answers; negative
    /// infinity without tokens.
    pub fn mean(&self) -> f64 {
        if self.tokens == 0 { f64::NEG_INFINITY } else { self.sum / self.tokens as f64 }
    }

    pub(crate) fn add(&mut self, logprob: f32) {
        self.sum += f64::from(logprob);
        self.tokens += 1;
    }
}

/// One generated token.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Token {
    /// Index of the answer, from 0.
    pub index: usize,
    /// Token id; `None` from remote engines that do not report it, and for a further piece of text of the
    /// previous token.
    pub id: Option<TokenId>,
    /// Text that became certain with this token. Empty while a character is incomplete or the text may be the
    /// start of a stop string; the text is then part of a later token or of [`Finished::text`].
    pub text: String,
    /// Natural logarithm of the token's probability under the model, if requested.
    pub logprob: Option<f32>,
    /// The most probable tokens at this position, best first, as many as requested.
    pub top_logprobs: Vec<TopLogprob>,
    /// Values that mirostat and adaptive-p observed for this token, for [`SamplerState::push`]; empty for
    /// other samplers.
    pub observed: Vec<f32>,
}

impl Token {
    /// A token of the first answer.
    pub fn new(id: impl Into<Option<TokenId>>, text: impl Into<String>) -> Self {
        Self { id: id.into(), text: text.into(), ..Self::default() }
    }

    /// Sets the index of the answer.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Sets the logarithm of the probability.
    #[must_use]
    pub fn logprob(mut self, logprob: impl Into<Option<f32>>) -> Self {
        self.logprob = logprob.into();
        self
    }

    /// Sets the most probable tokens, the best first.
    #[must_use]
    pub fn top_logprobs<T: Into<TopLogprob>>(mut self, top: impl IntoIterator<Item = T>) -> Self {
        self.top_logprobs = top.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the values that transforms of the sampler observed.
    #[must_use]
    pub fn observed(mut self, observed: impl Into<Vec<f32>>) -> Self {
        self.observed = observed.into();
        self
    }
}

/// A candidate at a position, and its probability.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TopLogprob {
    /// Token id; `None` from remote engines that do not report it.
    pub id: Option<TokenId>,
    /// Text of the token, if the generator reports it; otherwise the model's tokenizer can decode the id.
    pub text: Option<String>,
    /// Natural logarithm of the probability under the model.
    pub logprob: f32,
}

impl TopLogprob {
    /// A candidate by id, without its text.
    pub fn new(id: impl Into<Option<TokenId>>, logprob: f32) -> Self {
        Self { id: id.into(), text: None, logprob }
    }

    /// Sets the text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }
}

impl From<(TokenId, f32)> for TopLogprob {
    fn from((id, logprob): (TokenId, f32)) -> Self {
        Self::new(id, logprob)
    }
}

/// Text that began like a tool call but is not a valid one: its arguments are not valid JSON, the answer
/// ended before the call was complete, or the call violates the format. It is part of the answer's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct MalformedToolCall {
    /// Index of the answer, from 0.
    pub index: usize,
    /// Index of the call whose deltas were already sent and are now void; `None` if none were sent.
    pub call: Option<usize>,
    /// The text as the model wrote it, including the text of control tokens.
    pub text: String,
}

impl MalformedToolCall {
    /// A malformed call of the first answer.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Sets the index of the answer.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Sets the index of the call whose deltas are void.
    #[must_use]
    pub fn call(mut self, call: impl Into<Option<usize>>) -> Self {
        self.call = call.into();
        self
    }
}

/// A part of a tool call, as in OpenAI's streams: id and name are sent once, the arguments in pieces to
/// concatenate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct ToolCallDelta {
    /// Index of the answer, from 0.
    pub index: usize,
    /// Index of the call within the answer, from 0.
    pub call: usize,
    /// Id of the call.
    pub id: Option<String>,
    /// Name of the tool.
    pub name: Option<String>,
    /// The next piece of the arguments, as JSON text.
    pub arguments: String,
}

impl ToolCallDelta {
    /// A delta of call `call` of the first answer.
    pub fn new(call: usize) -> Self {
        Self { call, ..Self::default() }
    }

    /// Sets the index of the answer.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Sets the id of the call.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the name of the tool.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the next piece of the arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: impl Into<String>) -> Self {
        self.arguments = arguments.into();
        self
    }
}

/// The end of one of several answers.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AnswerFinished {
    /// Index of the answer, from 0.
    pub index: usize,
    /// Text that was held back and is now final.
    pub text: String,
    /// Finish reason of the answer.
    pub reason: FinishReason,
    /// Seed of the answer, if known.
    pub seed: Option<u64>,
    /// State of the answer's sampler, for [`Resume::sampler_state`](crate::Resume::sampler_state); `None` if
    /// the sampler has no state, that is, without mirostat and adaptive-p.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub sampler_state: Option<SamplerState>,
    /// Log-probability of the answer, if it was computed: with
    /// [`SamplingParams::logprobs`](crate::SamplingParams::logprobs), or to rank answers.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub logprob: Option<AnswerLogprob>,
}

impl AnswerFinished {
    /// The end of answer `index`.
    pub fn new(index: usize, reason: FinishReason) -> Self {
        Self { index, text: String::new(), reason, seed: None, sampler_state: None, logprob: None }
    }

    /// Sets the text that was held back.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets the state of the answer's sampler.
    #[must_use]
    pub fn sampler_state(mut self, state: impl Into<Option<SamplerState>>) -> Self {
        self.sampler_state = state.into();
        self
    }

    /// Sets the log-probability of the answer.
    #[must_use]
    pub fn logprob(mut self, logprob: impl Into<Option<AnswerLogprob>>) -> Self {
        self.logprob = logprob.into();
        self
    }
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Finished {
    /// Index of the answer that ended last, to which `text`, `reason` and `seed` belong.
    pub index: usize,
    /// Text that was held back and is now final.
    pub text: String,
    /// Finish reason of the answer.
    pub reason: FinishReason,
    /// Tokens and times of the whole request.
    pub usage: Usage,
    /// Seed of the answer, if known: the same request for one answer with this seed reproduces it.
    pub seed: Option<u64>,
    /// State of the answer's sampler, for [`Resume::sampler_state`](crate::Resume::sampler_state); `None` if
    /// the sampler has no state, that is, without mirostat and adaptive-p.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub sampler_state: Option<SamplerState>,
    /// Log-probability of the answer, if it was computed: with
    /// [`SamplingParams::logprobs`](crate::SamplingParams::logprobs), or to rank answers.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub logprob: Option<AnswerLogprob>,
    /// How the answers relate to uninterrupted ones, if the request was continued on another engine.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub continued: Option<Continued>,
}

impl Finished {
    /// The end of the first answer.
    pub fn new(reason: FinishReason) -> Self {
        let (text, usage) = (String::new(), Usage::default());
        Self {
            index: 0,
            text,
            reason,
            usage,
            seed: None,
            sampler_state: None,
            logprob: None,
            continued: None,
        }
    }

    /// Sets the index of the answer.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Sets the text that was held back.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Sets token counts and times.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets the state of the answer's sampler.
    #[must_use]
    pub fn sampler_state(mut self, state: impl Into<Option<SamplerState>>) -> Self {
        self.sampler_state = state.into();
        self
    }

    /// Sets the log-probability of the answer.
    #[must_use]
    pub fn logprob(mut self, logprob: impl Into<Option<AnswerLogprob>>) -> Self {
        self.logprob = logprob.into();
        self
    }

    /// Sets how the answers relate to uninterrupted ones.
    #[must_use]
    pub fn continued(mut self, continued: impl Into<Option<Continued>>) -> Self {
        self.continued = continued.into();
        self
    }
}
