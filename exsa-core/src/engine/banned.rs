//! Banned strings of an answer: tokens that may still be rewound, and tokens banned at a position.
//!
//! A token is *pending* while its text may belong to the beginning of a banned string; its event is held back
//! until then. When a banned string is complete, the answer is rewound to the token in which the string
//! begins, that token is banned at its position, and sampling continues from there. A draw is a function of
//! (seed, position) and of the preceding tokens, so interruptions do not change the answer.

use crate::engine::reasoning_budget::BudgetAhead;
use crate::sampler::{Candidates, Sampled, SamplerContext, SamplingError, Step, Transform, TransformFactory};
use crate::text::{BannedMatcher, Detokenizer, Found, Released, StopMatcher};
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Maximum tokens banned at one position.
const BANS_MAX: usize = 64;
/// Tokens that an answer may rewind, whatever its length.
const WITHDRAWN_MIN: usize = 1024;
/// Further tokens that it may rewind per token of the answer.
const WITHDRAWN_PER_TOKEN: usize = 8;

/// State of banned strings of one answer.
pub(super) struct BannedStrings {
    /// State of the search after the last token that is not pending.
    settled: BannedMatcher,
    /// State of the text after the last token.
    ahead: Ahead,
    pending: VecDeque<Pending>,
    bans: Bans,
    /// Number of tokens that are no longer pending.
    certain: usize,
    /// Number of rewound tokens.
    withdrawn: usize,
}

/// The text of an answer up to the last sampled token.
struct Ahead {
    detokenizer: Detokenizer,
    stop: StopMatcher,
    matcher: BannedMatcher,
    /// Limit on the length of the reasoning.
    budget: Option<BudgetAhead>,
}

/// A token that may be rewound.
struct Pending {
    sampled: Sampled,
    /// Position of the token.
    position: u64,
    /// End offset of its text in the answer's text, including the first bytes of a character that later
    /// tokens complete.
    end: usize,
}

/// A token's effect on the text.
pub(super) enum Read {
    /// It completes no string.
    Nothing,
    /// It completes a stop string.
    Stop,
    /// It completes a banned string.
    Banned(Found),
}

/// The rewind from a banned string.
pub(super) struct Rewind {
    /// Number of tokens to rewind.
    pub(super) tokens: usize,
    /// Whether a limit is reached, so that the answer ends.
    pub(super) exhausted: bool,
}

impl BannedStrings {
    /// The state at the start of an answer, whose text begins in the given states of `detokenizer`, `stop`
    /// and `budget`.
    pub(super) fn new(
        matcher: BannedMatcher,
        bans: Bans,
        detokenizer: &Detokenizer,
        stop: &StopMatcher,
        budget: Option<BudgetAhead>,
    ) -> Self {
        let (detokenizer, stop) = (detokenizer.clone(), stop.clone());
        let ahead = Ahead { detokenizer, stop, matcher: matcher.clone(), budget };
        Self { settled: matcher, ahead, pending: VecDeque::new(), bans, certain: 0, withdrawn: 0 }
    }

    /// Reads a token that was sampled for `position`, and makes it pending.
    pub(super) fn push(&mut self, sampled: Sampled, position: u64, tokenizer: &dyn Tokenizer) -> Read {
        let (read, end) = self.ahead.read(sampled.token, tokenizer);
        self.pending.push_back(Pending { sampled, position, end });
        read
    }

    /// Makes a token pending that ends the answer and has no text.
    pub(super) fn push_end(&mut self, sampled: Sampled, position: u64) {
        self.pending.push_back(Pending { sampled, position, end: self.ahead.matcher.read() });
    }

    /// Takes the first pending token whose text certainly belongs to the answer.
    pub(super) fn pop_certain(&mut self) -> Option<Sampled> {
        let certain = self.ahead.matcher.first_partial();
        if self.pending.front()?.end > certain {
            return None;
        }
        self.pop()
    }

    /// Takes the first pending token.
    pub(super) fn pop(&mut self) -> Option<Sampled> {
        let first = self.pending.pop_front()?;
        self.certain += 1;
        Some(first.sampled)
    }

    /// Whether no token is pending.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Records the text of a token that is no longer pending.
    pub(super) fn settle(&mut self, decoded: &str) {
        self.settled.push(decoded);
    }

    /// Records the text after the last token of a resumed answer, where nothing is pending.
    pub(super) fn resume(
        &mut self,
        detokenizer: &Detokenizer,
        stop: &StopMatcher,
        budget: Option<BudgetAhead>,
    ) {
        let matcher = self.settled.clone();
        self.ahead = Ahead { detokenizer: detokenizer.clone(), stop: stop.clone(), matcher, budget };
    }

