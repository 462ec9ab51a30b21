//! The state of a constraint in one answer.

use super::compiled::Compiled;
use super::environment::Unit;
use super::error::ConstraintError;
use super::matcher::{Matcher, Next};
use super::trigger::GrammarStart;
use crate::token::TokenId;
use std::fmt;
use std::sync::Arc;
use toktrie::SimpleVob;

/// The state of a constraint in one answer.
///
/// It is a function of the answer's tokens: preemption, resumption and speculation do not change it.
pub struct ConstraintState {
    compiled: Arc<Compiled>,
    /// Tokens that end an answer, sorted.
    ends: Arc<[TokenId]>,
    /// The token that ends an answer if no other token is possible.
    end: TokenId,
    /// The answer so far.
    tokens: Vec<TokenId>,
    phase: Phase,
    decision: Option<Result<Decision, ConstraintError>>,
    mask: Vec<u64>,
}

enum Phase {
    /// Reasoning, up to its end text; holds the end of the text so far.
    Reasoning(Vec<Unit>),
    /// Free text, up to a trigger; holds the end of the text so far.
    Free(Vec<Unit>),
    /// Text of the grammar.
    Grammar(Box<Matcher>),
    /// After the grammar's text: only the end of the answer may follow.
    Complete,
}

/// Tokens that may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allowed<'a> {
    /// Every token.
    All,
    /// Tokens whose bits are set; bit `i % 64` of word `i / 64` stands for token `i`.
    Mask(&'a [u64]),
    /// Only this token.
    Forced(TokenId),
}

#[derive(Clone, Copy)]
enum Decision {
    All,
    Mask,
    Forced(TokenId),
}

impl ConstraintState {
    /// The state before an answer. `ends` are the tokens that end one, sorted; `end` is the one for the end
    /// of the grammar's text.
    pub(crate) fn new(
        compiled: Arc<Compiled>,
        ends: Arc<[TokenId]>,
        end: TokenId,
    ) -> Result<Self, ConstraintError> {
        let phase = match &compiled.reasoning_end {
            Some(_) => Phase::Reasoning(Vec::new()),
            None if compiled.starts_active => Self::settle(&compiled, compiled.matcher(None))?,
            None => Phase::Free(Vec::new()),
        };
        let (tokens, mask) = (Vec::new(), Vec::new());
        Ok(Self { compiled, ends, end, tokens, phase, decision: None, mask })
    }

