//! Limit on the length of the reasoning: once the budget is used up, the end of the reasoning is forced.

use crate::engine::output::Output;
use crate::text::Released;
use crate::token::TokenId;
use crate::tokenizer::{EncodeOptions, Tokenizer};
use std::collections::VecDeque;

/// Token budget for the reasoning of an answer. When it is used up, the tokens that end the reasoning replace
/// sampled tokens.
#[derive(Clone, Debug)]
pub(crate) struct ReasoningBudget {
    left: usize,
    /// Tokens still to be forced, which end the reasoning.
    forced: VecDeque<TokenId>,
    /// Whether to end the reasoning without trailing white space, which a constraint of the answer may not
    /// allow.
    tight: bool,
}

/// The budget after all sampled tokens, ahead of the text that is certain.
pub(crate) struct BudgetAhead {
    budget: ReasoningBudget,
    output: Output,
}

impl BudgetAhead {
    /// The state after the last certain token; `None` without a budget.
    pub(crate) fn new(budget: Option<&ReasoningBudget>, output: &Output) -> Option<Self> {
        Some(Self { budget: budget?.clone(), output: output.reader() })
    }

    /// The next token, if it is forced.
    pub(crate) fn forced(&self) -> Option<TokenId> {
        self.budget.forced()
    }

    /// Reads a token that released this text.
    pub(crate) fn read(&mut self, released: &Released, tokenizer: &dyn Tokenizer) {
        self.budget.taken();
        let was_reasoning = self.output.in_reasoning();
        self.output.replay(released);
        self.budget.output(was_reasoning, &self.output, tokenizer);
    }
}

impl ReasoningBudget {
    /// A budget of `tokens` for an answer with this output, which may begin inside reasoning. With `tight`,
    /// the reasoning ends without trailing white space, which a constraint of the answer may not allow.
    pub(crate) fn new(tokens: usize, tight: bool, output: &Output, tokenizer: &dyn Tokenizer) -> Self {
        let mut budget = Self { left: tokens, forced: VecDeque::new(), tight };
        budget.output(false, output, tokenizer);
        budget
    }

    /// The next token, if it is forced.
    pub(crate) fn forced(&self) -> Option<TokenId> {
        self.forced.front().copied()
    }

    /// Counts a generated token.
    pub(crate) fn taken(&mut self) {
        self.forced.pop_front();
    }

    /// Updates the state with the output after a token; `was_reasoning` tells whether it was inside reasoning
    /// before the token.
    pub(crate) fn output(&mut self, was_reasoning: bool, output: &Output, tokenizer: &dyn Tokenizer) {
        if !output.in_reasoning() || !self.forced.is_empty() {
            return;
        }
        if was_reasoning {
            self.left = self.left.saturating_sub(1);
        }
        if self.left > 0 {
            return;
        }
        if let Some(end) = output.reasoning_end() {
            let mut tokens = Vec::new();
            let end = if self.tight { end.trim_end() } else { &end };
            tokenizer.encode(end, &EncodeOptions::default().parse_special(true), &mut tokens);
            self.forced.extend(tokens);
        }
    }
}
