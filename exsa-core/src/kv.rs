//! Accounting of KV blocks: how many each sequence holds, how many are free.

use crate::backend::Capabilities;
use crate::token::SeqId;

/// Counts the blocks of a session's KV cache and hands out its sequence ids.
///
/// It mirrors what the session does by the rule in [`Session`](crate::backend::Session)'s contract, and so knows
/// before a forward pass whether it fits.
#[derive(Debug)]
pub struct KvAccount {
    block_tokens: usize,
    blocks_total: usize,
    blocks_used: usize,
    /// Blocks held, by sequence id.
    held: Vec<usize>,
    ids_free: Vec<SeqId>,
}

impl KvAccount {
    /// An account in which every block and every id is free.
    pub fn new(capabilities: &Capabilities) -> Self {
        let block_tokens = capabilities.block_tokens.max(1);
        let n = u32::try_from(capabilities.sequences_max).unwrap_or(u32::MAX);
        Self {
            block_tokens,
            blocks_total: capabilities.kv_tokens_max / block_tokens,
            blocks_used: 0,
            held: vec![0; n as usize],
            ids_free: (0..n).rev().map(SeqId).collect(),
        }
    }

    /// Blocks that `tokens` tokens of one sequence take.
    pub fn blocks_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Takes a sequence id, or `None` when all are in use.
    pub fn take_id(&mut self) -> Option<SeqId> {
        self.ids_free.pop()
    }

    /// Whether a sequence id is free.
    pub fn has_id(&self) -> bool {
        !self.ids_free.is_empty()
    }

    /// Makes `seq` hold the blocks of `tokens` tokens, if it does not yet. `false`, and no change, where too few
    /// blocks are free.
    pub fn grow(&mut self, seq: SeqId, tokens: usize) -> bool {
        let wanted = self.blocks_of(tokens);
        let free = self.blocks_free();
        let held = &mut self.held[seq.index()];
        let more = wanted.saturating_sub(*held);
        if more > free {
            return false;
        }
        *held += more;
        self.blocks_used += more;
        true
    }

    /// Frees the blocks of `seq` and its id.
    pub fn release(&mut self, seq: SeqId) {
        debug_assert!(!self.ids_free.contains(&seq), "{seq} released twice");
        self.blocks_used -= std::mem::take(&mut self.held[seq.index()]);
        self.ids_free.push(seq);
    }

    /// Blocks that `seq` holds.
    pub fn blocks_held(&self, seq: SeqId) -> usize {
        self.held[seq.index()]
    }

    /// Blocks in all.
    pub fn blocks_total(&self) -> usize {
        self.blocks_total
    }

    /// Blocks that some sequence holds.
    pub fn blocks_used(&self) -> usize {
        self.blocks_used
    }

    /// Blocks that no sequence holds.
    pub fn blocks_free(&self) -> usize {
        self.blocks_total - self.blocks_used
    }

    /// Tokens in a block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Checks that the counts agree with each other; the first disagreement as text.
    pub fn check(&self) -> Result<(), String> {
        let sum: usize = self.held.iter().sum();
        if sum != self.blocks_used || self.blocks_used > self.blocks_total {
            return Err(format!("{sum} held, {} used, {} in all", self.blocks_used, self.blocks_total));
        }
        match self.ids_free.iter().find(|id| self.held[id.index()] != 0) {
            Some(id) => Err(format!("{id} is free but holds {} blocks", self.held[id.index()])),
            None => Ok(()),
        }
    }
}
