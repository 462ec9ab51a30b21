//! Events as plain structs. Ends of answers are JSON, since their types omit fields.

use super::FrameError;
use super::bounded::Bounded;
use exsa_core::TokenId;
use exsa_core::stream::{
    AnswerFinished, AnswerLogprob, Event, Finished, MalformedToolCall, PromptLogprobs, PromptToken, Token,
    ToolCallDelta, TopLogprob,
};
use serde::{Deserialize, Serialize};

/// Maximum events per frame. A larger group, such as the best of many answers, takes several frames.
pub const EVENTS_MAX: usize = 4096;
/// Maximum alternatives of a token.
const TOP_MAX: usize = 64;
/// Maximum observing transforms per token.
const OBSERVED_MAX: usize = 64;
/// Maximum prompt tokens per frame.
const PROMPT_MAX: usize = 1 << 16;

/// An [`Event`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WireEvent {
    /// [`Event::Token`].
    Token(WireToken),
    /// [`Event::Reasoning`].
    Reasoning(WireToken),
    /// [`Event::ToolCall`].
    ToolCall(WireToolCall),
    /// [`Event::MalformedToolCall`].
    MalformedToolCall(WireMalformed),
    /// [`Event::Prompt`].
    Prompt(WirePrompt),
    /// [`Event::AnswerFinished`].
    AnswerFinished(WireEnd),
    /// [`Event::Finished`].
    Finished(WireEnd),
}

/// A [`Token`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireToken {
    pub(super) index: u64,
    pub(super) id: Option<TokenId>,
    pub(super) text: String,
    logprob: Option<f32>,
    pub(super) top: Bounded<WireTop, TOP_MAX>,
    observed: Bounded<f32, OBSERVED_MAX>,
}

/// A [`TopLogprob`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireTop {
    pub(super) id: Option<TokenId>,
    text: Option<String>,
    logprob: f32,
}

/// A [`ToolCallDelta`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireToolCall {
    pub(super) index: u64,
    pub(super) call: u64,
    id: Option<String>,
    name: Option<String>,
    arguments: String,
}

/// A [`MalformedToolCall`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireMalformed {
    pub(super) index: u64,
    pub(super) call: Option<u64>,
    text: String,
}

/// [`PromptLogprobs`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WirePrompt {
    pub(super) start: u64,
    pub(super) tokens: Bounded<WirePromptToken, PROMPT_MAX>,
}

/// A [`PromptToken`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WirePromptToken {
    pub(super) id: TokenId,
    logprob: Option<f32>,
    pub(super) top: Bounded<WireTop, TOP_MAX>,
}

/// An [`AnswerFinished`] or a [`Finished`] as JSON, without its log-probability, which may be infinite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireEnd {
    pub(super) json: String,
    logprob: Option<(f64, u64)>,
}

impl WireEvent {
    /// Converts an event.
    ///
    /// # Errors
    ///
    /// [`FrameError::Content`] for an event that is not part of this protocol version.
    pub fn new(event: Event) -> Result<Self, FrameError> {
        Ok(match event {
            Event::Token(token) => Self::Token(token.into()),
            Event::Reasoning(token) => Self::Reasoning(token.into()),
            Event::ToolCall(delta) => Self::ToolCall(WireToolCall {
                index: delta.index as u64,
                call: delta.call as u64,
                id: delta.id,
                name: delta.name,
                arguments: delta.arguments,
            }),
            Event::MalformedToolCall(malformed) => Self::MalformedToolCall(WireMalformed {
                index: malformed.index as u64,
                call: malformed.call.map(|call| call as u64),
                text: malformed.text,
            }),
            Event::Prompt(part) => Self::Prompt(WirePrompt {
                start: part.start as u64,
                tokens: Bounded(part.tokens.into_iter().map(WirePromptToken::from).collect()),
            }),
            Event::AnswerFinished(mut end) => {
                let logprob = end.logprob.take().map(|logprob| (logprob.sum, logprob.tokens as u64));
                Self::AnswerFinished(WireEnd { json: json(&end)?, logprob })
            }
            Event::Finished(mut end) => {
                let logprob = end.logprob.take().map(|logprob| (logprob.sum, logprob.tokens as u64));
                Self::Finished(WireEnd { json: json(&end)?, logprob })
            }
            other => return Err(FrameError::Content(format!("an event without a form: {other:?}"))),
        })
    }

