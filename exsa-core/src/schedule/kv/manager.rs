//! Life cycle of the session's sequences: assigned to requests, shared by prefix, cached when the request
//! ends, evicted.

use super::cold::ColdQueue;
use super::{BlockManager, KvOp};
use crate::backend::Capabilities;
use crate::cache_events::CacheEvent;
use crate::schedule::prefix::{Match, Namespace, PrefixCacheOptions, PrefixTree};
use crate::token::{SeqId, TokenId};

/// Settings of a [`KvManager`].
#[derive(Clone, Copy, Debug)]
pub struct KvOptions {
    /// Limits of the prefix cache.
    pub prefix: PrefixCacheOptions,
    /// Bytes of KV per token.
    pub bytes_per_token: u64,
}

/// A cached prefix of a prompt, and the sequence that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Tokens to reuse.
    pub len: usize,
    /// The sequence that holds them.
    pub source: SeqId,
    found: Match,
}

/// Modes of prefix sharing between sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// No sharing.
    None,
    /// The session forks: any number of sequences share a prefix.
    Fork,
    /// The session cannot fork: an idle sequence is handed to the request.
    Move,
}

/// The scheduler's view of a session's KV: [`BlockManager`] and [`PrefixTree`] in
/// sync, and the pending [operations](KvOp) that bring the session to the same state.
#[derive(Debug)]
pub struct KvManager {
    blocks: BlockManager,
    pub(super) tree: PrefixTree,
    sharing: Sharing,
    truncate: bool,
    /// Idle sequences, cached for their prefix, unordered.
    pub(super) idle: Vec<SeqId>,
    pub(super) cold: ColdQueue,
    cached_blocks_max: usize,
    pub(super) ops: Vec<KvOp>,
}

