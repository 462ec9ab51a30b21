//! Options of the grammar of tool calls.

use super::ReasoningFormat;

/// Options of the grammar of tool calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrammarOptions {
    /// Whether an answer may have several tool calls.
    pub parallel: bool,
    /// Whether the answer begins inside reasoning that the prompt opened.
    pub in_reasoning: bool,
    /// Format of reasoning that may precede the calls.
    pub reasoning: Option<ReasoningFormat>,
    /// Whether the prompt ends with the beginning of a call, as with Functionary 3.2.
    pub begun: bool,
}

impl GrammarOptions {
    /// Sets whether an answer may have several tool calls.
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

    /// Sets the format of reasoning that may precede the calls.
    #[must_use]
    pub fn reasoning(mut self, format: impl Into<Option<ReasoningFormat>>) -> Self {
        self.reasoning = format.into();
        self
    }

    /// Sets whether the prompt ends with the beginning of a call.
    #[must_use]
    pub fn begun(mut self, begun: bool) -> Self {
        self.begun = begun;
        self
    }
}
