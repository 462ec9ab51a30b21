//! Messages of a conversation.

use super::Json;
use super::content::ContentPart;
use std::collections::BTreeMap;

/// One message of a conversation.
///
/// ```
/// use exsa_core::chat::{Message, ToolCall};
///
/// let call = ToolCall::new("get_weather", r#"{"city": "Bern"}"#).id("call_1");
/// let messages = [
///     Message::user("What is the weather in Bern?"),
///     Message::assistant("").tool_call(call),
///     Message::tool("call_1", "12 degrees, sunny"),
/// ];
/// assert_eq!(messages[2].text(), Some("12 degrees, sunny".into()));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Message {
    /// Role of the author: `system`, `user`, `assistant`, `tool`, or another role that the template supports.
    /// It may have up to 64 ASCII letters, digits, `_`, `-` and `.`, since templates insert it next to
    /// control tokens.
    pub role: String,
    /// Parts of the content, in order. An empty list is null content, as in an answer that consists of tool
    /// calls only.
    #[cfg_attr(feature = "serde", serde(default, with = "super::serde::content"))]
    pub content: Vec<ContentPart>,
    /// Reasoning that led to the content; the template's `reasoning_content`.
    #[cfg_attr(
        feature = "serde",
        serde(default, alias = "reasoning_content", skip_serializing_if = "Option::is_none")
    )]
    pub reasoning: Option<String>,
    /// Tool calls requested by the assistant.
    #[cfg_attr(
        feature = "serde",
        serde(
            default,
            deserialize_with = "super::serde::null_or_list",
            skip_serializing_if = "Vec::is_empty"
        )
    )]
    pub tool_calls: Vec<ToolCall>,
    /// Id of the tool call that a message with the role `tool` answers.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub tool_call_id: Option<String>,
    /// Name of the author, or of the tool.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub name: Option<String>,
    /// Additional fields for the template, by name. Names of the fields above are refused when the message is
    /// rendered.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub extra: BTreeMap<String, Json>,
}

impl Message {
    /// A message of any role with text as content.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: vec![ContentPart::Text(content.into())], ..Self::default() }
    }

    /// A system message, with instructions to the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// A user message.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// An assistant message, an answer of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// A tool message, the result of the tool call `id`.
    pub fn tool(id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(id.into()), ..Self::new("tool", content) }
    }

    /// Replaces the content with `parts`; an empty list is null content.
    #[must_use]
    pub fn parts(mut self, parts: impl IntoIterator<Item = ContentPart>) -> Self {
        self.content = parts.into_iter().collect();
        self
    }

    /// Adds a part to the content.
    #[must_use]
    pub fn part(mut self, part: impl Into<ContentPart>) -> Self {
        self.content.push(part.into());
        self
    }

    /// Sets the reasoning that led to the content.
    #[must_use]
    pub fn reasoning(mut self, reasoning: impl Into<String>) -> Self {
        self.reasoning = Some(reasoning.into());
        self
    }

    /// Adds a tool call.
    #[must_use]
    pub fn tool_call(mut self, call: ToolCall) -> Self {
        self.tool_calls.push(call);
        self
    }

    /// Sets the name of the author, or of the tool.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds an additional field.
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, value: impl Into<Json>) -> Self {
        self.extra.insert(field.into(), value.into());
        self
    }

    /// The content as one text, with its parts joined without a separator; `None` for null content, or if a
    /// part is not text.
    pub fn text(&self) -> Option<String> {
        let texts = self.content.iter().map(|part| match part {
            ContentPart::Text(text) => Some(text.as_str()),
            _ => None,
        });
        if self.content.is_empty() { None } else { texts.collect() }
    }
}

/// A tool call (OpenAI's `function`) requested by the assistant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolCall {
    /// Id of the call, which the message with the result repeats.
    pub id: Option<String>,
    /// Name of the tool.
    pub name: String,
    /// Arguments as the model wrote them: the text of a JSON object, unless the model made a mistake.
    /// Templates receive the parsed object if the text is valid, as in vLLM, and the text otherwise.
    pub arguments: String,
}

impl ToolCall {
    /// A call without an id.
    pub fn new(name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self { id: None, name: name.into(), arguments: arguments.into() }
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}