    /// The tokens that may follow, including those that end the answer. Computed once per state.
    ///
    /// # Errors
    ///
    /// No token may follow, or the grammar needs too much work. The answer cannot continue then.
    pub fn allowed(&mut self) -> Result<Allowed<'_>, ConstraintError> {
        let decision = match self.decision.take() {
            Some(decision) => decision,
            None => self.decide(),
        };
        self.decision = Some(decision.clone());
        Ok(match decision? {
            Decision::All => Allowed::All,
            Decision::Mask => Allowed::Mask(&self.mask),
            Decision::Forced(token) => Allowed::Forced(token),
        })
    }

    /// The only token that may follow, if there is one. Costs less than [`allowed`](Self::allowed).
    pub(crate) fn forced(&mut self) -> Result<Option<TokenId>, ConstraintError> {
        Ok(match &mut self.phase {
            Phase::Complete => Some(self.end),
            Phase::Grammar(matcher) => match matcher.next()? {
                Next::Forced(token) => Some(token),
                Next::End => Some(self.end),
                Next::Open { .. } => None,
            },
            Phase::Reasoning(_) | Phase::Free(_) => None,
        })
    }

    /// Computes the result of [`allowed`](Self::allowed) in advance.
    pub(crate) fn prepare(&mut self) {
        // An error is kept and returned by `allowed`.
        let _ = self.allowed();
    }

    fn decide(&mut self) -> Result<Decision, ConstraintError> {
        let compiled = self.compiled.clone();
        match &mut self.phase {
            Phase::Complete => Ok(Decision::Forced(self.end)),
            Phase::Grammar(matcher) => match matcher.next()? {
                Next::Forced(token) => Ok(Decision::Forced(token)),
                Next::End => Ok(Decision::Forced(self.end)),
                Next::Open { complete } => {
                    let mask = matcher.mask()?;
                    write_mask(&mask, compiled.env.tokenizer.n_vocab(), &mut self.mask);
                    if complete {
                        self.set(&self.ends.clone(), true);
                    }
                    if self.mask.iter().all(|word| *word == 0) {
                        return Err(ConstraintError::NoToken);
                    }
                    Ok(Decision::Mask)
                }
            },
            Phase::Reasoning(tail) => {
                let Some(patterns) = &compiled.reasoning_end else { return Ok(Decision::All) };
                let mut forbidden: Vec<TokenId> = Vec::new();
                if compiled.starts_active {
                    let start = GrammarStart::TriggerEnd;
                    forbidden.extend_from_slice(&compiled.forbidden(patterns, start, tail)?);
                    forbidden.extend_from_slice(&self.ends);
                }
                Ok(self.all_but(&forbidden))
            }
            Phase::Free(tail) => {
                let Some(triggers) = &compiled.triggers else { return Ok(Decision::All) };
                let forbidden = compiled.forbidden(&triggers.texts, triggers.start, tail)?;
                Ok(self.all_but(&forbidden))
            }
        }
    }

    fn all_but(&mut self, forbidden: &[TokenId]) -> Decision {
        if forbidden.is_empty() {
            return Decision::All;
        }
        self.mask.clear();
        self.mask.resize(self.compiled.env.tokenizer.n_vocab().div_ceil(64), u64::MAX);
        self.set(forbidden, false);
        Decision::Mask
    }

    fn set(&mut self, tokens: &[TokenId], allowed: bool) {
        for token in tokens {
            if let Some(word) = self.mask.get_mut(*token as usize / 64) {
                let bit = 1 << (*token % 64);
                *word = if allowed { *word | bit } else { *word & !bit };
            }
        }
    }

    /// Whether the answer may end here.
    ///
    /// # Errors
    ///
    /// The grammar needs too much work.
    pub fn is_complete(&mut self) -> Result<bool, ConstraintError> {
        Ok(match &mut self.phase {
            Phase::Complete => true,
            Phase::Grammar(matcher) => matches!(matcher.next()?, Next::End | Next::Open { complete: true }),
            Phase::Reasoning(_) => !self.compiled.starts_active,
            Phase::Free(_) => true,
        })
    }

    /// Appends a token to the answer.
    ///
    /// # Errors
    ///
    /// The token is not allowed, or the grammar needs too much work. The answer cannot continue then.
    pub fn accept(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        self.decision = None;
        let phase = std::mem::replace(&mut self.phase, Phase::Complete);
        self.phase = self.advance(phase, token)?;
        self.tokens.push(token);
        Ok(())
    }

    /// The phase after a token.
    fn advance(&self, phase: Phase, token: TokenId) -> Result<Phase, ConstraintError> {
        let (compiled, env) = (&*self.compiled, &self.compiled.env);
        let refused = ConstraintError::Replay { index: self.tokens.len() };
        let ends = self.ends.binary_search(&token).is_ok();
        match phase {
            Phase::Complete if ends => Ok(Phase::Complete),
            Phase::Complete => Err(refused),
            Phase::Grammar(mut matcher) => {
                if ends && matches!(matcher.next()?, Next::End | Next::Open { complete: true }) {
                    Ok(Phase::Complete)
                } else if matcher.push(token)? {
                    Self::settle(compiled, *matcher)
                } else {
                    Err(refused)
                }
            }
            Phase::Reasoning(mut text) => {
                env.units_of_token(token, &mut text);
                let Some(patterns) = &compiled.reasoning_end else { return Err(refused) };
                let Some((_, end)) = patterns.find(&text) else {
                    patterns.trim(&mut text);
                    return Ok(Phase::Reasoning(text));
                };
                text.drain(..end);
                if compiled.starts_active {
                    Self::begin(compiled, token, &text)
                } else {
                    self.free_text(text, token)
                }
            }
            Phase::Free(mut text) => {
                env.units_of_token(token, &mut text);
                self.free_text(text, token)
            }
        }
    }

    /// The phase after free text that ends with `token`.
    fn free_text(&self, mut text: Vec<Unit>, token: TokenId) -> Result<Phase, ConstraintError> {
        let compiled = &*self.compiled;
        let Some(triggers) = &compiled.triggers else { return Ok(Phase::Free(text)) };
        let from_start = triggers.start == GrammarStart::TriggerStart;
        if triggers.tokens.binary_search(&token).is_ok() {
            let mut matcher = compiled.matcher(self.tokens.last().copied());
            if from_start && !matcher.push(token)? {
                return Err(ConstraintError::NoToken);
            }
            matcher.begin(token);
            return Self::settle(compiled, matcher);
        }
        match triggers.texts.find(&text) {
            Some((start, end)) => Self::begin(compiled, token, &text[if from_start { start } else { end }..]),
            None => {
                triggers.texts.trim(&mut text);
                Ok(Phase::Free(text))
            }
        }
    }

    /// The grammar after the first units of its text, which end with `token`.
    fn begin(compiled: &Compiled, token: TokenId, text: &[Unit]) -> Result<Phase, ConstraintError> {
        let mut matcher = compiled.matcher(None);
        if !matcher.feed(text)? {
            return Err(ConstraintError::NoToken);
        }
        matcher.begin(token);
        Self::settle(compiled, matcher)
    }

    /// The phase of a grammar's text, which may be complete.
    fn settle(compiled: &Compiled, mut matcher: Matcher) -> Result<Phase, ConstraintError> {
        Ok(match matcher.next()? {
            Next::End if compiled.repeats => Phase::Free(Vec::new()),
            Next::End => Phase::Complete,
            _ => Phase::Grammar(Box::new(matcher)),
        })
    }

    /// Rolls back the last `n` tokens of the answer.
    ///
    /// # Errors
    ///
    /// The grammar failed before.
    pub fn rollback(&mut self, n: usize) -> Result<(), ConstraintError> {
        self.decision = None;
        let kept = self.tokens.len().saturating_sub(n);
        if let Phase::Grammar(matcher) = &mut self.phase
            && matcher.len() >= n
        {
            self.tokens.truncate(kept);
            return matcher.rollback(n);
        }
        let tokens = std::mem::take(&mut self.tokens);
        *self = Self::new(self.compiled.clone(), self.ends.clone(), self.end)?;
        tokens.iter().take(kept).try_for_each(|token| self.accept(*token))
    }

    /// Number of `drafts` worth verifying: those before the first that cannot follow.
    pub(crate) fn count_plausible(&mut self, drafts: &[TokenId]) -> usize {
        let Some(first) = drafts.first().copied() else { return 0 };
        let plausible = match self.allowed() {
            Ok(Allowed::All) => true,
            Ok(Allowed::Forced(token)) => token == first,
            Ok(Allowed::Mask(mask)) => {
                mask.get(first as usize / 64).is_some_and(|word| word >> (first % 64) & 1 == 1)
            }
            Err(_) => false,
        };
        match &mut self.phase {
            _ if !plausible => 0,
            Phase::Grammar(matcher) => matcher.count_valid(drafts).unwrap_or(0),
            Phase::Complete => 1,
            Phase::Reasoning(_) | Phase::Free(_) => drafts.len(),
        }
    }
}

/// Writes the first `n_vocab` bits of a set as words of 64.
fn write_mask(set: &SimpleVob, n_vocab: usize, words: &mut Vec<u64>) {
    words.clear();
    let halves = set.as_slice();
    words.extend(halves.chunks(2).map(|pair| {
        let high = pair.get(1).copied().unwrap_or(0);
        u64::from(pair[0]) | u64::from(high) << 32
    }));
    words.truncate(n_vocab.div_ceil(64));
    if let (Some(last), rest @ 1..) = (words.last_mut(), n_vocab % 64) {
        *last &= (1 << rest) - 1;
    }
}

impl fmt::Debug for ConstraintState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConstraintState").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}
