//! `/v1/chat/completions`.

use super::finish::finish_reason;
use super::logprobs::ChatLogprobs;
use super::request::{self, DONE, Delivery};
use super::usage::Usage;
use crate::body::Fields;
use crate::context::Client;
use crate::error::ApiError;
use crate::state::{AppState, unix_seconds};
use crate::stream::{self, Chunks, Outbox};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use exsa_core::chat::ToolCall;
use exsa_core::stream::{Completion, Token};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Event, FinishReason, Prompt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

#[derive(Debug, Serialize)]
struct Answer {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Debug, Serialize)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Message {
    role: &'static str,
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

/// A whole call of a tool.
#[derive(Debug, Serialize)]
struct Call {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

/// Answers a conversation.
pub(crate) async fn complete(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let delivery = Delivery::take(&mut fields)?;
    let request = request::read(fields)?;
    match &request.prompt {
        Prompt::Chat(messages) if messages.is_empty() => {
            return Err(ApiError::invalid("messages: at least one message is needed").param("messages"));
        }
        Prompt::Chat(_) => {}
        _ => return Err(ApiError::invalid("messages are needed, not a prompt").param("messages")),
    }
    let model = state.ready(&client.caller, request.model.as_deref()).await?.name.clone();
    let wants_logprobs = request.sampling.logprobs || request.sampling.top_logprobs > 0;
    let tokenizer = match wants_logprobs {
        true => Some(state.generator.tokenizer(request.model.as_deref())?),
        false => None,
    };
    let answer = state.submit_one(&client, request).await?;
    let (id, created) = (state.id("chatcmpl-"), unix_seconds());
    if delivery.stream {
        let chunks = ChatChunks {
            id,
            created,
            model,
            tokenizer,
            include_usage: delivery.include_usage,
            usage: None,
            answers: BTreeMap::new(),
        };
        return Ok(stream::events(vec![answer], chunks, state.options.keep_alive));
    }
    let answers = answer.complete_all().await?;
    let usage = answers.first().map(|answer| Usage::from(&answer.usage)).unwrap_or_default();
    let choices = answers.into_iter().map(|answer| Choice::new(answer, tokenizer.as_deref(), &state));
    let choices = choices.collect();
    Ok(Json(Answer { id, object: "chat.completion", created, model, choices, usage }).into_response())
}

impl Choice {
    fn new(answer: Completion, tokenizer: Option<&dyn Tokenizer>, state: &AppState) -> Self {
        let logprobs = tokenizer.map(|tokenizer| ChatLogprobs::of(&answer.tokens, tokenizer));
        let calls_tools = !answer.tool_calls.is_empty();
        let call = |call: ToolCall| Call {
            id: call.id.unwrap_or_else(|| state.id("call_")),
            r#type: "function",
            function: Function { name: call.name, arguments: call.arguments },
        };
        Self {
            index: answer.index,
            logprobs,
            finish_reason: finish_reason(&answer.reason, calls_tools),
            message: Message {
                role: "assistant",
                content: Some(answer.text).filter(|text| !(calls_tools && text.is_empty())),
                reasoning: Some(answer.reasoning).filter(|text| !text.is_empty()),
                tool_calls: answer.tool_calls.into_iter().map(call).collect(),
            },
        }
    }
}

/// Chunks of a streamed answer.
struct ChatChunks {
    id: String,
    created: u64,
    model: String,
    /// Set where log-probabilities are sent.
    tokenizer: Option<Arc<dyn Tokenizer>>,
    include_usage: bool,
    usage: Option<Usage>,
    /// Answers that have begun, by index.
    answers: BTreeMap<usize, Begun>,
}

/// Facts about an answer that has begun.
#[derive(Debug, Default)]
struct Begun {
    calls_tools: bool,
    ended: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChunkChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
}

#[derive(Serialize)]
struct CallDelta<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionDelta<'a>,
}

#[derive(Serialize)]
struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl ChatChunks {
    fn send(&self, choices: Vec<ChunkChoice<'_>>, usage: Option<Usage>, out: &mut Outbox) {
        let (id, model) = (self.id.as_str(), self.model.as_str());
        let object = "chat.completion.chunk";
        out.chunk(&Chunk { id, object, created: self.created, model, choices, usage });
    }

    /// Sends a part of an answer, and before the first part the role.
    fn delta(&mut self, index: usize, delta: Delta<'_>, token: Option<&Token>, out: &mut Outbox) {
        self.begin(index, out);
        let logprobs = self.tokenizer.as_deref().zip(token);
        let logprobs = logprobs.map(|(tokenizer, token)| ChatLogprobs::of([token], tokenizer));
        self.send(vec![ChunkChoice { index, delta, logprobs, finish_reason: None }], None, out);
    }

    fn begin(&mut self, index: usize, out: &mut Outbox) {
        if let Entry::Vacant(answer) = self.answers.entry(index) {
            answer.insert(Begun::default());
            let delta = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
            self.send(vec![ChunkChoice { index, delta, logprobs: None, finish_reason: None }], None, out);
        }
    }

    /// Sends the end of an answer.
    fn finish(
        &mut self,
        index: usize,
        text: &str,
        reason: &FinishReason,
        out: &mut Outbox,
    ) -> Result<(), ApiError> {
        if let Some(error) = ApiError::of_reason(reason) {
            return Err(error);
        }
        if text.is_empty() {
            self.begin(index, out);
        } else {
            self.delta(index, Delta { content: Some(text), ..Delta::default() }, None, out);
        }
        let answer = self.answers.entry(index).or_default();
        if !answer.ended {
            answer.ended = true;
            let finish_reason = Some(finish_reason(reason, answer.calls_tools));
            let choice = ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason };
            self.send(vec![choice], None, out);
        }
        Ok(())
    }
}

impl Chunks for ChatChunks {
    fn event(&mut self, _: usize, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        match event {
            Event::Token(token) if token.text.is_empty() && self.tokenizer.is_none() => {}
            Event::Token(token) => {
                let delta = Delta { content: Some(&token.text), ..Delta::default() };
                self.delta(token.index, delta, Some(&token), out);
            }
            Event::Reasoning(token) => {
                let delta = Delta { reasoning: Some(&token.text), ..Delta::default() };
                self.delta(token.index, delta, Some(&token), out);
            }
            Event::ToolCall(call) => {
                let begins = call.name.is_some();
                let call_delta = CallDelta {
                    index: call.call,
                    id: call.id.as_deref(),
                    r#type: begins.then_some("function"),
                    function: FunctionDelta { name: call.name.as_deref(), arguments: &call.arguments },
                };
                let delta = Delta { tool_calls: Some([call_delta]), ..Delta::default() };
                self.delta(call.index, delta, None, out);
                self.answers.entry(call.index).or_default().calls_tools = true;
            }
            // Deltas of the call that were sent cannot be taken back: the client sees a call without an end, and its text.
            Event::MalformedToolCall(call) => {
                let delta = Delta { content: Some(&call.text), ..Delta::default() };
                self.delta(call.index, delta, None, out);
            }
            Event::AnswerFinished(end) => self.finish(end.index, &end.text, &end.reason, out)?,
            Event::Finished(end) => {
                self.usage = Some(Usage::from(&end.usage));
                self.finish(end.index, &end.text, &end.reason, out)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Outbox) {
        if self.include_usage {
            self.send(Vec::new(), Some(self.usage.unwrap_or_default()), out);
        }
        out.text(DONE);
    }

    fn error(&mut self, error: &ApiError, out: &mut Outbox) {
        out.chunk(&error.json());
        out.text(DONE);
    }
}
