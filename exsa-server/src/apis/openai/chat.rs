//! `/v1/chat/completions`.

use super::fingerprint::system_fingerprint;
use super::finish::finish_reason;
use super::logprobs::ChatLogprobs;
use super::prompt_logprobs::prompt_logprobs;
use super::request::{self, DONE, Delivery};
use super::usage::Usage;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::http::stream::{self, Chunks, Outbox};
use crate::inference::timings::Timings;
use crate::state::{AppState, unix_seconds};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use exsa_core::chat::ToolCall;
use exsa_core::stream::{Completion, Token};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Event, FinishReason, Prompt, Request};
use serde::Serialize;
use serde_json::{Value, json};
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
    system_fingerprint: String,
    service_tier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

/// A complete tool call.
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

/// Reads a request with a conversation.
fn conversation(fields: Fields) -> Result<Request, ApiError> {
    let is_true = |name| fields.get(name).and_then(Value::as_bool) == Some(true);
    if is_true("add_generation_prompt") && is_true("continue_final_message") {
        let message = "continue_final_message: not allowed if add_generation_prompt is true";
        return Err(ApiError::invalid(message).param("continue_final_message"));
    }
    let request = request::read(fields)?;
    match &request.prompt {
        Prompt::Chat(messages) if messages.is_empty() => {
            Err(ApiError::invalid("messages: at least one message is required").param("messages"))
        }
        Prompt::Chat(_) => Ok(request),
        _ => Err(ApiError::invalid("messages are required, not a prompt").param("messages")),
    }
}

