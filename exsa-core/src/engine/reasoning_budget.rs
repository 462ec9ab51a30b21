//! Limit of the reasoning's length: its end is forced once the budget is used.

use crate::engine::output::Output;
use crate::text::Released;
use crate::token::TokenId;
use crate::tokenizer::{EncodeOptions, Tokenizer};
use std::collections::VecDeque;

/// Tokens of reasoning that an answer may have. The tokens that end it replace sampled ones.
#[derive(Clone, Debug)]
pub(crate) struct ReasoningBudget {
    left: usize,
    /// Tokens that end the reasoning.
    forced: VecDeque<TokenId>,
    /// Whether the reasoning ends without white space, which a constraint of the answer may not allow.
    tight: bool,
}

/// The budget of an answer as far as it was sampled, ahead of the text that is certain.
pub(crate) struct BudgetAhead {
    budget: ReasoningBudget,
    output: Output,
}

impl BudgetAhead {
    /// The state behind the last certain token; `None` without a budget.
    pub(crate) fn new(budget: Option<&ReasoningBudget>, output: &Output) -> Option<Self> {
        Some(Self { budget: budget?.clone(), output: output.reader() })
    }

    /// The next token, if it is forced.
    pub(crate) fn forced(&self) -> Option<TokenId> {
        self.budget.forced()
    }

    /// Reads a token, which released this text.
    pub(crate) fn read(&mut self, released: &Released, tokenizer: &dyn Tokenizer) {
        self.budget.taken();
        let was_reasoning = self.output.in_reasoning();
        self.output.replay(released);
        self.budget.output(was_reasoning, &self.output, tokenizer);
    }
}

impl ReasoningBudget {
    /// A budget of `tokens` for an answer with this output, which may begin inside reasoning. `tight` says
    /// that the reasoning ends without white space, which a constraint of the answer may not allow.
    pub(crate) fn new(tokens: usize, tight: bool, output: &Output, tokenizer: &dyn Tokenizer) -> Self {
        let mut budget = Self { left: tokens, forced: VecDeque::new(), tight };
        budget.output(false, output, tokenizer);
        budget
    }

    /// The next token, if it is forced.
    pub(crate) fn forced(&self) -> Option<TokenId> {
        self.forced.front().copied()
    }

    /// Notes that a token was generated.
    pub(crate) fn taken(&mut self) {
        self.forced.pop_front();
    }

    /// Notes the output after a token; `was_reasoning` says that it was inside reasoning before.
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
