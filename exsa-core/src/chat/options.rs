//! How a conversation is rendered.

use super::{ChatTemplateSource, Json, ToolFallback};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// How a conversation is rendered.
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
    /// Whether the text ends where the model's answer begins; `true` by default.
    pub add_generation_prompt: bool,
    /// Functions that the model may call, each a JSON schema as in OpenAI's API; none by default.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "super::serde::null_or_list"))]
    pub tools: Vec<Json>,
    /// Further variables for the template, as `enable_thinking`. They are the host's own: what they hold may
    /// become control tokens.
    #[cfg_attr(feature = "serde", serde(rename = "chat_template_kwargs"))]
    pub variables: BTreeMap<String, Json>,
    /// The time that a template reads by `strftime_now`, in UTC; `None`, the default, is the system's clock.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub now: Option<SystemTime>,
    /// Bytes that the text may have; 16 MiB by default.
    pub output_bytes_max: usize,
    /// Texts that the answer is to be based on, for templates with retrieval: mappings, usually with `title`
    /// and `text`.
    #[cfg_attr(
        feature = "serde",
        serde(deserialize_with = "super::serde::null_or_list", skip_serializing_if = "Vec::is_empty")
    )]
    pub documents: Vec<Json>,
    /// The template; `None`, the default, is the one that
    /// [`ChatTemplates::select`](super::ChatTemplates::select) chooses. Only the host may set it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub template: Option<ChatTemplateSource>,
    /// Treatment of tools that the template does not render; as text by default.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub tool_fallback: ToolFallback,
    /// Whether the text ends with that of the last message, so that the answer continues it; `false` by
    /// default. It overrides `add_generation_prompt`.
    pub continue_final_message: bool,
    /// Whether the model reasons, for templates that have a switch
    /// ([`TemplateSupport::thinking`](super::TemplateSupport::thinking)); `None`, the default, leaves it to
    /// the template. A variable of the same name in `variables` goes first.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub enable_thinking: Option<bool>,
    /// How much the model reasons, such as `low` or `high`, for templates that have a variable for it
    /// ([`TemplateSupport::reasoning_effort`](super::TemplateSupport::reasoning_effort)). A variable of the
    /// same name in `variables` goes first.
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
    /// Sets whether the text ends where the model's answer begins.
    #[must_use]
    pub fn add_generation_prompt(mut self, add: bool) -> Self {
        self.add_generation_prompt = add;
        self
    }

    /// Sets the functions that the model may call.
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

    /// Sets the treatment of tools that the template does not render.
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

    /// Sets how much the model reasons.
    #[must_use]
    pub fn reasoning_effort(mut self, effort: impl Into<String>) -> Self {
        self.reasoning_effort = Some(effort.into());
        self
    }

    /// Sets the texts that the answer is to be based on.
    #[must_use]
    pub fn documents(mut self, documents: impl IntoIterator<Item = Json>) -> Self {
        self.documents = documents.into_iter().collect();
        self
    }

    /// Sets the time that a template reads.
    #[must_use]
    pub fn now(mut self, now: SystemTime) -> Self {
        self.now = Some(now);
        self
    }

    /// Sets the bytes that the text may have.
    #[must_use]
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }
}
