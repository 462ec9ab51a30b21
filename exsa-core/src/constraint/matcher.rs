//! The state of a grammar after some tokens.

use super::canonical;
use super::environment::{Environment, Unit, unit};
use super::error::ConstraintError;
use super::guard::guard;
use super::text_masks::{Computation, TextMasks};
use crate::token::TokenId;
use llguidance::earley::{Parser, ParserError};
use parking_lot::Mutex;
use std::sync::Arc;
use toktrie::SimpleVob;

/// The state of a grammar after some tokens.
pub(super) struct Matcher {
    env: Arc<Environment>,
    parser: Parser,
    /// The masks of the grammar, shared by all answers.
    masks: Arc<Mutex<TextMasks>>,
    /// Bytes of the grammar's text per token, for rollback.
    lens: Vec<usize>,
    tokens: Vec<TokenId>,
    /// Token before the grammar's text.
    before: Option<TokenId>,
    next: Option<Next>,
}

/// The next token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Only this token.
    Forced(TokenId),
    /// No token: the text is complete and cannot be longer.
    End,
    /// A token of the mask, or the end if the text so far is complete.
    Open {
        /// Whether the text is complete.
        complete: bool,
    },
}

impl Matcher {
    /// Starts a text of the grammar after the token `before`; `parser` is in its initial state.
    pub(super) fn new(
        env: Arc<Environment>,
        parser: Parser,
        masks: Arc<Mutex<TextMasks>>,
        before: Option<TokenId>,
    ) -> Self {
        Self { env, parser, masks, lens: Vec::new(), tokens: Vec::new(), before, next: None }
    }

    /// Reads text that precedes all tokens. Returns whether the grammar allows it.
    pub(super) fn feed(&mut self, units: &[Unit]) -> Result<bool, ConstraintError> {
        let (env, parser) = (&self.env, &mut self.parser);
        let fed = guard(|| {
            let mut bytes = Vec::new();
            for &one in units {
                match unit(one) {
                    Ok(byte) => bytes.push(byte),
                    Err(id) => {
                        let control = env.trie().decode_raw(&[id]);
                        if !apply(parser, &bytes, TokenId::MAX) || !apply(parser, &control, id) {
                            return false;
                        }
                        bytes.clear();
                    }
                }
            }
            apply(parser, &bytes, TokenId::MAX)
        })?;
        self.next = None;
        self.check()?;
        Ok(fed)
    }

    /// Appends a token. Returns whether the grammar allows it; if not, the matcher must not be used any more.
    pub(super) fn push(&mut self, id: TokenId) -> Result<bool, ConstraintError> {
        let bytes = self.env.trie().decode_raw(&[id]);
        let parser = &mut self.parser;
        let pushed = guard(|| apply(parser, &bytes, id))?;
        self.check()?;
        self.lens.push(bytes.len());
        self.tokens.push(id);
        self.next = None;
        Ok(pushed)
    }

    /// Treats the text so far, which ends with `token`, as text before all tokens.
    pub(super) fn begin(&mut self, token: TokenId) {
        self.lens.clear();
        self.tokens.clear();
        self.before = Some(token);
    }

    /// Number of tokens that can be rolled back.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Rolls back the last `n` tokens.
    pub(super) fn rollback(&mut self, n: usize) -> Result<(), ConstraintError> {
        let kept = self.lens.len().saturating_sub(n);
        let bytes = self.lens.drain(kept..).sum();
        self.tokens.truncate(kept);
        self.next = None;
        let parser = &mut self.parser;
        guard(|| {
            // The parser's cache identifies rows of the grammar's table by number only.
            parser.invalidate_bias_cache();
            parser.rollback(bytes)
        })?
        .map_err(|error| ConstraintError::Internal(error.to_string()))
    }

    /// Possible continuations.
    pub(super) fn next(&mut self) -> Result<Next, ConstraintError> {
        if let Some(next) = self.next {
            return Ok(next);
        }
        let last = self.tokens.last().copied().or(self.before);
        let (env, parser) = (&self.env, &mut self.parser);
        let next = guard(|| {
            if parser.force_bytes().is_empty() {
                let complete = parser.is_accepting();
                if complete && !parser.can_advance() { Next::End } else { Next::Open { complete } }
            } else {
                let token = canonical::first_token(env, parser, last);
                token.map_or(Next::Open { complete: false }, Next::Forced)
            }
        })?;
        self.check()?;
        Ok(*self.next.insert(next))
    }

    /// The tokens that may follow, without those that end the answer.
    pub(super) fn mask(&mut self) -> Result<SimpleVob, ConstraintError> {
        // Forced text that is not tokenized yet is part of every allowed token.
        self.next()?;
        let (parser, computation) = (&mut self.parser, Computation::new(&self.env, &self.masks));
        let mask = guard(|| {
            let pending = parser.currently_forced_bytes().to_vec();
            parser.compute_bias(&computation, &pending)
        })?;
        Self::check_parser(&self.parser)?;
        computation.keep();
        Ok(mask)
    }

    /// Number of `tokens`, from the first, that may follow in this order.
    pub(super) fn count_valid(&mut self, tokens: &[TokenId]) -> Result<usize, ConstraintError> {
        let parser = &mut self.parser;
        guard(|| parser.validate_tokens(tokens))
    }

    /// The tokens that begin with `start` and whose remaining bytes may follow here.
    pub(super) fn extensions(&mut self, start: &[u8]) -> Result<SimpleVob, ConstraintError> {
        let (trie, parser) = (self.env.trie(), &mut self.parser);
        guard(|| {
            let mut allowed = trie.alloc_token_set();
            parser.with_recognizer(|recognizer| trie.add_bias(recognizer, &mut allowed, start));
            allowed
        })
    }

    fn check(&self) -> Result<(), ConstraintError> {
        Self::check_parser(&self.parser)
    }

    fn check_parser(parser: &Parser) -> Result<(), ConstraintError> {
        match guard(|| parser.get_error())? {
            None => Ok(()),
            Some(ParserError::LexerError(error) | ParserError::ParserError(error)) => {
                Err(ConstraintError::Work(error))
            }
            Some(ParserError::Cancelled) => {
                Err(ConstraintError::Internal("parsing was cancelled".to_owned()))
            }
        }
    }
}

/// Whether the grammar accepts the bytes. An `id` outside the vocabulary denotes a part of a token.
fn apply(parser: &mut Parser, bytes: &[u8], id: TokenId) -> bool {
    bytes.is_empty() || matches!(parser.apply_token(bytes, id), Ok(0))
}