impl KvManager {
    /// Creates the manager of an empty session.
    pub fn new(capabilities: &Capabilities, options: &KvOptions) -> Self {
        let blocks = BlockManager::new(capabilities);
        let by_bytes = options.prefix.bytes_max.map(|bytes| bytes / options.bytes_per_token.max(1));
        let by_bytes = by_bytes.map_or(usize::MAX, |tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
        let tokens_max = options.prefix.tokens_max.unwrap_or(usize::MAX).min(by_bytes);
        Self {
            cached_blocks_max: tokens_max / blocks.block_tokens(),
            tree: PrefixTree::new(capabilities.sequences_max),
            sharing: match capabilities.fork {
                _ if !options.prefix.enabled => Sharing::None,
                true => Sharing::Fork,
                false => Sharing::Move,
            },
            truncate: capabilities.truncate,
            idle: Vec::with_capacity(capabilities.sequences_max),
            cold: ColdQueue::default(),
            ops: Vec::new(),
            blocks,
        }
    }

    /// The block manager.
    pub fn blocks(&self) -> &BlockManager {
        &self.blocks
    }

    /// Whether running requests can share prefixes.
    pub fn forks(&self) -> bool {
        self.sharing == Sharing::Fork
    }

    /// Whether a prefix of a longer sequence can be reused, which requires a session that can fork or
    /// truncate.
    fn uses_parts(&self) -> bool {
        self.forks() || self.truncate
    }

    /// Whether the session's sequences are cached for their prefix.
    pub fn caches(&self) -> bool {
        self.sharing != Sharing::None
    }

    /// Whether any prefix is known.
    pub fn knows_anything(&self) -> bool {
        !self.tree.is_empty()
    }

    /// Records changes of the cached blocks; see [`PrefixTree::record`].
    pub fn record(&mut self) -> Vec<CacheEvent> {
        self.tree.record(self.blocks.block_tokens())
    }

    /// Ends the recording.
    pub fn stop_recording(&mut self) {
        self.tree.stop_recording();
    }

    /// The recorded changes since the last call.
    pub fn drain_events(&mut self) -> Vec<CacheEvent> {
        self.tree.drain_events()
    }

    /// Appends the pending operations to `into`.
    pub fn drain_ops(&mut self, into: &mut Vec<KvOp>) {
        into.append(&mut self.ops);
    }

    /// Appends a pending operation.
    pub fn push_op(&mut self, op: KvOp) {
        self.ops.push(op);
    }

    /// Tokens reused by a sequence of `tokens` tokens from a prefix of common length `common`:
    /// whole blocks if the session forks, and never the last token, whose logits are needed.
    pub fn usable(&self, common: usize, tokens: usize) -> usize {
        let len = common.min(tokens.saturating_sub(1));
        if self.forks() { len - len % self.blocks.block_tokens() } else { len }
    }

    /// The longest prefix of `tokens` that can be reused.
    pub fn find(&self, namespace: &Namespace, tokens: &[TokenId]) -> Option<Prefix> {
        let found = if self.uses_parts() {
            self.tree.find(namespace, tokens)?
        } else {
            self.tree.find_whole(namespace, &tokens[..tokens.len().saturating_sub(1)])?
        };
        let source = self.tree.holder(found)?;
        let len = self.usable(found.len, tokens.len());
        let held = self.tree.len_of(source);
        let worth = match self.sharing {
            Sharing::None => false,
            Sharing::Fork => true,
            // A move discards the rest of the source, so a short
            // match does not justify the loss of a long one.
            Sharing::Move => len == held || self.truncate && len * 2 >= held,
        };
        (worth && len > 0).then_some(Prefix { len, source, found })
    }

    /// Length of the longest prefix of `tokens` that a sequence in the tree holds, whether it can be reused
    /// or not.
    pub fn common(&self, namespace: &Namespace, tokens: &[TokenId]) -> usize {
        self.tree.find(namespace, tokens).map_or(0, |found| found.len)
    }

    /// Length of the prefix of `tokens` that [`find`](Self::find) returns.
    pub fn saved_by(&self, namespace: &Namespace, tokens: &[TokenId]) -> usize {
        self.find(namespace, tokens).map_or(0, |prefix| prefix.len)
    }

    /// Number of [available](Self::available) blocks that a sequence
    /// of `tokens` tokens takes if it starts from `prefix`.
    pub fn blocks_needed(&self, prefix: Option<&Prefix>, tokens: usize) -> usize {
        let all = self.blocks.blocks_of(tokens);
        let Some(Prefix { len, source, .. }) = prefix else { return all };
        let held = self.blocks.blocks_of(*len);
        all.saturating_sub(held) + self.blocks.blocks_cached_in(*source, held * self.blocks.block_tokens())
    }

    /// Blocks that are free or can be evicted.
    pub fn available(&self) -> usize {
        self.blocks.blocks_free() + self.blocks.blocks_cached()
    }

    /// Whether a sequence id is free or can be freed by eviction.
    pub fn has_sequence(&self) -> bool {
        self.blocks.has_id() || !self.idle.is_empty()
    }

    /// Takes a sequence for a request, starting from `prefix` as far as that is
    /// still possible. Returns the sequence and the number of tokens that it holds.
    pub fn admit(&mut self, prefix: Option<Prefix>) -> Option<(SeqId, usize)> {
        if let Some(prefix) = prefix {
            self.tree.touch(prefix.found);
            if self.sharing == Sharing::Move {
                return Some(self.reuse(&prefix));
            }
        }
        let source = prefix.map(|prefix| prefix.source);
        let seq = match self.blocks.take_id().or_else(|| self.evict_for_id(source)) {
            Some(seq) => seq,
            None => {
                // The last idle sequence is the source itself.
                let prefix = prefix.filter(|prefix| self.idle.contains(&prefix.source))?;
                return Some(self.reuse(&prefix));
            }
        };
        let Some(Prefix { len, source, .. }) = prefix else { return Some((seq, 0)) };
        self.share(source, seq, len);
        Some((seq, len))
    }

    /// Shares `prefix` with the empty sequence `seq`, which is in use.
    pub fn share_prefix(&mut self, prefix: &Prefix, seq: SeqId) {
        self.tree.touch(prefix.found);
        self.share(prefix.source, seq, prefix.len);
    }

    fn share(&mut self, from: SeqId, to: SeqId, len: usize) {
        self.blocks.fork(from, to, len);
        self.ops.push(KvOp::Fork { from, to, len });
    }

    /// Puts the idle source of `prefix` in use, truncated to the prefix.
    fn reuse(&mut self, prefix: &Prefix) -> (SeqId, usize) {
        let seq = prefix.source;
        let len = if self.truncate || prefix.len == self.tree.len_of(seq) { prefix.len } else { 0 };
        if len < self.tree.len_of(seq) {
            self.store_before_change(seq);
            self.ops.push(if len == 0 { KvOp::Release(seq) } else { KvOp::Truncate { seq, len } });
        }
        self.idle.retain(|other| *other != seq);
        self.cold.remove(seq);
        self.tree.remove(seq);
        self.blocks.truncate(seq, len);
        self.blocks.set_idle(seq, false);
        (seq, len)
    }

    /// Grows `seq` to hold the blocks of `tokens` tokens, and evicts idle sequences
    /// if needed. `false`, without a change, if eviction would not suffice.
    pub fn grow(&mut self, seq: SeqId, tokens: usize) -> bool {
        let wanted = self.blocks.blocks_of(tokens);
        let more = wanted.saturating_sub(self.blocks.blocks_held(seq));
        if more == 0 {
            return true;
        }
        if more > self.available() {
            return false;
        }
        while more > self.blocks.blocks_free() {
            if !self.evict(more - self.blocks.blocks_free()) {
                return false;
            }
        }
        self.blocks.grow(seq, tokens)
    }

    /// Like [`grow`](Self::grow), without eviction.
    pub fn grow_free(&mut self, seq: SeqId, tokens: usize) -> bool {
        self.blocks.grow(seq, tokens)
    }

    /// Frees the blocks of `seq`, in use, past its first `tokens` tokens. The session holds nothing in them.
    pub fn return_blocks(&mut self, seq: SeqId, tokens: usize) {
        self.blocks.truncate(seq, tokens);
    }

    /// Truncates `seq`, in use, to its first `len` tokens, and frees the blocks past them.
    pub fn truncate(&mut self, seq: SeqId, len: usize) {
        self.blocks.truncate(seq, len);
        self.ops.push(KvOp::Truncate { seq, len });
    }

    /// Truncates `seq`, in use, to its first `len` tokens or fewer, so that other tokens can follow: to a
    /// block boundary if the last block is shared, and to 0 if the session cannot truncate. Returns the
    /// number of tokens that `seq` holds.
    pub fn rewind(&mut self, seq: SeqId, len: usize) -> usize {
        let inside = len % self.blocks.block_tokens();
        let len = match inside {
            _ if !self.truncate => 0,
            0 => len,
            _ if self.blocks.is_shared(seq, len) => len - inside,
            _ => len,
        };
        self.tree.truncate(seq, len);
        self.blocks.truncate(seq, len);
        self.ops.push(if len == 0 { KvOp::Release(seq) } else { KvOp::Truncate { seq, len } });
        // Blocks shared with idle sequences only count as cached now.
        self.trim();
        len
    }

    /// Reserves record memory for `tokens` tokens of `seq`.
    pub fn reserve(&mut self, seq: SeqId, tokens: usize) {
        self.blocks.reserve(seq, tokens);
    }

    /// Records that `seq`, in use, holds `tokens`, so that other sequences can share them.
    pub fn computed(&mut self, seq: SeqId, namespace: &Namespace, tokens: &[TokenId]) {
        if self.forks() {
            self.tree.extend(seq, namespace, tokens);
        }
    }

    /// Empties `seq` and frees its id. Blocks shared only with idle sequences count as cached from then on.
    pub fn release(&mut self, seq: SeqId) {
        self.drop_sequence(seq);
        self.trim();
    }

    fn drop_sequence(&mut self, seq: SeqId) {
        self.idle.retain(|other| *other != seq);
        self.cold.remove(seq);
        self.tree.remove(seq);
        self.blocks.release(seq);
        self.ops.push(KvOp::Release(seq));
    }

    /// Releases `seq` if it is idle.
    pub fn forget_idle(&mut self, seq: SeqId) {
        if self.idle.contains(&seq) {
            self.release(seq);
        }
    }

    /// Takes `seq`, which holds `tokens`, from its request: it
    /// is cached if that can save work later, else released.
    pub fn cache(&mut self, seq: SeqId, namespace: &Namespace, tokens: &[TokenId]) {
        if self.sharing == Sharing::None
            || tokens.len() < self.blocks.block_tokens()
            || self.cached_blocks_max == 0
        {
            return self.release(seq);
        }
        self.tree.extend(seq, namespace, tokens);
        let uses_parts = self.uses_parts();
        if uses_parts && self.tree.is_covered(seq) {
            return self.release(seq);
        }
        self.blocks.truncate(seq, tokens.len());
        self.blocks.set_idle(seq, true);
        if uses_parts {
            let mut covered = Vec::new();
            self.tree.covered_by(seq, |other| covered.push(other));
            covered.retain(|other| self.idle.contains(other));
            covered.into_iter().for_each(|other| self.drop_sequence(other));
        }
        self.idle.push(seq);
        self.cold.add(seq, tokens.len());
        self.trim();
    }

    /// Evicts down to the limit of cached blocks.
    fn trim(&mut self) {
        while self.blocks.blocks_cached() > self.cached_blocks_max {
            if !self.evict(self.blocks.blocks_cached() - self.cached_blocks_max) {
                break;
            }
        }
    }

    /// Evicts the least recently used sequence other than `except`, and returns its id.
    fn evict_for_id(&mut self, except: Option<SeqId>) -> Option<SeqId> {
        let seq = self.least_recent(except)?;
        self.store_before_change(seq);
        self.drop_sequence(seq);
        self.blocks.take_id()
    }

    /// Evicts up to `blocks` blocks from the end of the least
    /// recently used idle sequence. `false` if no sequence is idle.
    fn evict(&mut self, blocks: usize) -> bool {
        let Some(seq) = self.least_recent(None) else { return false };
        self.store_before_change(seq);
        let block_tokens = self.blocks.block_tokens();
        let enough = self.blocks.blocks_held(seq).saturating_sub(blocks) * block_tokens;
        let len = enough.max(self.tree.len_shared(seq) / block_tokens * block_tokens);
        if len == 0 || !self.truncate || len >= self.tree.len_of(seq) {
            self.drop_sequence(seq);
            return true;
        }
        self.tree.truncate(seq, len);
        if self.tree.is_covered(seq) {
            self.drop_sequence(seq);
        } else {
            self.blocks.truncate(seq, len);
            self.ops.push(KvOp::Truncate { seq, len });
        }
        true
    }

    /// The least recently used idle sequence other than
    /// `except`; leaves go before sequences that others extend.
    fn least_recent(&self, except: Option<SeqId>) -> Option<SeqId> {
        let idle = self.idle.iter().copied().filter(|seq| Some(*seq) != except);
        idle.min_by_key(|seq| (self.tree.is_covered(*seq), self.tree.used(*seq)))
    }

    /// Checks that block manager, tree and list of idle
    /// sequences agree. Returns the first inconsistency as text.
    pub fn check(&self) -> Result<(), String> {
        self.blocks.check()?;
        self.tree.check()?;
        if self.blocks.blocks_cached() > self.cached_blocks_max {
            return Err(format!(
                "{} blocks cached, {} allowed",
                self.blocks.blocks_cached(),
                self.cached_blocks_max
            ));
        }
        if !self.cold.is_within(&self.idle) {
            return Err(format!("{:?} are not all idle: {:?}", self.cold, self.idle));
        }
        for seq in &self.idle {
            if self.blocks.blocks_of(self.tree.len_of(*seq)) != self.blocks.blocks_held(*seq) {
                return Err(format!(
                    "{seq}: {} tokens in the tree, {} blocks held",
                    self.tree.len_of(*seq),
                    self.blocks.blocks_held(*seq)
                ));
            }
        }
        Ok(())
    }
}
