//! Circumstances of the grammar of tool calls.

use super::ReasoningFormat;

/// Circumstances of a call's grammar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrammarOptions {
    /// Whether an answer may have more than one call.
    pub parallel: bool,
    /// Whether the answer begins inside reasoning that the prompt opened.
    pub in_reasoning: bool,
    /// Format of reasoning that may come before the calls.
    pub reasoning: Option<ReasoningFormat>,
    /// Whether the prompt ends with what begins a call, as that of Functionary 3.2 does.
    pub begun: bool,
}

impl GrammarOptions {
    /// Sets whether an answer may have more than one call.
    #[must_use]
    pub fn parallel(mut self, parallel: bool) -> Self {
        self.parallel = parallel;
        self
    }

    /// Sets whether the answer begins inside reasoning.
    #[must_use]
    pub fn in_reasoning(mut self, inside: bool) -> Self {
        self.in_reasoning = inside;
        self
    }

    /// Sets the format of reasoning that may come before the calls.
    #[must_use]
    pub fn reasoning(mut self, format: impl Into<Option<ReasoningFormat>>) -> Self {
        self.reasoning = format.into();
        self
    }

    /// Sets whether the prompt ends with what begins a call.
    #[must_use]
    pub fn begun(mut self, begun: bool) -> Self {
        self.begun = begun;
        self
    }
}
