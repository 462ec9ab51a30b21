//! Idle sequences that may be missing in the prompt store.

use super::{KvManager, KvOp};
use crate::schedule::prefix::Namespace;
use crate::token::{SeqId, TokenId};
use std::collections::VecDeque;
use std::time::Duration;

/// A sequence to be offered to the prompt store: an idle one, or a prompt at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdKv {
    /// The sequence.
    pub seq: SeqId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The tokens that it holds.
    pub tokens: Vec<TokenId>,
}

/// The idle sequences that were not offered yet, and those of pending [`KvOp::Store`]s.
#[derive(Debug, Default)]
pub(super) struct ColdQueue {
    /// Minimum tokens of a sequence; `None` without a store.
    tokens_min: Option<usize>,
    /// Sequences with the time at which they become cold; `None` until the next plan.
    waiting: Vec<(SeqId, Option<Duration>)>,
    /// In the order of the store operations.
    taken: VecDeque<ColdKv>,
    /// Maximum tokens that may be saved before the next pass. At most one sequence is saved.
    tokens_left: usize,
}

impl ColdQueue {
    pub(super) fn add(&mut self, seq: SeqId, tokens: usize) {
        if self.tokens_min.is_some_and(|least| tokens >= least) {
            self.waiting.push((seq, None));
        }
    }

    pub(super) fn remove(&mut self, seq: SeqId) {
        self.waiting.retain(|(waiting, _)| *waiting != seq);
    }

    /// Whether every waiting sequence is in `idle`, once.
    pub(super) fn is_within(&self, idle: &[SeqId]) -> bool {
        let once = |seq: SeqId| self.waiting.iter().filter(|(other, _)| *other == seq).count() == 1;
        self.waiting.iter().all(|(seq, _)| idle.contains(seq) && once(*seq))
    }
}

impl KvManager {
    /// Offers idle sequences of `tokens_min` tokens or more to a prompt store from now on.
    pub fn offer_cold(&mut self, tokens_min: usize) {
        self.cold.tokens_min = Some(tokens_min);
    }

    /// Allows one sequence of at most `tokens` tokens to be saved before the next pass.
    pub fn allow_store(&mut self, tokens: usize) {
        self.cold.tokens_left = tokens;
    }

    /// Sets the time `due` for sequences that became idle since the last call.
    pub fn date_cold(&mut self, due: Duration) {
        self.cold.waiting.iter_mut().for_each(|(_, at)| *at = at.or(Some(due)));
    }

    /// The earliest time at which a sequence becomes cold.
    pub fn next_cold(&self) -> Option<Duration> {
        self.cold.waiting.iter().filter_map(|(_, due)| *due).min()
    }

    /// Plans to save the sequence that has been cold for longest at the time `now`, if it fits.
    pub fn store_cold(&mut self, now: Duration) {
        let due = self.cold.waiting.iter().filter_map(|(seq, due)| Some(((*due)?, *seq)));
        let left = self.cold.tokens_left;
        let fits = |seq: SeqId| self.tree.len_of(seq) <= left;
        if let Some((_, seq)) = due.filter(|(due, seq)| *due <= now && fits(*seq)).min() {
            self.store_before_change(seq);
        }
    }

    /// Plans to save `seq`, which is about to be truncated or dropped, if it was not offered yet and fits.
    pub(super) fn store_before_change(&mut self, seq: SeqId) {
        let len = self.tree.len_of(seq);
        if len > self.cold.tokens_left || !self.cold.waiting.iter().any(|(waiting, _)| *waiting == seq) {
            return;
        }
        let Some((namespace, tokens)) = self.tree.content(seq) else { return };
        self.cold.remove(seq);
        self.cold.tokens_left = 0;
        self.cold.taken.push_back(ColdKv { seq, namespace, tokens });
        self.ops.push(KvOp::Store(seq));
    }

    /// Plans to save a sequence in use, which holds the tokens of `kv` and no others, if it fits.
    pub fn store_checkpoint(&mut self, kv: ColdKv) {
        if kv.tokens.len() <= self.cold.tokens_left {
            self.cold.tokens_left = 0;
            self.ops.push(KvOp::Store(kv.seq));
            self.cold.taken.push_back(kv);
        }
    }

    /// The sequence of the next [`KvOp::Store`] in order.
    pub fn take_cold(&mut self) -> Option<ColdKv> {
        self.cold.taken.pop_front()
    }

    /// Offers `seq` again at the time `due`, if it is still idle.
    pub fn offer_again(&mut self, seq: SeqId, due: Duration) {
        if self.idle.contains(&seq) && !self.cold.waiting.iter().any(|(waiting, _)| *waiting == seq) {
            self.cold.waiting.push((seq, Some(due)));
        }
    }

    /// Takes all sequences that were not offered, to be saved at once.
    pub fn take_all_cold(&mut self) -> Vec<ColdKv> {
        let waiting = std::mem::take(&mut self.cold.waiting);
        let all = waiting.into_iter().filter_map(|(seq, _)| {
            let (namespace, tokens) = self.tree.content(seq)?;
            Some(ColdKv { seq, namespace, tokens })
        });
        all.collect()
    }
}