    /// Converts back to an event.
    ///
    /// # Errors
    ///
    /// [`FrameError::Content`] if the JSON of an end is invalid.
    pub fn into_event(self) -> Result<Event, FrameError> {
        Ok(match self {
            Self::Token(token) => Event::Token(token.into()),
            Self::Reasoning(token) => Event::Reasoning(token.into()),
            Self::ToolCall(delta) => {
                let mut to = ToolCallDelta::new(size(delta.call)).index(size(delta.index));
                (to.id, to.name, to.arguments) = (delta.id, delta.name, delta.arguments);
                Event::ToolCall(to)
            }
            Self::MalformedToolCall(malformed) => {
                let to = MalformedToolCall::new(malformed.text).index(size(malformed.index));
                Event::MalformedToolCall(to.call(malformed.call.map(size)))
            }
            Self::Prompt(part) => {
                let tokens = part.tokens.0.into_iter().map(PromptToken::from).collect::<Vec<_>>();
                Event::Prompt(PromptLogprobs::new(size(part.start), tokens))
            }
            Self::AnswerFinished(end) => {
                let logprob = end.logprob();
                Event::AnswerFinished(parse::<AnswerFinished>(&end.json)?.logprob(logprob))
            }
            Self::Finished(end) => {
                let logprob = end.logprob();
                Event::Finished(parse::<Finished>(&end.json)?.logprob(logprob))
            }
        })
    }
}

impl WireEnd {
    fn logprob(&self) -> Option<AnswerLogprob> {
        self.logprob.map(|(sum, tokens)| AnswerLogprob::new(sum, size(tokens)))
    }
}

fn json(value: &impl Serialize) -> Result<String, FrameError> {
    serde_json::to_string(value).map_err(|problem| FrameError::Content(format!("an end: {problem}")))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, FrameError> {
    serde_json::from_str(json)
        .map_err(|problem| FrameError::Content(format!("the end of an answer: {problem}")))
}

/// Converts a count from the peer, which may have 64 bits on a 32-bit system.
pub(super) fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl From<Token> for WireToken {
    fn from(token: Token) -> Self {
        Self {
            index: token.index as u64,
            id: token.id,
            text: token.text,
            logprob: token.logprob,
            top: tops(token.top_logprobs),
            observed: Bounded(token.observed),
        }
    }
}

impl From<WireToken> for Token {
    fn from(token: WireToken) -> Self {
        let top = token.top.0.into_iter().map(TopLogprob::from);
        let to = Token::new(token.id, token.text).index(size(token.index)).logprob(token.logprob);
        to.top_logprobs(top).observed(token.observed.0)
    }
}

fn tops(top: Vec<TopLogprob>) -> Bounded<WireTop, TOP_MAX> {
    let wire = |top: TopLogprob| WireTop { id: top.id, text: top.text, logprob: top.logprob };
    Bounded(top.into_iter().map(wire).collect())
}

impl From<WireTop> for TopLogprob {
    fn from(top: WireTop) -> Self {
        let to = TopLogprob::new(top.id, top.logprob);
        match top.text {
            Some(text) => to.text(text),
            None => to,
        }
    }
}

impl From<PromptToken> for WirePromptToken {
    fn from(token: PromptToken) -> Self {
        Self { id: token.id, logprob: token.logprob, top: tops(token.top_logprobs) }
    }
}

impl From<WirePromptToken> for PromptToken {
    fn from(token: WirePromptToken) -> Self {
        PromptToken::new(token.id, token.logprob).top_logprobs(token.top.0.into_iter().map(TopLogprob::from))
    }
}
