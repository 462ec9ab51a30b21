//! Complete answers in the form of Anthropic's API.

use exsa_core::FinishReason;
use exsa_core::stream::Completion;
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Debug, Serialize)]
pub(super) struct Message {
    id: String,
    r#type: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Block>,
    stop_reason: &'static str,
    stop_sequence: Option<String>,
    usage: Usage,
}

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Thinking { thinking: String, signature: &'static str },
    Text { text: String },
    ToolUse { id: String, name: String, input: Value },
}

/// Token counts. `input_tokens` excludes cached prompt tokens.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Usage {
    pub(super) input_tokens: usize,
    pub(super) cache_read_input_tokens: usize,
    pub(super) cache_creation_input_tokens: usize,
    pub(super) output_tokens: usize,
}

impl From<&exsa_core::Usage> for Usage {
    fn from(usage: &exsa_core::Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            cache_read_input_tokens: usage.cached_tokens,
            cache_creation_input_tokens: 0,
            output_tokens: usage.completion_tokens,
        }
    }
}

impl Message {
    /// Builds the answer to a request with these stop sequences.
    pub(super) fn new(id: String, model: String, answer: Completion, stops: &[String]) -> Self {
        let mut content = Vec::new();
        if !answer.reasoning.is_empty() {
            content.push(Block::Thinking { thinking: answer.reasoning, signature: "" });
        }
        if !answer.text.is_empty() {
            content.push(Block::Text { text: answer.text });
        }
        let calls_tools = !answer.tool_calls.is_empty();
        for (i, call) in answer.tool_calls.into_iter().enumerate() {
            let id = call.id.unwrap_or_else(|| call_id(&id, i));
            // Arguments that are not JSON are the model's mistake; the client gets them as a string.
            let input = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
            content.push(Block::ToolUse { id, name: call.name, input });
        }
        let (stop_reason, stop_sequence) = stop_reason(&answer.reason, stops, calls_tools);
        Self {
            id,
            r#type: "message",
            role: "assistant",
            model,
            content,
            stop_reason,
            stop_sequence,
            usage: Usage::from(&answer.usage),
        }
    }
}

/// Returns the id of a call if the model gives none.
pub(super) fn call_id(message: &str, call: usize) -> String {
    format!("toolu_{}_{call}", message.trim_start_matches("msg_"))
}

/// Returns the stop reason, and the stop sequence that matched.
pub(super) fn stop_reason(
    reason: &FinishReason,
    stops: &[String],
    calls_tools: bool,
) -> (&'static str, Option<String>) {
    match reason {
        FinishReason::StopString(index) => ("stop_sequence", stops.get(*index).cloned()),
        FinishReason::MaxTokens => ("max_tokens", None),
        FinishReason::ContextFull => ("model_context_window_exceeded", None),
        _ if calls_tools => ("tool_use", None),
        _ => ("end_turn", None),
    }
}
