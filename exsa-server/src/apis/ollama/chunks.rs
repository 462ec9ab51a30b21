//! Answers in the form of Ollama's API, complete and as NDJSON lines.

use super::error;
use super::times::{nanoseconds, now};
use crate::http::error::ApiError;
use crate::http::stream::{Chunks, Outbox};
use exsa_core::chat::ToolCall;
use exsa_core::stream::{Completion, ToolCallDelta};
use exsa_core::{Event, FinishReason, Usage};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The two answer formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Message format, of `/api/chat`.
    Chat,
    /// Text format, of `/api/generate`.
    Generate,
}

impl Form {
    /// An object with a part of an answer.
    fn object(self, model: &str, text: &str, thinking: &str, calls: &[Value]) -> Value {
        let mut object = json!({"model": model, "created_at": now(), "done": false});
        match self {
            Self::Chat => {
                let mut message = json!({"role": "assistant", "content": text});
                if !thinking.is_empty() {
                    message["thinking"] = thinking.into();
                }
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                }
                object["message"] = message;
            }
            Self::Generate => {
                object["response"] = text.into();
                if !thinking.is_empty() {
                    object["thinking"] = thinking.into();
                }
            }
        }
        object
    }
}

/// Adds the fields of the last object.
fn close(object: &mut Value, reason: &FinishReason, usage: &Usage) {
    let done_reason = match reason {
        FinishReason::MaxTokens | FinishReason::ContextFull => "length",
        _ => "stop",
    };
    let first = usage.time_to_first_token.unwrap_or_default();
    let queued = usage.queue_time.unwrap_or_default();
    object["done"] = true.into();
    object["done_reason"] = done_reason.into();
    object["total_duration"] = nanoseconds(usage.total_time).into();
    object["load_duration"] = 0.into();
    object["prompt_eval_count"] = usage.prompt_tokens.into();
    object["prompt_eval_duration"] = nanoseconds(first.saturating_sub(queued)).into();
    object["eval_count"] = usage.completion_tokens.into();
    object["eval_duration"] = nanoseconds(usage.total_time.saturating_sub(first)).into();
}

/// A call with its arguments as an object, or as a string if they are not one.
fn call(call: &ToolCall) -> Value {
    let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
    json!({"function": {"name": call.name, "arguments": arguments}})
}

/// A complete answer.
pub(super) fn whole(form: Form, model: &str, answer: Completion) -> Value {
    let calls: Vec<_> = answer.tool_calls.iter().map(call).collect();
    let mut object = form.object(model, &answer.text, &answer.reasoning, &calls);
    close(&mut object, &answer.reason, &answer.usage);
    object
}

/// The answer to a request without a prompt.
pub(super) fn loaded(form: Form, model: &str, done_reason: &str) -> Value {
    let mut object = form.object(model, "", "", &[]);
    object["done"] = true.into();
    object["done_reason"] = done_reason.into();
    object
}

/// The lines of an answer.
pub(super) struct LineChunks {
    form: Form,
    model: String,
    /// Calls, sent completely with the next part of the answer, since lines have no partial calls.
    calls: BTreeMap<usize, ToolCall>,
}

impl LineChunks {
    pub(super) fn new(form: Form, model: String) -> Self {
        Self { form, model, calls: BTreeMap::new() }
    }

    fn collect(&mut self, delta: ToolCallDelta) {
        let call = self.calls.entry(delta.call).or_default();
        if let Some(name) = delta.name {
            call.name = name;
        }
        call.arguments.push_str(&delta.arguments);
    }

    /// Sends the completed calls.
    fn send_calls(&mut self, out: &mut Outbox) {
        if !self.calls.is_empty() {
            let calls: Vec<_> = std::mem::take(&mut self.calls).values().map(call).collect();
            out.chunk(&self.form.object(&self.model, "", "", &calls));
        }
    }
}

impl Chunks for LineChunks {
    fn event(&mut self, _: usize, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        match event {
            Event::Token(token) if !token.text.is_empty() => {
                self.send_calls(out);
                out.chunk(&self.form.object(&self.model, &token.text, "", &[]));
            }
            Event::Reasoning(token) if !token.text.is_empty() => {
                out.chunk(&self.form.object(&self.model, "", &token.text, &[]));
            }
            Event::ToolCall(delta) => self.collect(delta),
            Event::MalformedToolCall(malformed) => {
                if let Some(call) = malformed.call {
                    self.calls.remove(&call);
                }
                out.chunk(&self.form.object(&self.model, &malformed.text, "", &[]));
            }
            Event::Finished(end) => {
                if let Some(error) = ApiError::of_reason(&end.reason) {
                    return Err(error);
                }
                self.send_calls(out);
                let mut object = self.form.object(&self.model, &end.text, "", &[]);
                close(&mut object, &end.reason, &end.usage);
                out.chunk(&object);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Outbox) {}

    fn error(&mut self, error: &ApiError, out: &mut Outbox) {
        out.chunk(&error::json(error));
    }
}
