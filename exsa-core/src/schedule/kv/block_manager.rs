//! Accounting of KV blocks: holders of each block, and free blocks.

use crate::backend::Capabilities;
use crate::token::SeqId;

/// Counts the blocks of a session's KV cache and hands out its sequence ids.
///
/// It mirrors the session's block usage by the rule in [`Session`](crate::backend::Session)'s contract, and
/// so knows before a forward pass whether it fits. A sequence is *in use* by a request, or *idle*: cached for
/// its prefix. Forks share whole blocks only, so that no sequence ever writes to a shared block.
#[derive(Debug)]
pub struct BlockManager {
    block_tokens: usize,
    blocks_total: usize,
    /// Holder counts by block; grows up to `blocks_total` as blocks are first used.
    holders: Vec<Holders>,
    free: Vec<u32>,
    /// Held blocks by sequence id.
    held: Vec<Held>,
    ids_free: Vec<SeqId>,
    used: usize,
    cached: usize,
    shared: usize,
}

/// Number of sequences that hold a block.
#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    in_use: u32,
    idle: u32,
}

#[derive(Clone, Debug, Default)]
struct Held {
    blocks: Vec<u32>,
    idle: bool,
}

/// Maximum block records for which memory is allocated up front.
const RECORDS_RESERVED: usize = 1 << 16;

impl BlockManager {
    /// Creates a block manager with every block and every id free.
    pub fn new(capabilities: &Capabilities) -> Self {
        let block_tokens = capabilities.block_tokens.max(1);
        let n = u32::try_from(capabilities.sequences_max).unwrap_or(u32::MAX);
        let blocks_total = capabilities.kv_tokens_max / block_tokens;
        Self {
            block_tokens,
            blocks_total,
            holders: Vec::with_capacity(blocks_total.min(RECORDS_RESERVED)),
            free: Vec::with_capacity(blocks_total.min(RECORDS_RESERVED)),
            held: vec![Held::default(); n as usize],
            ids_free: (0..n).rev().map(SeqId).collect(),
            used: 0,
            cached: 0,
            shared: 0,
        }
    }

