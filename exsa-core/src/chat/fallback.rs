//! Tools for templates that do not support them.

use super::support::TemplateSupport;
use super::{ChatOptions, ChatTemplateError, ContentPart, Json, Message, ToolCall};
use std::borrow::Cow;

/// Handling of tools by templates that do not render them ([`TemplateSupport`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolFallback {
    /// Tools are written as text, in the format of Hermes models: definitions after the system message (in
    /// the first user message, if the template does not support system messages), calls as `<tool_call>` in
    /// the content, results as `<tool_response>` in a user message.
    #[default]
    Text,
    /// The request fails with [`ChatTemplateError::Tools`].
    Refuse,
    /// Tools are passed to the template, which leaves them out.
    Omit,
}

/// Before the definitions of the tools.
const BEFORE: &str = "You can call tools. Their definitions are given as JSON, one per line, within <tools></tools>:\n<tools>\n";

/// After the definitions.
const AFTER: &str = "</tools>\nTo call a tool, answer with its name and its arguments as a JSON object within \
    <tool_call></tool_call>, one for each call:\n<tool_call>\n{\"name\": \"name of the tool\", \"arguments\": \
    {\"name of an argument\": \"its value\"}}\n</tool_call>";

/// A conversation that the template with this `source` renders completely: the given one, or one with tools
/// as text, and options without tools.
///
/// # Errors
///
/// [`ChatTemplateError::Tools`] for [`ToolFallback::Refuse`]; [`ChatTemplateError::Depth`] for tools that are
/// nested too deeply.
pub(super) fn apply<'a>(
    messages: &'a [Message],
    options: Cow<'a, ChatOptions>,
    support: &TemplateSupport,
    source: &str,
) -> Result<(Cow<'a, [Message]>, Cow<'a, ChatOptions>), ChatTemplateError> {
    let lacks_tools = !options.tools.is_empty() && !support.tools;
    // Probes may fail on a template that renders calls or results only in conversations of a certain form. A
    // template whose source reads them gets no fallback.
    let has = |found: fn(&Message) -> bool| messages.iter().any(found);
    let lacks_calls = !support.tool_calls
        && !source.contains("tool_calls")
        && has(|message| !message.tool_calls.is_empty());
    let lacks_results =
        !support.tool_results && !source.contains("tool") && has(|message| message.role == "tool");
    let lacking = match (lacks_tools, lacks_calls, lacks_results) {
        (false, false, false) => return Ok((Cow::Borrowed(messages), options)),
        (true, ..) => "tool definitions",
        (_, true, _) => "tool calls",
        _ => "tool results",
    };
    match options.tool_fallback {
        ToolFallback::Text => {}
        ToolFallback::Refuse => return Err(ChatTemplateError::Tools { lacking }),
        ToolFallback::Omit => return Ok((Cow::Borrowed(messages), options)),
    }
    if options.tools.iter().any(|tool| !tool.is_shallow()) {
        return Err(ChatTemplateError::Depth { name: "tools".to_owned() });
    }
    let mut out: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    let mut follows_result = false;
    for message in messages {
        let is_result = lacks_results && message.role == "tool";
        match (is_result, out.last_mut()) {
            (true, Some(before)) if follows_result => before.content.push(result(message, "\n")),
            (true, _) => out.push(Message::user("").parts([result(message, "")])),
            (false, _) => out.push(if lacks_calls { calls_as_text(message) } else { message.clone() }),
        }
        follows_result = is_result;
    }
    let mut options = options;
    if lacks_tools {
        let tools = std::mem::take(&mut options.to_mut().tools);
        add_definitions(&mut out, &tools, support.system);
    }
    Ok((Cow::Owned(out), options))
}

/// Adds the definitions to the system message or the first user message, which is created if missing.
fn add_definitions(messages: &mut Vec<Message>, tools: &[Json], has_system: bool) {
    let mut text = BEFORE.to_owned();
    for tool in tools {
        text.push_str(&tool.to_string());
        text.push('\n');
    }
    text.push_str(AFTER);
    let role = if has_system { "system" } else { "user" };
    let first = messages.iter_mut().find(|message| message.role == role);
    match first {
        Some(message) if has_system && message.content.is_empty() => message.content.push(text.into()),
        Some(message) if has_system => message.content.push(format!("\n\n{text}").into()),
        Some(message) => message.content.insert(0, format!("{text}\n\n").into()),
        None => messages.insert(0, Message::new(role, text)),
    }
}

/// The message with its calls as text after the content.
fn calls_as_text(message: &Message) -> Message {
    let mut message = message.clone();
    for call in std::mem::take(&mut message.tool_calls) {
        let before = if message.content.is_empty() { "" } else { "\n" };
        message.content.push(format!("{before}{}", call_text(&call)).into());
    }
    message
}

fn call_text(call: &ToolCall) -> String {
    let arguments = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
    // Arguments that are not valid JSON are written as a string.
    let arguments = arguments.parse().unwrap_or_else(|_| Json::from(arguments));
    let call: Json =
        [("name", Json::from(call.name.as_str())), ("arguments", arguments)].into_iter().collect();
    format!("<tool_call>\n{call}\n</tool_call>")
}

/// The content of a tool result, marked as such.
fn result(message: &Message, before: &str) -> ContentPart {
    let text = message.text().unwrap_or_default();
    format!("{before}<tool_response>\n{text}\n</tool_response>").into()
}
