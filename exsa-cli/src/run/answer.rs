//! Streaming output of one answer.

use crate::error::CliError;
use crate::output;
use exsa::core::chat::ToolCall;
use exsa::{Event, FinishReason, Message, TokenStream, Usage};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Stdout, Write};

/// Prints text, and on a terminal also reasoning, dimmed.
#[derive(Debug)]
pub(super) struct Printer {
    out: Option<Stdout>,
    styled: bool,
    /// Whether reasoning is being printed.
    dim: bool,
    /// Whether the cursor is at the start of a line.
    at_line_start: bool,
}

impl Printer {
    pub(super) fn new() -> Self {
        Self { out: Some(std::io::stdout()), styled: output::styled(), dim: false, at_line_start: true }
    }

    /// Prints nothing.
    pub(super) fn silent() -> Self {
        Self { out: None, styled: false, dim: false, at_line_start: true }
    }

    fn print(&mut self, text: &str, reasoning: bool) -> std::io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        // Reasoning is left out if another program reads the answer.
        if text.is_empty() || (reasoning && !self.styled) {
            return Ok(());
        }
        if self.styled && reasoning != self.dim {
            self.dim = reasoning;
            let separator = if reasoning || self.at_line_start { "" } else { "\n\n" };
            write!(out, "{}{separator}", if reasoning { "\x1b[2m" } else { "\x1b[0m" })?;
        }
        self.at_line_start = text.ends_with('\n');
        // Control characters in the model's text must not reach the terminal.
        match self.styled {
            true => out.write_all(printable(text).as_bytes())?,
            false => out.write_all(text.as_bytes())?,
        }
        out.flush()
    }

    fn end(&mut self) -> std::io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        if std::mem::take(&mut self.dim) {
            write!(out, "\x1b[0m")?;
        }
        if !self.at_line_start {
            writeln!(out)?;
        }
        out.flush()
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// A finished answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) reasoning: String,
    pub(super) reason: FinishReason,
    /// Tool calls, in order.
    pub(super) calls: Vec<ToolCall>,
    usage: Usage,
    seed: Option<u64>,
}

impl Answer {
    /// The answer as JSON, with OpenAI's field names where they exist.
    pub(super) fn json(&self) -> serde_json::Value {
        let mut answer = json!({
            "text": self.text,
            "finish_reason": self.reason.openai(),
            "seed": self.seed,
            "usage": self.usage,
        });
        if !self.reasoning.is_empty() {
            answer["reasoning"] = self.reasoning.as_str().into();
        }
        answer
    }

    /// The answer as a message of the conversation. Tool calls of a stopped answer are left out, since they
    /// are not run.
    pub(super) fn message(&self, stopped: bool) -> Message {
        let mut message = Message::assistant(self.text.as_str());
        message.reasoning = Some(self.reasoning.clone()).filter(|reasoning| !reasoning.is_empty());
        if !stopped && !self.calls.is_empty() {
            message.tool_calls.clone_from(&self.calls);
            if self.text.is_empty() {
                message.content.clear();
            }
        }
        message
    }

    /// Summary line: tokens, times and speed.
    pub(super) fn summary(&self) -> String {
        let usage = &self.usage;
        let first =
            usage.time_to_first_token.map_or(String::new(), |time| format!(", first after {time:.1?}"));
        let speed = usage.tokens_per_second().map_or(String::new(), |speed| format!(", {speed:.1} tokens/s"));
        format!(
            "{} prompt tokens ({} cached), {} generated{first}{speed}, {}",
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            self.reason.openai(),
        )
    }
}

/// Prints a stream to its end.
pub(super) fn print(stream: TokenStream, printer: &mut Printer) -> Result<Answer, CliError> {
    let (mut text, mut reasoning) = (String::new(), String::new());
    let mut calls = BTreeMap::<usize, ToolCall>::new();
    for event in stream {
        match event {
            Event::Token(token) => {
                printer.print(&token.text, false)?;
                text.push_str(&token.text);
            }
            Event::Reasoning(token) => {
                printer.print(&token.text, true)?;
                reasoning.push_str(&token.text);
            }
            Event::ToolCall(delta) => {
                let call = calls.entry(delta.call).or_default();
                call.id = delta.id.or(call.id.take());
                if let Some(name) = delta.name {
                    call.name = name;
                }
                call.arguments.push_str(&delta.arguments);
            }
            Event::MalformedToolCall(call) => {
                if let Some(call) = call.call {
                    calls.remove(&call);
                }
                printer.print(&call.text, false)?;
                text.push_str(&call.text);
            }
            Event::Finished(end) => {
                printer.print(&end.text, false)?;
                printer.end()?;
                text.push_str(&end.text);
                let reason = end.reason.into_result()?;
                let calls = calls.into_values().collect();
                return Ok(Answer { text, reasoning, reason, calls, usage: end.usage, seed: end.seed });
            }
            _ => {}
        }
    }
    Err(CliError::Other("the answer ended without a reason".into()))
}
