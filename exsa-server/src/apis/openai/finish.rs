//! Finish reasons of OpenAI's API.

use exsa_core::FinishReason;

/// Returns the finish reason of a complete answer.
pub(crate) fn finish_reason(reason: &FinishReason, calls_tools: bool) -> &'static str {
    match reason.openai() {
        "stop" if calls_tools => "tool_calls",
        reason => reason,
    }
}
