//! Streamed answers in the form of Anthropic's API: content blocks that begin, grow and end.

use super::error;
use super::response::{Usage, call_id, stop_reason};
use crate::http::error::ApiError;
use crate::http::stream::{Chunks, Outbox};
use exsa_core::stream::ToolCallDelta;
use exsa_core::{Event, FinishReason};
use serde_json::{Value, json};

/// Chunks of one message.
pub(super) struct MessageChunks {
    id: String,
    model: String,
    stops: Vec<String>,
    usage: Usage,
    begun: bool,
    /// The open block, and the blocks begun before it.
    open: Option<Kind>,
    blocks: usize,
    calls_tools: bool,
    end: Option<(&'static str, Option<String>)>,
}

/// Kinds of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    /// The call with this index.
    ToolUse(usize),
}

impl MessageChunks {
    pub(super) fn new(id: String, model: String, stops: Vec<String>, prompt_tokens: usize) -> Self {
        let usage = Usage { input_tokens: prompt_tokens, ..Usage::default() };
        Self { id, model, stops, usage, begun: false, open: None, blocks: 0, calls_tools: false, end: None }
    }

    fn begin(&mut self, out: &mut Outbox) {
        if !std::mem::replace(&mut self.begun, true) {
            let message = json!({
                "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
                "stop_reason": null, "stop_sequence": null, "usage": self.usage,
            });
            out.named("message_start", &json!({"type": "message_start", "message": message}));
        }
    }

    /// Opens a block of this kind, unless it is open.
    fn enter(&mut self, kind: Kind, block: Value, out: &mut Outbox) {
        self.begin(out);
        if self.open == Some(kind) {
            return;
        }
        self.leave(out);
        self.open = Some(kind);
        let start = json!({"type": "content_block_start", "index": self.blocks, "content_block": block});
        out.named("content_block_start", &start);
    }

    fn leave(&mut self, out: &mut Outbox) {
        if self.open.take().is_some() {
            let stop = json!({"type": "content_block_stop", "index": self.blocks});
            out.named("content_block_stop", &stop);
            self.blocks += 1;
        }
    }

    fn delta(&self, delta: Value, out: &mut Outbox) {
        let delta = json!({"type": "content_block_delta", "index": self.blocks, "delta": delta});
        out.named("content_block_delta", &delta);
    }

    fn text(&mut self, text: &str, out: &mut Outbox) {
        if !text.is_empty() {
            self.enter(Kind::Text, json!({"type": "text", "text": ""}), out);
            self.delta(json!({"type": "text_delta", "text": text}), out);
        }
    }

    fn call(&mut self, call: &ToolCallDelta, out: &mut Outbox) {
        self.calls_tools = true;
        let id = call.id.clone().unwrap_or_else(|| call_id(&self.id, call.call));
        let name = call.name.as_deref().unwrap_or_default();
        let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        self.enter(Kind::ToolUse(call.call), block, out);
        if !call.arguments.is_empty() {
            self.delta(json!({"type": "input_json_delta", "partial_json": call.arguments}), out);
        }
    }

    fn finish(&mut self, text: &str, reason: &FinishReason, out: &mut Outbox) -> Result<(), ApiError> {
        if let Some(error) = ApiError::of_reason(reason) {
            return Err(error);
        }
        self.text(text, out);
        self.end = Some(stop_reason(reason, &self.stops, self.calls_tools));
        Ok(())
    }
}

impl Chunks for MessageChunks {
    fn event(&mut self, _: usize, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        match event {
            Event::Token(token) => self.text(&token.text, out),
            Event::Reasoning(token) if token.text.is_empty() => {}
            Event::Reasoning(token) => {
                let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.enter(Kind::Thinking, block, out);
                self.delta(json!({"type": "thinking_delta", "thinking": token.text}), out);
            }
            Event::ToolCall(call) => self.call(&call, out),
            Event::MalformedToolCall(call) => self.text(&call.text, out),
            Event::Finished(end) => {
                self.usage = Usage::from(&end.usage);
                self.finish(&end.text, &end.reason, out)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Outbox) {
        self.begin(out);
        self.leave(out);
        let (reason, sequence) = self.end.take().unwrap_or(("end_turn", None));
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        let message_delta = json!({"type": "message_delta", "delta": delta, "usage": self.usage});
        out.named("message_delta", &message_delta);
        out.named("message_stop", &json!({"type": "message_stop"}));
    }

    fn error(&mut self, error: &ApiError, out: &mut Outbox) {
        out.named("error", &error::json(error));
    }
}
