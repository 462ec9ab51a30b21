//! Request options for tool calls and reasoning.

use super::{ReasoningFormat, ToolFormat};

/// Whether the model may, must or must not call tools: OpenAI's `tool_choice`.
///
/// [`Required`](Self::Required) and [`Named`](Self::Named) need the feature `constraints`: the answer is
/// constrained to the format of tool calls and the schemas of the tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model decides whether to call tools.
    #[default]
    Auto,
    /// No tool calls: output that looks like one is text.
    None,
    /// At least one tool call.
    Required,
    /// A call of the tool with this name.
    Named(String),
}

/// Options for tool calls in the output of the model. The tools themselves are defined by
/// [`ChatOptions::tools`](crate::chat::ChatOptions::tools).
///
/// ```
/// use exsa_core::Request;
/// use exsa_core::tools::{ToolChoice, ToolOptions};
///
/// let options = ToolOptions::default().choice(ToolChoice::Named("get_weather".into())).parallel(false);
/// let request = Request::user("Weather in Bern?").tools(options);
/// # let _ = request;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct ToolOptions {
    /// Whether the model may or must call tools.
    #[cfg_attr(feature = "serde", serde(rename = "tool_choice", with = "super::serde::choice"))]
    pub choice: ToolChoice,
    /// Whether an answer may have several tool calls; `true` by default. If `false`, the answer is
    /// constrained to a single call or, without the feature `constraints`, ends after the first call.
    #[cfg_attr(feature = "serde", serde(rename = "parallel_tool_calls"))]
    pub parallel: bool,
    /// Whether arguments are constrained to the tools' schemas also with [`ToolChoice::Auto`], like OpenAI's
    /// `strict`; `false` by default.
    #[cfg_attr(feature = "serde", serde(rename = "strict_tool_calls"))]
    pub strict: bool,
    /// The format of tool calls; `None`, the default, detects it from the model's chat template. For requests
    /// without a conversation or without tools, calls are parsed only if a format is set.
    #[cfg_attr(feature = "serde", serde(rename = "tool_format", skip_serializing_if = "Option::is_none"))]
    pub format: Option<ToolFormat>,
}

impl Default for ToolOptions {
    fn default() -> Self {
        Self { choice: ToolChoice::Auto, parallel: true, strict: false, format: None }
    }
}

impl ToolOptions {
    /// Sets whether the model may or must call tools.
    #[must_use]
    pub fn choice(mut self, choice: ToolChoice) -> Self {
        self.choice = choice;
        self
    }

    /// Sets whether an answer may have several tool calls.
    #[must_use]
    pub fn parallel(mut self, parallel: bool) -> Self {
        self.parallel = parallel;
        self
    }

    /// Sets whether arguments are always constrained to the tools' schemas.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets the format of tool calls.
    #[must_use]
    pub fn format(mut self, format: impl Into<Option<ToolFormat>>) -> Self {
        self.format = format.into();
        self
    }
}

/// Amount of reasoning before the answer: the template's variable `reasoning_effort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ReasoningEffort {
    /// No reasoning, like [`ReasoningOptions::enabled`] set to `false`.
    None,
    /// As little as possible.
    Minimal,
    /// Little.
    Low,
    /// The usual amount.
    Medium,
    /// Much.
    High,
    /// As much as possible.
    #[cfg_attr(feature = "serde", serde(rename = "xhigh", alias = "max"))]
    Max,
}

impl ReasoningEffort {
    /// The value of the template's variable.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Max => "xhigh",
        }
    }
}

/// Reasoning before the answer.
///
/// ```
/// use exsa_core::tools::{ReasoningEffort, ReasoningOptions};
///
/// let options = ReasoningOptions::default().effort(ReasoningEffort::Low).budget(256);
/// assert_eq!(options.budget, Some(256));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct ReasoningOptions {
    /// Whether the model reasons: sets the template's variables `enable_thinking` and `thinking`, unless the
    /// host sets them. `None`, the default, leaves it to the template.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "enable_thinking", skip_serializing_if = "Option::is_none")
    )]
    pub enabled: Option<bool>,
    /// Amount of reasoning: sets the template's variable `reasoning_effort`, unless the host sets it.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "reasoning_effort", skip_serializing_if = "Option::is_none")
    )]
    pub effort: Option<ReasoningEffort>,
    /// Maximum tokens of reasoning, after which its end is forced; `None`, the default, sets no limit.
    /// Requires a known reasoning format.
    #[cfg_attr(
        feature = "serde",
        serde(
            rename = "thinking_budget",
            alias = "thinking_token_budget",
            alias = "reasoning_budget",
            skip_serializing_if = "Option::is_none"
        )
    )]
    pub budget: Option<usize>,
    /// The format of reasoning; `None`, the default, detects it from the model's chat template. For requests
    /// without a conversation, reasoning is parsed only if a format is set.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "reasoning_format", skip_serializing_if = "Option::is_none")
    )]
    pub format: Option<ReasoningFormat>,
}

impl ReasoningOptions {
    /// Sets whether the model reasons.
    #[must_use]
    pub fn enabled(mut self, enabled: impl Into<Option<bool>>) -> Self {
        self.enabled = enabled.into();
        self
    }

    /// Sets the amount of reasoning.
    #[must_use]
    pub fn effort(mut self, effort: impl Into<Option<ReasoningEffort>>) -> Self {
        self.effort = effort.into();
        self
    }

    /// Sets the maximum tokens of reasoning.
    #[must_use]
    pub fn budget(mut self, tokens: impl Into<Option<usize>>) -> Self {
        self.budget = tokens.into();
        self
    }

    /// Sets the format of reasoning.
    #[must_use]
    pub fn format(mut self, format: impl Into<Option<ReasoningFormat>>) -> Self {
        self.format = format.into();
        self
    }

    /// Whether the options turn reasoning on or off; `None` if they do neither.
    pub fn is_enabled(&self) -> Option<bool> {
        self.enabled.or((self.effort == Some(ReasoningEffort::None)).then_some(false))
    }
}
