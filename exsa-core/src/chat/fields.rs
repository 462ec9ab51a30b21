//! Fields of messages, as passed to templates.

use super::content::ContentPart;
use super::template::ChatTemplateError;
use super::{Json, Message, ToolCall};

/// Names that templates use for the fields of [`Message`].
pub(super) const MESSAGE_FIELDS: [&str; 6] =
    ["role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"];

/// The form in which a template expects the arguments of tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentsForm {
    /// A mapping, if the text of the arguments is a JSON object.
    Mapping,
    /// The text.
    Text,
}

/// The form in which messages are passed to a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) arguments: ArgumentsForm,
    /// Whether content with one part is passed as a list of parts, otherwise as a string.
    pub(super) single_part: bool,
    /// Whether content with several parts is passed as a list, otherwise as a string.
    pub(super) several_parts: bool,
}

/// The values of [`MESSAGE_FIELDS`] of a message; `role` is the first.
pub(super) fn own_fields(
    index: usize,
    message: &Message,
    form: Form,
) -> Result<Vec<(String, Json)>, ChatTemplateError> {
    let mut parts = message.content.iter().enumerate();
    if let Some((part, content)) = parts.find(|(_, part)| !matches!(part, ContentPart::Text(_))) {
        return Err(ChatTemplateError::Media { index, part, kind: content.kind() });
    }
    let mut fields = vec![("role".to_owned(), Json::from(message.role.as_str()))];
    let mut add = |name: &str, value: Option<Json>| {
        fields.extend(value.map(|value| (name.to_owned(), value)));
    };
    let text = |text: &Option<String>| text.as_deref().map(Json::from);
    add("content", Some(content(message, form)));
    add("reasoning_content", text(&message.reasoning));
    if !message.extra.contains_key("thinking") {
        add("thinking", text(&message.reasoning));
    }
    let calls = &message.tool_calls;
    add(
        "tool_calls",
        (!calls.is_empty()).then(|| calls.iter().map(|call| tool_call(call, form.arguments)).collect()),
    );
    add("tool_call_id", text(&message.tool_call_id));
    add("name", text(&message.name));
    Ok(fields)
}

/// The content as a string or as a list of parts; null if there is none.
fn content(message: &Message, form: Form) -> Json {
    let is_list = match message.content.len() {
        0 => false,
        1 => form.single_part,
        _ => form.several_parts,
    };
    if !is_list {
        return message.text().map_or(Json::Null, Json::from);
    }
    let texts = message.content.iter().filter_map(|part| match part {
        ContentPart::Text(text) => Some(text),
        _ => None,
    });
    let part = |text: &String| [("type", Json::from("text")), ("text", Json::from(text.as_str()))];
    texts.map(|text| part(text).into_iter().collect::<Json>()).collect()
}

/// A tool call in the format of OpenAI's API. The arguments are a mapping if they are a JSON object and the
/// template expects mappings, as most do.
fn tool_call(call: &ToolCall, form: ArgumentsForm) -> Json {
    let text = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
    let parsed = (form == ArgumentsForm::Mapping).then(|| text.parse().ok()).flatten();
    let arguments =
        parsed.filter(|parsed| matches!(parsed, Json::Object(_))).unwrap_or_else(|| Json::from(text));
    let function = [("name", Json::from(call.name.as_str())), ("arguments", arguments)];
    let id = call.id.iter().map(|id| ("id", Json::from(id.as_str())));
    id.chain([("type", Json::from("function")), ("function", function.into_iter().collect())]).collect()
}
