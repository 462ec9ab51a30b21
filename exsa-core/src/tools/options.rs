//! Options of requests for tool calls and reasoning.

use super::{ReasoningFormat, ToolFormat};

/// Whether the model may, must or must not call tools: OpenAI's `tool_choice`.
///
/// [`Required`](Self::Required) and [`Named`](Self::Named) need the feature `constraints`: the answer is
/// constrained to the format of calls and to the tools' schemas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No calls: output that looks like one is text.
    None,
    /// At least one call.
    Required,
    /// A call of the tool of this name.
    Named(String),
}

/// How the output of the model is searched for tool calls. The tools themselves are
/// [`ChatOptions::tools`](crate::chat::ChatOptions::tools).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct ToolOptions {
    /// Whether the model calls tools.
    #[cfg_attr(feature = "serde", serde(rename = "tool_choice", with = "super::serde::choice"))]
    pub choice: ToolChoice,
    /// Whether an answer may have more than one call; `true` by default. If not, the answer is constrained
    /// or, without the feature `constraints`, ends after the first call.
    #[cfg_attr(feature = "serde", serde(rename = "parallel_tool_calls"))]
    pub parallel: bool,
    /// Whether arguments are constrained by the tools' schemas also where the model decides to call, as
    /// OpenAI's `strict` does; `false` by default.
    #[cfg_attr(feature = "serde", serde(rename = "strict_tool_calls"))]
    pub strict: bool,
    /// The format of calls; `None`, the default, detects it from the model's chat template. Requests without
    /// a conversation or without tools are only searched for calls if they name a format.
    #[cfg_attr(feature = "serde", serde(rename = "tool_format", skip_serializing_if = "Option::is_none"))]
    pub format: Option<ToolFormat>,
}

impl Default for ToolOptions {
    fn default() -> Self {
        Self { choice: ToolChoice::Auto, parallel: true, strict: false, format: None }
    }
}

impl ToolOptions {
    /// Sets whether the model calls tools.
    #[must_use]
    pub fn choice(mut self, choice: ToolChoice) -> Self {
        self.choice = choice;
        self
    }

    /// Sets whether an answer may have more than one call.
    #[must_use]
    pub fn parallel(mut self, parallel: bool) -> Self {
        self.parallel = parallel;
        self
    }

    /// Sets whether arguments are always constrained by the tools' schemas.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Sets the format of calls.
    #[must_use]
    pub fn format(mut self, format: impl Into<Option<ToolFormat>>) -> Self {
        self.format = format.into();
        self
    }
}

/// How much a model reasons before it answers, as the template's variable `reasoning_effort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ReasoningEffort {
    /// No reasoning, as [`ReasoningOptions::enabled`] of `false`.
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
    /// Whether the model reasons: the template's variables `enable_thinking` and `thinking`, unless the host
    /// sets them. `None`, the default, leaves it to the template.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "enable_thinking", skip_serializing_if = "Option::is_none")
    )]
    pub enabled: Option<bool>,
    /// How much: the template's variable `reasoning_effort`, unless the host sets it.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "reasoning_effort", skip_serializing_if = "Option::is_none")
    )]
    pub effort: Option<ReasoningEffort>,
    /// Tokens of reasoning after which its end is forced; `None`, the default, for no limit. It needs a
    /// reasoning format.
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
    /// The format of reasoning; `None`, the default, detects it from the model's chat template. Requests
    /// without a conversation only have their reasoning told apart if they name a format.
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

    /// Sets how much the model reasons.
    #[must_use]
    pub fn effort(mut self, effort: impl Into<Option<ReasoningEffort>>) -> Self {
        self.effort = effort.into();
        self
    }

    /// Sets the tokens of reasoning after which its end is forced.
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

    /// Whether the model reasons, as far as the options say.
    pub fn is_enabled(&self) -> Option<bool> {
        self.enabled.or((self.effort == Some(ReasoningEffort::None)).then_some(false))
    }
}
