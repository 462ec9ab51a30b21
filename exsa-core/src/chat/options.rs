//! Options for rendering a conversation.

use super::{ChatTemplateSource, Json, ToolFallback};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Options for rendering a conversation.
///
/// ```
/// use exsa_core::chat::ChatOptions;
///
/// let options = ChatOptions::default().variable("enable_thinking", false);
/// assert!(options.add_generation_prompt);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct ChatOptions {
    /// Whether the rendered text ends with the beginning of the model's answer; `true` by default.
    pub add_generation_prompt: bool,
    /// Tools that the model may call, each defined as in OpenAI's API; none by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::serde::null_or_list"))]
    pub tools: Vec<Json>,
    /// Additional variables for the template, such as `enable_thinking`. They are trusted: their text can
    /// become control tokens.
    #[cfg_attr(feature = "serde", serde(rename = "chat_template_kwargs"))]
    pub variables: BTreeMap<String, Json>,
    /// The time for `strftime_now`, in UTC; `None`, the default, uses the system clock.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub now: Option<SystemTime>,
    /// Maximum bytes of the rendered text; 16 MiB by default.
    pub output_bytes_max: usize,
    /// Documents for retrieval-augmented generation (RAG), if the template supports it: objects, usually with
    /// `title` and `text`.
    #[cfg_attr(
        feature = "serde",
        serde(deserialize_with = "super::serde::null_or_list", skip_serializing_if = "Vec::is_empty")
    )]
    pub documents: Vec<Json>,
    /// The template; `None`, the default, is the one that
    /// [`ChatTemplates::select`](super::ChatTemplates::select) chooses. Only the host may set it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub template: Option<ChatTemplateSource>,
    /// Handling of tools that the template does not render; [`ToolFallback::Text`] by default.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub tool_fallback: ToolFallback,
    /// Whether the rendered text ends with the text of the last message, so that the answer continues it;
    /// `false` by default. Overrides `add_generation_prompt`.
    pub continue_final_message: bool,
    /// Whether the model reasons, for templates with a switch
    /// ([`TemplateSupport::thinking`](super::TemplateSupport::thinking)); `None`, the default, leaves it to
    /// the template. A variable of the same name in `variables` takes precedence.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub enable_thinking: Option<bool>,
    /// Amount of reasoning, such as `low` or `high`, for templates with a variable for it
    /// ([`TemplateSupport::reasoning_effort`](super::TemplateSupport::reasoning_effort)). A variable of the
    /// same name in `variables` takes precedence.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub reasoning_effort: Option<String>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self {
            add_generation_prompt: true,
            tools: Vec::new(),
            variables: BTreeMap::new(),
            now: None,
            output_bytes_max: 16 << 20,
            documents: Vec::new(),
            template: None,
            tool_fallback: ToolFallback::default(),
            continue_final_message: false,
            enable_thinking: None,
            reasoning_effort: None,
        }
    }
}

impl ChatOptions {
    /// Sets whether the rendered text ends with the beginning of the model's answer.
    #[must_use]
    pub fn add_generation_prompt(mut self, add: bool) -> Self {
        self.add_generation_prompt = add;
        self
    }

    /// Sets the tools that the model may call.
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item = Json>) -> Self {
        self.tools = tools.into_iter().collect();
        self
    }

    /// Adds a variable for the template.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<Json>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Sets the template.
    #[must_use]
    pub fn template(mut self, template: impl Into<Option<ChatTemplateSource>>) -> Self {
        self.template = template.into();
        self
    }

    /// Sets the handling of tools that the template does not render.
    #[must_use]
    pub fn tool_fallback(mut self, fallback: ToolFallback) -> Self {
        self.tool_fallback = fallback;
        self
    }

    /// Sets whether the answer continues the last message.
    #[must_use]
    pub fn continue_final_message(mut self, continues: bool) -> Self {
        self.continue_final_message = continues;
        self
    }

    /// Sets whether the model reasons.
    #[must_use]
    pub fn enable_thinking(mut self, enable: impl Into<Option<bool>>) -> Self {
        self.enable_thinking = enable.into();
        self
    }

    /// Sets the amount of reasoning.
    #[must_use]
    pub fn reasoning_effort(mut self, effort: impl Into<String>) -> Self {
        self.reasoning_effort = Some(effort.into());
        self
    }

    /// Sets the documents for retrieval-augmented generation.
    #[must_use]
    pub fn documents(mut self, documents: impl IntoIterator<Item = Json>) -> Self {
        self.documents = documents.into_iter().collect();
        self
    }

    /// Sets the time for `strftime_now`.
    #[must_use]
    pub fn now(mut self, now: SystemTime) -> Self {
        self.now = Some(now);
        self
    }

    /// Sets the maximum bytes of the rendered text.
    #[must_use]
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }
}