    /// Number of blocks for `tokens` tokens of one sequence.
    pub fn blocks_of(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Takes a free sequence id; `None` if all are taken.
    pub fn take_id(&mut self) -> Option<SeqId> {
        self.ids_free.pop()
    }

    /// Whether a sequence id is free.
    pub fn has_id(&self) -> bool {
        !self.ids_free.is_empty()
    }

    /// Grows `seq`, which is in use, to hold the blocks of `tokens`
    /// tokens. `false`, without a change, if too few blocks are free.
    pub fn grow(&mut self, seq: SeqId, tokens: usize) -> bool {
        let wanted = self.blocks_of(tokens);
        let Some(more) = wanted.checked_sub(self.held[seq.index()].blocks.len()) else { return true };
        if more > self.blocks_free() {
            return false;
        }
        for _ in 0..more {
            let block = self.free.pop().unwrap_or_else(|| {
                self.holders.push(Holders::default());
                (self.holders.len() - 1) as u32
            });
            self.holders[block as usize].in_use = 1;
            self.held[seq.index()].blocks.push(block);
        }
        self.used += more;
        true
    }

    /// Reserves record memory for `tokens` tokens of `seq`, so that growing to them allocates none.
    pub fn reserve(&mut self, seq: SeqId, tokens: usize) {
        let wanted = self.blocks_of(tokens).min(RECORDS_RESERVED);
        let blocks = &mut self.held[seq.index()].blocks;
        blocks.reserve(wanted.saturating_sub(blocks.len()));
    }

    /// Shares the first `len` tokens of `from`, a whole number
    /// of blocks, with the empty sequence `to`, which is in use.
    pub fn fork(&mut self, from: SeqId, to: SeqId, len: usize) {
        debug_assert!(len.is_multiple_of(self.block_tokens) && self.held[to.index()].blocks.is_empty());
        let source = std::mem::take(&mut self.held[from.index()]);
        for &block in source.blocks.iter().take(len / self.block_tokens) {
            self.change(block, |holders| holders.in_use += 1);
            self.held[to.index()].blocks.push(block);
        }
        self.held[from.index()] = source;
    }

    /// Truncates `seq` to the blocks of its first `len` tokens.
    pub fn truncate(&mut self, seq: SeqId, len: usize) {
        let keep = self.blocks_of(len);
        let mut held = std::mem::take(&mut self.held[seq.index()]);
        let idle = held.idle;
        for block in held.blocks.drain(keep.min(held.blocks.len())..) {
            self.change(block, |h| if idle { h.idle -= 1 } else { h.in_use -= 1 });
        }
        self.held[seq.index()] = held;
    }

    /// Marks `seq` as idle or in use.
    pub fn set_idle(&mut self, seq: SeqId, idle: bool) {
        let mut held = std::mem::take(&mut self.held[seq.index()]);
        if held.idle != idle {
            for &block in &held.blocks {
                let (less, more) = (u32::from(!idle), u32::from(idle));
                self.change(block, |h| {
                    *h = Holders { in_use: h.in_use + less - more, idle: h.idle + more - less }
                });
            }
            held.idle = idle;
        }
        self.held[seq.index()] = held;
    }

    /// Frees the id of `seq`, and its blocks that no other sequence holds.
    pub fn release(&mut self, seq: SeqId) {
        debug_assert!(!self.ids_free.contains(&seq), "{seq} released twice");
        self.truncate(seq, 0);
        self.held[seq.index()].idle = false;
        self.ids_free.push(seq);
    }

    /// Changes the holder counts of `block` and updates all sums.
    fn change(&mut self, block: u32, change: impl FnOnce(&mut Holders)) {
        let holders = &mut self.holders[block as usize];
        let before = *holders;
        change(holders);
        let after = *holders;
        self.used = self.used + usize::from(after.is_used()) - usize::from(before.is_used());
        self.cached = self.cached + usize::from(after.is_cached()) - usize::from(before.is_cached());
        self.shared = self.shared + usize::from(after.is_shared()) - usize::from(before.is_shared());
        if after.in_use == 0 && after.idle == 0 {
            self.free.push(block);
        }
    }

    /// Blocks among the first `len` tokens of `seq` that only idle
    /// sequences hold. A fork makes them unavailable for eviction.
    pub fn blocks_cached_in(&self, seq: SeqId, len: usize) -> usize {
        let blocks = self.held[seq.index()].blocks.iter().take(len / self.block_tokens);
        blocks.filter(|block| self.holders[**block as usize].is_cached()).count()
    }

    /// Whether another sequence holds the block of the token at index `token` of `seq`.
    pub fn is_shared(&self, seq: SeqId, token: usize) -> bool {
        let block = self.held[seq.index()].blocks.get(token / self.block_tokens);
        block.is_some_and(|block| self.holders[*block as usize].is_shared())
    }

    /// Blocks that `seq` holds, including shared blocks.
    pub fn blocks_held(&self, seq: SeqId) -> usize {
        self.held[seq.index()].blocks.len()
    }

    /// Total number of blocks.
    pub fn blocks_total(&self) -> usize {
        self.blocks_total
    }

    /// Blocks held by at least one sequence in use.
    pub fn blocks_used(&self) -> usize {
        self.used
    }

    /// Blocks held only by idle sequences.
    pub fn blocks_cached(&self) -> usize {
        self.cached
    }

    /// Blocks held by more than one sequence.
    pub fn blocks_shared(&self) -> usize {
        self.shared
    }

    /// Blocks held by no sequence.
    pub fn blocks_free(&self) -> usize {
        self.blocks_total - self.used - self.cached
    }

    /// Tokens per block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Checks that the counts are consistent. Returns the first inconsistency as text.
    pub fn check(&self) -> Result<(), String> {
        let mut holders = vec![Holders::default(); self.holders.len()];
        for block in
            self.held.iter().flat_map(|held| held.blocks.iter().map(move |block| (*block, held.idle)))
        {
            let holders = &mut holders[block.0 as usize];
            if block.1 { holders.idle += 1 } else { holders.in_use += 1 }
        }
        let count = |what: fn(&Holders) -> bool| holders.iter().filter(|h| what(h)).count();
        let counted =
            (count(Holders::is_used), count(Holders::is_cached), count(Holders::is_shared), self.free.len());
        let unheld = holders.iter().filter(|h| h.in_use + h.idle == 0).count();
        if counted != (self.used, self.cached, self.shared, unheld) {
            return Err(format!(
                "(used, cached, shared, free): {counted:?} counted, {unheld} unheld, {self:?}"
            ));
        }
        if holders.iter().zip(&self.holders).any(|(a, b)| (a.in_use, a.idle) != (b.in_use, b.idle)) {
            return Err("a block's holders are counted wrongly".into());
        }
        if self.used + self.cached > self.blocks_total {
            return Err(format!("{} used, {} cached, {} in all", self.used, self.cached, self.blocks_total));
        }
        match self.ids_free.iter().find(|id| !self.held[id.index()].blocks.is_empty()) {
            Some(id) => Err(format!("{id} is free but holds {} blocks", self.blocks_held(*id))),
            None => Ok(()),
        }
    }
}

impl Holders {
    fn is_used(&self) -> bool {
        self.in_use > 0
    }

    fn is_cached(&self) -> bool {
        self.in_use == 0 && self.idle > 0
    }

    fn is_shared(&self) -> bool {
        self.in_use + self.idle > 1
    }
}