/// Counts the prompt tokens of a conversation.
pub(crate) async fn input_tokens(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Json<Value>, ApiError> {
    Delivery::take(&mut fields, &state.options.get())?;
    let mut request = conversation(fields)?;
    state.name_adapter(&client.caller, &mut request);
    let info = state.ready(&client.caller, request.model.as_deref()).await?;
    request::map_roles(&mut request, &info);
    let tokens = state.blocking(move |state| state.generator.count_tokens(&request)).await?;
    Ok(Json(json!({"input_tokens": tokens})))
}

/// Answers a conversation.
pub(crate) async fn complete(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let delivery = Delivery::take(&mut fields, &state.options.get())?;
    let mut request = conversation(fields)?;
    state.name_adapter(&client.caller, &mut request);
    let info = state.ready(&client.caller, request.model.as_deref()).await?;
    request::map_roles(&mut request, &info);
    let (model, system_fingerprint) = (info.name.clone(), system_fingerprint(&info));
    let wants_logprobs = request.sampling.logprobs || request.sampling.top_logprobs > 0;
    let tokenizer = match wants_logprobs || request.prompt_logprobs.is_some() {
        true => Some(state.generator.tokenizer(request.model.as_deref())?),
        false => None,
    };
    let prompt_tokens = match delivery.continuous_usage {
        true => {
            state.authorise(&client.caller, request.model.as_deref())?;
            let counted = request.clone();
            state.blocking(move |state| state.generator.count_tokens(&counted)).await?
        }
        false => 0,
    };
    let answer = state.submit_one(&client, request).await?;
    let (id, created) = (state.id("chatcmpl-"), unix_seconds());
    if delivery.stream {
        let chunks = ChatChunks {
            id,
            created,
            model,
            system_fingerprint,
            tokenizer: tokenizer.filter(|_| wants_logprobs),
            delivery,
            prompt_tokens,
            tokens: 0,
            reasoning_tokens: 0,
            usage: None,
            timings: None,
            answers: BTreeMap::new(),
        };
        return Ok(stream::events(vec![answer], chunks, state.options.get().keep_alive));
    }
    let answers = answer.complete_all().await?;
    let reasoning = answers.iter().map(|answer| answer.reasoning_tokens).sum();
    let first = answers.first();
    let usage = first.map(|answer| Usage::from(&answer.usage)).unwrap_or_default().reasoning(reasoning);
    let timings = first.filter(|_| delivery.timings).map(|answer| Timings::from(&answer.usage));
    let prompt_logprobs = first
        .filter(|answer| !answer.prompt.is_empty())
        .zip(tokenizer.as_deref())
        .map(|(answer, tokenizer)| prompt_logprobs(&answer.prompt, tokenizer));
    let logprobs = tokenizer.as_deref().filter(|_| wants_logprobs);
    let choices = answers.into_iter().map(|answer| Choice::new(answer, logprobs, delivery, &state)).collect();
    let answer = Answer {
        id,
        object: "chat.completion",
        created,
        model,
        choices,
        usage,
        system_fingerprint,
        service_tier: "default",
        prompt_logprobs,
        timings,
    };
    Ok(Json(answer).into_response())
}

impl Choice {
    fn new(
        answer: Completion,
        tokenizer: Option<&dyn Tokenizer>,
        delivery: Delivery,
        state: &AppState,
    ) -> Self {
        let logprobs = tokenizer.map(|tokenizer| ChatLogprobs::of(&answer.tokens, tokenizer));
        let calls_tools = !answer.tool_calls.is_empty();
        let call = |call: ToolCall| Call {
            id: call.id.unwrap_or_else(|| state.id("call_")),
            r#type: "function",
            function: Function { name: call.name, arguments: call.arguments },
        };
        let reasoning = Some(answer.reasoning).filter(|text| !text.is_empty());
        Self {
            index: answer.index,
            logprobs,
            finish_reason: finish_reason(&answer.reason, calls_tools),
            message: Message {
                role: "assistant",
                content: Some(answer.text).filter(|text| !(calls_tools && text.is_empty())),
                reasoning_content: reasoning.clone().filter(|_| delivery.reasoning_content),
                reasoning,
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
    system_fingerprint: String,
    /// Set if log-probabilities are sent.
    tokenizer: Option<Arc<dyn Tokenizer>>,
    delivery: Delivery,
    /// Prompt tokens, if every chunk has the usage.
    prompt_tokens: usize,
    /// Tokens generated so far.
    tokens: usize,
    reasoning_tokens: usize,
    usage: Option<Usage>,
    timings: Option<Timings>,
    /// Answers that have begun, by index.
    answers: BTreeMap<usize, Begun>,
}

/// State of an answer that has begun.
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
    system_fingerprint: &'a str,
    choices: Vec<ChunkChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
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
    reasoning_content: Option<&'a str>,
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
        let so_far = || Usage::so_far(self.prompt_tokens, self.tokens).reasoning(self.reasoning_tokens);
        out.chunk(&Chunk {
            id,
            object: "chat.completion.chunk",
            created: self.created,
            model,
            system_fingerprint: &self.system_fingerprint,
            timings: self.timings.filter(|_| choices.iter().any(|choice| choice.finish_reason.is_some())),
            choices,
            usage: usage.or_else(|| self.delivery.continuous_usage.then(so_far)),
        });
    }

    /// Sends a part of an answer, preceded by the role before the first part.
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
        if let Event::Token(token) | Event::Reasoning(token) = &event {
            self.tokens += usize::from(token.id.is_some());
        }
        match event {
            Event::Token(token) if token.text.is_empty() && self.tokenizer.is_none() => {}
            Event::Token(token) => {
                let delta = Delta { content: Some(&token.text), ..Delta::default() };
                self.delta(token.index, delta, Some(&token), out);
            }
            Event::Reasoning(token) => {
                self.reasoning_tokens += usize::from(token.id.is_some());
                let content = self.delivery.reasoning_content.then_some(token.text.as_str());
                let delta =
                    Delta { reasoning: Some(&token.text), reasoning_content: content, ..Delta::default() };
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
            // Deltas that were sent cannot be withdrawn: the client sees a call without an end, and its text.
            Event::MalformedToolCall(call) => {
                let delta = Delta { content: Some(&call.text), ..Delta::default() };
                self.delta(call.index, delta, None, out);
            }
            Event::AnswerFinished(end) => self.finish(end.index, &end.text, &end.reason, out)?,
            Event::Finished(end) => {
                self.usage = Some(Usage::from(&end.usage).reasoning(self.reasoning_tokens));
                self.timings = self.delivery.timings.then(|| Timings::from(&end.usage));
                self.finish(end.index, &end.text, &end.reason, out)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Outbox) {
        if self.delivery.include_usage {
            self.send(Vec::new(), Some(self.usage.unwrap_or_default()), out);
        }
        out.text(DONE);
    }

    fn error(&mut self, error: &ApiError, out: &mut Outbox) {
        out.chunk(&error.json());
        out.text(DONE);
    }
}
