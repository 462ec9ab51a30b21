//! Whole answers, collected from the events of a stream.

use super::event::{AnswerLogprob, Event, Finished, PromptToken, Token};
use crate::chat::{Message, ToolCall};
use crate::finish::{FinishReason, RequestError, Usage};
use crate::sampler::SamplerState;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A whole answer, as [`TokenStream::complete`](super::TokenStream::complete) collects it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Completion {
    /// Index of the answer, from 0.
    pub index: usize,
    /// The text of the answer.
    pub text: String,
    /// The text of the model's reasoning; empty if there is none.
    pub reasoning: String,
    /// Number of tokens of the reasoning.
    pub reasoning_tokens: usize,
    /// Tool calls, in order.
    pub tool_calls: Vec<ToolCall>,
    /// Texts that began like tool calls but are not valid ones. They are also part of `text`.
    pub malformed_tool_calls: Vec<String>,
    /// All tokens, including those of reasoning and tool calls. Further pieces of text of the same token,
    /// without id and log-probability, are not listed.
    pub tokens: Vec<Token>,
    /// Finish reason; never [`FinishReason::Failed`].
    pub reason: FinishReason,
    /// Tokens and times of the whole request.
    pub usage: Usage,
    /// Seed of the answer, if known: the same request for one answer with this seed reproduces it.
    pub seed: Option<u64>,
    /// State of the answer's sampler, to resume it; see [`Finished::sampler_state`].
    pub sampler_state: Option<SamplerState>,
    /// Log-probability of the answer, if it was computed.
    pub logprob: Option<AnswerLogprob>,
    /// Tokens of the prompt with their log-probabilities, if requested; shared by all answers.
    pub prompt: Arc<[PromptToken]>,
}

impl Completion {
    /// The `finish_reason` of OpenAI's API: `tool_calls` for an answer with tool calls that was not cut off,
    /// else that of [`FinishReason::openai`].
    pub fn finish_reason(&self) -> &'static str {
        match self.reason.openai() {
            "stop" if !self.tool_calls.is_empty() => "tool_calls",
            reason => reason,
        }
    }
}

/// Converts the answer into the next message of the conversation: text, reasoning and tool calls. The content
/// is null if the answer consists of tool calls only.
///
/// ```
/// use exsa_core::scripted::ScriptedModel;
/// use exsa_core::{Engine, EngineOptions, Message, Request};
///
/// let engine = Engine::start(ScriptedModel::echo("Hello.").shared(), EngineOptions::default())?;
/// let answer = engine.submit(Request::text("Hi").max_tokens(6))?.complete()?;
/// let conversation = [Message::user("Hi"), answer.into()];
/// assert_eq!(conversation[1], Message::assistant("Hello."));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl From<Completion> for Message {
    fn from(completion: Completion) -> Self {
        let Completion { text, reasoning, tool_calls, .. } = completion;
        let mut message = Self::assistant("");
        message.content.clear();
        if !text.is_empty() || tool_calls.is_empty() {
            message.content.push(text.into());
        }
        message.reasoning = Some(reasoning).filter(|reasoning| !reasoning.is_empty());
        message.tool_calls = tool_calls;
        message
    }
}

/// Collects the answers of a stream.
#[derive(Default)]
pub(super) struct Collector {
    answers: BTreeMap<usize, Answer>,
    prompt: Vec<PromptToken>,
}

#[derive(Default)]
struct Answer {
    text: String,
    reasoning: String,
    reasoning_tokens: usize,
    calls: BTreeMap<usize, ToolCall>,
    malformed: Vec<String>,
    tokens: Vec<Token>,
    end: Option<End>,
}

/// The end of an answer.
struct End {
    reason: FinishReason,
    seed: Option<u64>,
    sampler_state: Option<SamplerState>,
    logprob: Option<AnswerLogprob>,
}

impl Answer {
    /// Appends a token, unless it is a further piece of text of the previous token.
    fn token(&mut self, token: Token) {
        if token.id.is_some() || token.logprob.is_some() {
            self.tokens.push(token);
        }
    }
}

impl Collector {
    /// Processes an event; returns it if it is the last one.
    pub(super) fn push(&mut self, event: Event) -> Option<Finished> {
        match event {
            Event::Token(token) => {
                let answer = self.answer(token.index);
                answer.text.push_str(&token.text);
                answer.token(token);
            }
            Event::Reasoning(token) => {
                let answer = self.answer(token.index);
                answer.reasoning.push_str(&token.text);
                answer.reasoning_tokens += usize::from(token.id.is_some());
                answer.token(token);
            }
            Event::ToolCall(delta) => {
                let call = self.answer(delta.index).calls.entry(delta.call).or_default();
                call.id = delta.id.or(call.id.take());
                if let Some(name) = delta.name {
                    call.name = name;
                }
                call.arguments.push_str(&delta.arguments);
            }
            Event::MalformedToolCall(malformed) => {
                let answer = self.answer(malformed.index);
                if let Some(call) = malformed.call {
                    answer.calls.remove(&call);
                }
                answer.text.push_str(&malformed.text);
                answer.malformed.push(malformed.text);
            }
            Event::AnswerFinished(end) => {
                let answer = self.answer(end.index);
                answer.text.push_str(&end.text);
                answer.end = Some(End {
                    reason: end.reason,
                    seed: end.seed,
                    sampler_state: end.sampler_state,
                    logprob: end.logprob,
                });
            }
            Event::Prompt(part) => self.prompt.extend(part.tokens),
            Event::Finished(finished) => return Some(finished),
        }
        None
    }

    /// The answers by index. The first is always present, even if no event belongs to it.
    pub(super) fn finish(
        mut self,
        finished: Finished,
    ) -> impl Iterator<Item = Result<Completion, RequestError>> {
        self.answer(0);
        let last = self.answer(finished.index);
        last.text.push_str(&finished.text);
        last.end = Some(End {
            reason: finished.reason.clone(),
            seed: finished.seed,
            sampler_state: finished.sampler_state.clone(),
            logprob: finished.logprob,
        });
        let prompt: Arc<[PromptToken]> = self.prompt.into();
        self.answers.into_iter().map(move |(index, answer)| {
            let cut =
                || End { reason: finished.reason.clone(), seed: None, sampler_state: None, logprob: None };
            let End { reason, seed, sampler_state, logprob } = answer.end.unwrap_or_else(cut);
            Ok(Completion {
                index,
                text: answer.text,
                reasoning: answer.reasoning,
                reasoning_tokens: answer.reasoning_tokens,
                tool_calls: answer.calls.into_values().collect(),
                malformed_tool_calls: answer.malformed,
                tokens: answer.tokens,
                reason: reason.into_result()?,
                usage: finished.usage.clone(),
                seed,
                sampler_state,
                logprob,
                prompt: prompt.clone(),
            })
        })
    }

    fn answer(&mut self, index: usize) -> &mut Answer {
        self.answers.entry(index).or_default()
    }
}
