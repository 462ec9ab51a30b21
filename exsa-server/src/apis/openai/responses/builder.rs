//! A response in progress: engine events become items and typed stream events.

use crate::apis::openai::logprobs::ChatLogprobs;
use crate::http::error::ApiError;
use crate::http::stream::Outbox;
use exsa_core::stream::{Token, ToolCallDelta};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Event, FinishReason, Usage};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A response with its items so far.
pub(super) struct Builder {
    id: String,
    /// Fields that do not change: id, model, settings of the request.
    fixed: Map<String, Value>,
    /// Set if log-probabilities are sent.
    tokenizer: Option<Arc<dyn Tokenizer>>,
    output: Vec<Value>,
    open: Option<Open>,
    reasoning_tokens: usize,
    usage: Usage,
    status: &'static str,
    incomplete: Option<&'static str>,
    error: Option<Value>,
    /// Sequence number of the next event; `None` if events are not sent.
    sequence: Option<u64>,
}

/// The item in progress.
struct Open {
    id: String,
    kind: Kind,
    text: String,
    logprobs: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
    /// A call, by its index in the answer.
    Call {
        index: usize,
        call_id: String,
        name: String,
    },
}

impl Open {
    /// The item, with its text so far.
    fn item(&self, status: &str) -> Value {
        let Self { id, text, .. } = self;
        match &self.kind {
            Kind::Message => {
                json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": [self.part()]})
            }
            Kind::Reasoning => {
                json!({"id": id, "type": "reasoning", "status": status, "summary": [], "content": [self.part()]})
            }
            Kind::Call { call_id, name, .. } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                "arguments": text,
            }),
        }
    }

    /// The item at its beginning.
    fn bare(&self) -> Value {
        let mut item = self.item("in_progress");
        if !matches!(self.kind, Kind::Call { .. }) {
            item["content"] = Value::Array(Vec::new());
        }
        item
    }

    /// The only content part of the item.
    fn part(&self) -> Value {
        let Self { text, logprobs, .. } = self;
        match self.kind {
            Kind::Reasoning => json!({"type": "reasoning_text", "text": text}),
            _ => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}),
        }
    }
}