    /// The next token, if the end of the reasoning budget forces it.
    pub(super) fn forced(&self) -> Option<TokenId> {
        self.ahead.budget.as_ref().and_then(BudgetAhead::forced)
    }

    /// Rewinds to the token in which `found` begins, or to the first pending token, and bans that token at
    /// its position. `detokenizer`, `stop` and `budget` are the states after the last token that is not
    /// pending.
    pub(super) fn rewind(
        &mut self,
        found: Found,
        detokenizer: &Detokenizer,
        stop: &StopMatcher,
        budget: Option<BudgetAhead>,
        tokenizer: &dyn Tokenizer,
    ) -> Rewind {
        let first = self.pending.iter().position(|pending| pending.end > found.start).unwrap_or(0);
        let tokens = self.pending.len() - first;
        let bans = self.pending.get(first).map_or(0, |pending| {
            self.bans.add(Ban {
                position: pending.position,
                token: pending.sampled.token,
                string: found.index,
            })
        });
        self.pending.truncate(first);
        self.resume(detokenizer, stop, budget);
        for pending in &self.pending {
            self.ahead.read(pending.sampled.token, tokenizer);
        }
        self.withdrawn += tokens;
        let withdrawn_max = WITHDRAWN_MIN + WITHDRAWN_PER_TOKEN * (self.certain + first);
        Rewind { tokens, exhausted: bans > BANS_MAX || self.withdrawn > withdrawn_max }
    }

    /// The banned string for which `token` is banned at `position`; `None` if it is not.
    pub(super) fn ban(&self, position: u64, token: TokenId) -> Option<usize> {
        let bans = self.bans.0.lock();
        let at_position = bans.iter().rev().take_while(|ban| ban.position >= position);
        let mut matching = at_position.filter(|ban| ban.position == position && ban.token == token);
        matching.next().map(|ban| ban.string)
    }

    /// The banned string for which a token was last banned at `position`; `None` if none is banned there.
    pub(super) fn banned_at(&self, position: u64) -> Option<usize> {
        let bans = self.bans.0.lock();
        bans.last().filter(|ban| ban.position == position).map(|ban| ban.string)
    }
}

impl Ahead {
    /// Reads a token. Returns the string that it completes, and the end offset of its text.
    fn read(&mut self, id: TokenId, tokenizer: &dyn Tokenizer) -> (Read, usize) {
        let before = self.matcher.read();
        self.stop.push_control(tokenizer, id);
        let mut decoded = String::new();
        let mut released = Released { keep_controls: self.stop.keeps_controls(), ..Released::default() };
        self.detokenizer.push(tokenizer, id, &mut decoded);
        let found = self.matcher.push(&decoded);
        let end = self.matcher.read() + usize::from(self.detokenizer.is_holding());
        // If a stop string and a banned string are both complete, the one completed first applies.
        let until = found.map_or(decoded.len(), |found| found.end - before);
        let stopped = self.stop.push_into(decoded.get(..until).unwrap_or_default(), &mut released).is_some();
        if let Some(budget) = &mut self.budget {
            budget.read(&released, tokenizer);
        }
        let read = match found {
            _ if stopped => Read::Stop,
            Some(found) => Read::Banned(found),
            None => Read::Nothing,
        };
        (read, end)
    }
}

/// A token banned at a position, valid for the current preceding tokens.
#[derive(Clone, Copy, Debug)]
struct Ban {
    position: u64,
    token: TokenId,
    /// Index of the banned string that caused the ban.
    string: usize,
}

/// The bans of an answer, ascending by position: a transform of its sampler.
#[derive(Clone, Debug, Default)]
pub(super) struct Bans(Arc<Mutex<Vec<Ban>>>);

impl Bans {
    /// Adds a ban and removes those of later positions, whose preceding tokens will change. Returns the
    /// number of tokens banned at its position.
    fn add(&self, ban: Ban) -> usize {
        let mut bans = self.0.lock();
        bans.retain(|other| other.position <= ban.position);
        bans.push(ban);
        bans.iter().rev().take_while(|other| other.position == ban.position).count()
    }
}

impl TransformFactory for Bans {
    fn build(&self, _context: &SamplerContext<'_>) -> Result<Box<dyn Transform>, SamplingError> {
        Ok(Box::new(self.clone()))
    }
}

impl Transform for Bans {
    fn apply(&mut self, candidates: &mut Candidates<'_>, step: &mut Step<'_>) {
        for ban in self.0.lock().iter().rev().take_while(|ban| ban.position >= step.position()) {
            if ban.position == step.position() {
                candidates.change(ban.token, |_| f32::NEG_INFINITY);
            }
        }
    }
}
