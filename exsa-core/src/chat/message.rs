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
    /// Role of the author: `system`, `user`, `assistant`, `tool`, or another role that the template knows.
    /// ASCII letters, digits, `_`, `-` and `.`, up to 64 bytes: templates put it where control tokens stand.
    pub role: String,
    /// Parts of the content, in order. No part at all is null content, as of an answer that consists of tool
    /// calls.
    #[cfg_attr(feature = "serde", serde(default, with = "super::serde::content"))]
    pub content: Vec<ContentPart>,
    /// Reasoning that led to the content; the template's `reasoning_content`.
    #[cfg_attr(
        feature = "serde",
        serde(default, alias = "reasoning_content", skip_serializing_if = "Option::is_none")
    )]
    pub reasoning: Option<String>,
    /// Calls of tools that the assistant asks for.
    #[cfg_attr(
        feature = "serde",
        serde(
            default,
            deserialize_with = "super::serde::null_or_list",
            skip_serializing_if = "Vec::is_empty"
        )
    )]
    pub tool_calls: Vec<ToolCall>,
    /// Id of the call that a message of the role `tool` answers.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub tool_call_id: Option<String>,
    /// Name of the author, or of the tool.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub name: Option<String>,
    /// Further fields that a template may look at, by name. Fields that have a place above are refused when
    /// the message is rendered.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub extra: BTreeMap<String, Json>,
}

impl Message {
    /// A message of any role with text as content.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: vec![ContentPart::Text(content.into())], ..Self::default() }
    }

    /// Instructions to the model.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// Input of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// An answer of the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }

    /// The result of the tool call `id`.
    pub fn tool(id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(id.into()), ..Self::new("tool", content) }
    }

    /// Replaces the content with `parts`; none of them is null content.
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

    /// Adds a call of a tool.
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

    /// Adds a further field.
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, value: impl Into<Json>) -> Self {
        self.extra.insert(field.into(), value.into());
        self
    }

    /// The content as one text, its parts joined without a separator; `None` for null content or if a part is
    /// no text.
    pub fn text(&self) -> Option<String> {
        let texts = self.content.iter().map(|part| match part {
            ContentPart::Text(text) => Some(text.as_str()),
            _ => None,
        });
        if self.content.is_empty() { None } else { texts.collect() }
    }
}

/// A call of a tool (OpenAI's `function`) that the assistant asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolCall {
    /// Id, which the message with the result repeats.
    pub id: Option<String>,
    /// Name of the tool.
    pub name: String,
    /// Arguments as the model wrote them: the text of a JSON object, unless the model made a mistake.
    /// Templates see the object where the text is one, as in vLLM, and the text otherwise.
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