impl Builder {
    /// Creates a response that sends events if `streamed`.
    pub(super) fn new(
        id: String,
        fixed: Map<String, Value>,
        tokenizer: Option<Arc<dyn Tokenizer>>,
        streamed: bool,
    ) -> Self {
        Self {
            id,
            fixed,
            tokenizer,
            output: Vec::new(),
            open: None,
            reasoning_tokens: 0,
            usage: Usage::default(),
            status: "in_progress",
            incomplete: None,
            error: None,
            sequence: streamed.then_some(0),
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The current response.
    pub(super) fn response(&self) -> Value {
        let usage = &self.usage;
        let usage = (self.status != "in_progress").then(|| {
            json!({
                "input_tokens": usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": usage.cached_tokens},
                "output_tokens": usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
                "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            })
        });
        let mut response = self.fixed.clone();
        response.insert("status".into(), self.status.into());
        response.insert("error".into(), self.error.clone().into());
        let details = self.incomplete.map(|reason| json!({"reason": reason}));
        response.insert("incomplete_details".into(), details.into());
        response.insert("output".into(), self.output.clone().into());
        response.insert("usage".into(), usage.into());
        Value::Object(response)
    }

    /// Sends the events before the first item.
    pub(super) fn begin(&mut self, out: &mut Outbox) {
        for name in ["response.created", "response.in_progress"] {
            self.send(name, out, |builder| json!({"response": builder.response()}));
        }
    }

    /// Sends the event that ends the stream.
    pub(super) fn end(&mut self, out: &mut Outbox) {
        let name = match self.status {
            "completed" => "response.completed",
            "failed" => "response.failed",
            _ => "response.incomplete",
        };
        self.send(name, out, |builder| json!({"response": builder.response()}));
    }

    /// Processes an event of the engine.
    ///
    /// # Errors
    ///
    /// The error of the failed request.
    pub(super) fn event(&mut self, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        match event {
            Event::Token(token) => self.token(&token, out),
            Event::Reasoning(token) => {
                self.reasoning_tokens += usize::from(token.id.is_some());
                if !token.text.is_empty() {
                    self.enter(Kind::Reasoning, out);
                    self.grow(&token.text, Vec::new(), out);
                }
            }
            Event::ToolCall(delta) => self.call(&delta, out),
            Event::MalformedToolCall(malformed) => {
                if matches!(&self.open, Some(Open { kind: Kind::Call { .. }, .. })) {
                    self.leave("incomplete", out);
                }
                self.text(&malformed.text, out);
            }
            Event::Finished(end) => {
                self.usage = end.usage;
                self.finish(&end.text, &end.reason, out)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends the response with an error.
    pub(super) fn fail(&mut self, error: &ApiError, out: &mut Outbox) {
        self.leave("incomplete", out);
        self.status = "failed";
        self.error = Some(json!({"code": "server_error", "message": error.to_string()}));
    }

    /// Ends the response because its caller cancelled it.
    pub(super) fn cancel(&mut self, out: &mut Outbox) {
        self.leave("incomplete", out);
        self.status = "cancelled";
    }

    fn finish(&mut self, text: &str, reason: &FinishReason, out: &mut Outbox) -> Result<(), ApiError> {
        if let Some(error) = ApiError::of_reason(reason) {
            return Err(error);
        }
        self.text(text, out);
        self.incomplete = match reason {
            FinishReason::MaxTokens | FinishReason::ContextFull => Some("max_output_tokens"),
            FinishReason::BannedString(_) => Some("content_filter"),
            _ => None,
        };
        self.status = if self.incomplete.is_some() { "incomplete" } else { "completed" };
        self.leave(self.status, out);
        Ok(())
    }

    fn token(&mut self, token: &Token, out: &mut Outbox) {
        let in_message = matches!(&self.open, Some(Open { kind: Kind::Message, .. }));
        if token.text.is_empty() && !(in_message && self.tokenizer.is_some()) {
            return;
        }
        let logprobs = self.tokenizer.as_deref();
        let logprobs = logprobs.map(|tokenizer| ChatLogprobs::of([token], tokenizer).into_values());
        self.enter(Kind::Message, out);
        self.grow(&token.text, logprobs.unwrap_or_default(), out);
    }

    fn text(&mut self, text: &str, out: &mut Outbox) {
        if !text.is_empty() {
            self.enter(Kind::Message, out);
            self.grow(text, Vec::new(), out);
        }
    }

    fn call(&mut self, delta: &ToolCallDelta, out: &mut Outbox) {
        let open =
            matches!(&self.open, Some(Open { kind: Kind::Call { index, .. }, .. }) if *index == delta.call);
        if !open {
            let call_id = delta.id.clone().unwrap_or_else(|| self.derived_id("call_", delta.call));
            let name = delta.name.clone().unwrap_or_default();
            self.enter(Kind::Call { index: delta.call, call_id, name }, out);
        }
        if !delta.arguments.is_empty() {
            self.grow(&delta.arguments, Vec::new(), out);
        }
    }

    /// Derives an id from that of the response.
    fn derived_id(&self, prefix: &str, index: usize) -> String {
        format!("{prefix}{}{index:02x}", self.id.trim_start_matches("resp_"))
    }

    /// Opens an item of this kind, unless one is open.
    fn enter(&mut self, kind: Kind, out: &mut Outbox) {
        if self.open.as_ref().is_some_and(|open| open.kind == kind) {
            return;
        }
        self.leave("completed", out);
        let prefix = match kind {
            Kind::Message => "msg_",
            Kind::Reasoning => "rs_",
            Kind::Call { .. } => "fc_",
        };
        let id = self.derived_id(prefix, self.output.len());
        self.open = Some(Open { id, kind, text: String::new(), logprobs: Vec::new() });
        self.item_event("response.output_item.added", out, |open| json!({"item": open.bare()}));
        self.part_event("response.content_part.added", out, |open| json!({"part": open.part()}));
    }

    /// Appends to the open item.
    fn grow(&mut self, text: &str, logprobs: Vec<Value>, out: &mut Outbox) {
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        match open.kind {
            Kind::Message => {
                open.logprobs.extend(logprobs.iter().cloned());
                self.part_event(
                    "response.output_text.delta",
                    out,
                    |_| json!({"delta": text, "logprobs": logprobs}),
                );
            }
            Kind::Reasoning => {
                self.part_event("response.reasoning_text.delta", out, |_| json!({"delta": text}));
            }
            Kind::Call { .. } => {
                let delta = |open: &Open| json!({"item_id": open.id, "delta": text});
                self.item_event("response.function_call_arguments.delta", out, delta);
            }
        }
    }

    /// Closes the open item.
    fn leave(&mut self, status: &str, out: &mut Outbox) {
        match self.open.as_ref().map(|open| &open.kind) {
            None => return,
            Some(Kind::Message) => self.part_event(
                "response.output_text.done",
                out,
                |open| json!({"text": open.text, "logprobs": open.logprobs}),
            ),
            Some(Kind::Reasoning) => {
                self.part_event("response.reasoning_text.done", out, |open| json!({"text": open.text}));
            }
            Some(Kind::Call { name, .. }) => {
                let name = name.clone();
                self.item_event(
                    "response.function_call_arguments.done",
                    out,
                    |open| json!({"item_id": open.id, "name": name, "arguments": open.text}),
                );
            }
        }
        self.part_event("response.content_part.done", out, |open| json!({"part": open.part()}));
        self.item_event("response.output_item.done", out, |open| json!({"item": open.item(status)}));
        self.output.extend(self.open.take().map(|open| open.item(status)));
    }

    /// Sends an event about the open item's content; calls have none.
    fn part_event(&mut self, name: &'static str, out: &mut Outbox, fields: impl FnOnce(&Open) -> Value) {
        if !matches!(&self.open, Some(Open { kind: Kind::Call { .. }, .. })) {
            self.item_event(name, out, |open| {
                let mut event = fields(open);
                event["item_id"] = open.id.as_str().into();
                event["content_index"] = 0.into();
                event
            });
        }
    }

    /// Sends an event about the open item.
    fn item_event(&mut self, name: &'static str, out: &mut Outbox, fields: impl FnOnce(&Open) -> Value) {
        self.send(name, out, |builder| {
            let mut event = builder.open.as_ref().map_or_else(|| json!({}), fields);
            event["output_index"] = builder.output.len().into();
            event
        });
    }

    /// Sends an event with its type and number, if events are sent.
    fn send(&mut self, name: &'static str, out: &mut Outbox, fields: impl FnOnce(&Self) -> Value) {
        let Some(number) = self.sequence else { return };
        let mut event = fields(self);
        event["type"] = name.into();
        event["sequence_number"] = number.into();
        self.sequence = Some(number + 1);
        out.named(name, &event);
    }
}
