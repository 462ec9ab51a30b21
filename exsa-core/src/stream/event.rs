//! Events of a stream: tokens, reasoning, tool calls, and the ends of answers.

use crate::finish::{FinishReason, Usage};
use crate::token::TokenId;

/// An item of a [`TokenStream`](super::TokenStream).
///
/// A stream carries one or more answers to one prompt, numbered from 0: `index` in each payload. **Every answer ends
/// once.** With a single answer, that is [`Finished`](Self::Finished). With several, each ends with an
/// [`AnswerFinished`](Self::AnswerFinished), except the last one to end, which `Finished` ends together with the stream.
/// A `Finished` that comes earlier, because the request was cancelled or failed, ends every answer that is still open.
///
/// The in-process engine gives one answer and sends `Token` and `Finished` only.
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
    /// A token of the model's reasoning: its text is no part of the answer's text.
    Reasoning(Token),
    /// A part of a call of a tool. Tokens that the call was written in come as [`Token`](Self::Token) without text.
    ToolCall(ToolCallDelta),
    /// Text that began like a call of a tool and is none, or no complete one.
    MalformedToolCall(MalformedToolCall),
    /// One of several answers ended; others go on.
    AnswerFinished(AnswerFinished),
    /// The request ended. Always the last event, and always there.
    Finished(Finished),
}

/// One generated token.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Token {
    /// Index of the answer, from 0.
    pub index: usize,
    /// Token id; `None` from remote engines that do not tell.
    pub id: Option<TokenId>,
    /// Text that became certain with this token. Empty while a character is incomplete or the text may be the start
    /// of a stop string; a later token, or [`Finished::text`], then brings it.
    pub text: String,
    /// Natural logarithm of the token's probability under the model, where the request asked for it.
    pub logprob: Option<f32>,
    /// The most probable tokens at this position, the best first, as many as the request asked for.
    pub top_logprobs: Vec<TopLogprob>,
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
}

/// A candidate at a position, and its probability.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TopLogprob {
    /// Token id; `None` from remote engines that do not tell.
    pub id: Option<TokenId>,
    /// Text of the token, where the generator tells; else the model's tokenizer has it.
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

/// Text that began like a call of a tool and is none: its arguments are no JSON, the answer ended before the call, or its
/// form is not that of the format. It counts as text of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct MalformedToolCall {
    /// Index of the answer, from 0.
    pub index: usize,
    /// Index of the call whose deltas came before, which are void; `None` if none came.
    pub call: Option<usize>,
    /// The text as the model wrote it, with the texts of control tokens.
    pub text: String,
}

impl MalformedToolCall {
    /// A text of the first answer.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Sets the index of the answer.
    #[must_use]
    pub fn index(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Sets the call whose deltas are void.
    #[must_use]
    pub fn call(mut self, call: impl Into<Option<usize>>) -> Self {
        self.call = call.into();
        self
    }
}

/// A part of a call of a tool, as in OpenAI's streams: id and name come once, arguments in pieces to be joined.
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
    /// The next piece of the arguments, a JSON text.
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
    /// Text that was held back and is certain now.
    pub text: String,
    /// Why the answer ended.
    pub reason: FinishReason,
    /// The seed that was used, where known.
    pub seed: Option<u64>,
}

impl AnswerFinished {
    /// The end of answer `index`.
    pub fn new(index: usize, reason: FinishReason) -> Self {
        Self { index, text: String::new(), reason, seed: None }
    }

    /// Sets the text that was held back.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Sets the seed that was used.
    #[must_use]
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }
}

/// The end of a request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Finished {
    /// Index of the answer that ended last, which `text`, `reason` and `seed` belong to.
    pub index: usize,
    /// Text that was held back and is certain now.
    pub text: String,
    /// Why the answer ended.
    pub reason: FinishReason,
    /// Tokens and times of the whole request.
    pub usage: Usage,
    /// The seed that was used, where known: the same request with this seed gives the same answer.
    pub seed: Option<u64>,
}

impl Finished {
    /// The end of the first answer.
    pub fn new(reason: FinishReason) -> Self {
        Self { index: 0, text: String::new(), reason, usage: Usage::default(), seed: None }
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

    /// Sets tokens and times.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Sets the seed that was used.
    #[must_use]
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.seed = seed.into();
        self
    }
}
