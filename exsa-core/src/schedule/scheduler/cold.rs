//! Use of a prompt store: which prefixes to read for waiting requests, and which to save.

use super::Scheduler;
use super::admit::Origin;
use crate::backend::Fingerprint;
use crate::prompt_cache::{EntryId, PromptCacheOptions, PromptKey};
use crate::schedule::kv::ColdKv;
use crate::schedule::prefix::{Namespace, common_len};
use crate::token::{RequestId, SeqId, TokenId};
use std::time::Duration;

/// Time after which a prefix that the store could not accept is offered again.
const RETRY: Duration = Duration::from_secs(5);
/// Share of the inter-token target that saving may add to a step with decodes.
const PAUSE_SHARE: f64 = 0.5;

/// The scheduler's side of a prompt store.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) options: PromptCacheOptions,
    pub(super) fingerprint: Fingerprint,
    reads: Vec<Awaited>,
}

/// A read in progress.
#[derive(Debug)]
struct Awaited {
    entry: EntryId,
    bytes: u64,
    namespace: Namespace,
    /// Requests that wait for it outside the queue.
    waiting: Vec<RequestId>,
    /// Time at which they stop waiting.
    until: Duration,
}

impl Scheduler {
    /// Enables a prompt store for a model with this fingerprint. Returns `false` if the session does not
    /// support it: it must be able to save and restore, and cache prefixes.
    pub fn use_store(&mut self, options: PromptCacheOptions, fingerprint: Fingerprint) -> bool {
        if !self.can_save || !self.kv.caches() {
            return false;
        }
        self.kv.offer_cold(options.tokens_min);
        self.cold = Some(Cold { options, fingerprint, reads: Vec::new() });
        true
    }

    /// Allows saving a prefix before the pass of this plan, as far as the latency of running streams permits.
    pub(super) fn allow_store(&mut self, now: Duration) {
        let Some(cold) = &self.cold else { return };
        self.kv.date_cold(now.saturating_add(cold.options.cold_after));
        let pause = self.options.inter_token_target.mul_f64(PAUSE_SHARE);
        let tokens = match self.plan.decodes() {
            0 => usize::MAX,
            _ if self.options.mode == super::Mode::Throughput => usize::MAX,
            _ => self.costs.tokens_saved_in(pause, self.options.kv_bytes_per_token),
        };
        self.kv.allow_store(tokens);
    }

    /// Plans to save the coldest prefix.
    pub(super) fn plan_store(&mut self, now: Duration) {
        if self.cold.is_some() {
            self.kv.store_cold(now);
        }
    }

    /// Takes the chosen request out of the queue, to wait for the store, if reading its prefix is expected to
    /// cost less than computing it.
    pub(super) fn waits_for_read(&mut self, origin: &Origin, now: Duration) -> bool {
        let (Some(cold), Some(request)) = (&self.cold, self.queue.chosen()) else { return false };
        if request.history.no_sharing || request.history.read {
            return false;
        }
        let known = match origin {
            Origin::Cached(prefix) => prefix.map_or(0, |prefix| prefix.len),
            Origin::Following(follow) => follow.len,
            Origin::Saved => request.history.saved,
        };
        let tokens = request.shareable();
        // The last token is always computed.
        let most = tokens.len().saturating_sub(1);
        if most < known.saturating_add(cold.options.tokens_min) {
            return false;
        }
        let key = PromptKey::of(cold.fingerprint, &request.namespace, &tokens[..most]);
        let Some(found) = cold.options.store.find(&key, !self.can_truncate) else { return false };
        let usable = self.kv.usable(found.tokens, tokens.len());
        let gain = usable.saturating_sub(known);
        let ahead: u64 = cold.reads.iter().map(|read| read.bytes).sum();
        // A session that can neither fork nor truncate can use the restored KV for a single request only.
        let shares = self.kv.forks() || self.can_truncate;
        let begun = cold.reads.iter().any(|read| read.entry == found.entry);
        if begun && !shares && cold.reads.len() >= self.sequences {
            return false;
        }
        let begun = begun && shares;
        let bytes = if begun { ahead } else { ahead.saturating_add(found.bytes) };
        if gain < cold.options.tokens_min || !self.costs.reading_pays(bytes, found.bytes, gain) {
            return false;
        }
        let patience = self.costs.prefill_time(gain).unwrap_or(cold.options.wait_max);
        let until = now.saturating_add(patience.min(cold.options.wait_max));
        let Some(mut request) = self.queue.pop(now) else { return false };
        let Some(cold) = &mut self.cold else { return false };
        request.history.read = true;
        let (id, namespace) = (request.id, request.namespace.clone());
        let joins = |read: &&mut Awaited| begun && read.entry == found.entry && read.namespace == namespace;
        match cold.reads.iter_mut().find(joins) {
            Some(read) => {
                read.waiting.push(id);
                read.until = read.until.max(until);
            }
            None => {
                let (entry, bytes) = (found.entry, found.bytes);
                cold.reads.push(Awaited { entry, bytes, namespace, waiting: vec![id], until });
                self.plan.reads.push(entry);
            }
        }
        self.counters.prompt_reads_awaited += 1;
        self.suspended.insert(id, request);
        true
    }

    /// Resumes requests that have waited too long for the store.
    pub(super) fn resume_late(&mut self, now: Duration) {
        let reads = self.cold.iter_mut().flat_map(|cold| &mut cold.reads);
        let late = reads.filter(|read| read.until <= now).flat_map(|read| std::mem::take(&mut read.waiting));
        for id in late.collect::<Vec<_>>() {
            self.counters.prompt_reads_late += 1;
            self.resume_unread(id, now);
        }
    }

    fn resume_unread(&mut self, id: RequestId, now: Duration) {
        // The request may have ended.
        if let Some(request) = self.suspended.remove(&id) {
            self.queue.push(request, now);
        }
    }

    /// The namespace of the requests that wait for a read; `None` if none does.
    pub fn awaited(&self, entry: EntryId) -> Option<Namespace> {
        let read = self.cold.as_ref()?.reads.iter().find(|read| read.entry == entry)?;
        read.waiting.iter().any(|id| self.suspended.contains_key(id)).then(|| read.namespace.clone())
    }

    /// If only one request can use `seq`, which holds the `tokens` of a read, truncates it to the prefix
    /// shared with a waiting request. Returns the number of tokens that it then holds.
    pub fn cut_restored(&mut self, entry: EntryId, seq: SeqId, tokens: &[TokenId]) -> usize {
        if self.kv.forks() || !self.can_truncate {
            return tokens.len();
        }
        let reads = self.cold.iter().flat_map(|cold| &cold.reads).filter(|read| read.entry == entry);
        let waiting = reads.flat_map(|read| &read.waiting).filter_map(|id| self.suspended.get(id));
        let shared = waiting.map(|request| common_len(request.tokens(), tokens)).max();
        let len = shared.filter(|shared| *shared > 0).unwrap_or(tokens.len());
        if len < tokens.len() {
            self.kv.truncate(seq, len);
        }
        len
    }

    /// Records how long the store took to read `bytes` bytes.
    pub fn observe_read(&mut self, bytes: u64, elapsed: Duration) {
        self.costs.read(bytes, elapsed);
    }

    /// Ends the wait for a read, whatever its result.
    pub fn read_ended(&mut self, entry: EntryId, now: Duration) {
        let Some(cold) = &mut self.cold else { return };
        let Some(at) = cold.reads.iter().position(|read| read.entry == entry) else { return };
        for id in cold.reads.remove(at).waiting {
            self.resume_unread(id, now);
        }
    }

    /// Caches `seq`, which was [lent](Self::lend) and now holds `tokens`.
    pub fn cache_restored(&mut self, seq: SeqId, namespace: &Namespace, tokens: &[TokenId]) {
        self.kv.cache(seq, namespace, tokens);
    }

    /// The sequence of the next store operation, and whether to save it, because the store lacks enough of
    /// its tokens.
    pub fn take_cold(&mut self) -> Option<(ColdKv, bool)> {
        let kv = self.kv.take_cold()?;
        let lacking = self.is_lacking(&kv);
        Some((kv, lacking))
    }

    /// All sequences that were not offered to the store yet and are missing there.
    pub fn take_all_cold(&mut self) -> Vec<ColdKv> {
        let mut all = self.kv.take_all_cold();
        all.retain(|kv| self.is_lacking(kv));
        all
    }

    /// Offers an idle sequence again later.
    pub fn offer_again(&mut self, seq: SeqId, now: Duration) {
        self.kv.offer_again(seq, now.saturating_add(RETRY));
    }

    /// Whether the store lacks at least an eighth of the tokens, and enough of them to be worth a read. Thus
    /// a growing conversation is written a number of times logarithmic in its length.
    fn is_lacking(&self, kv: &ColdKv) -> bool {
        let Some(cold) = &self.cold else { return false };
        let key = PromptKey::of(cold.fingerprint, &kv.namespace, &kv.tokens);
        let stored = cold.options.store.find(&key, !self.can_truncate).map_or(0, |found| found.tokens);
        let lacking = kv.tokens.len().saturating_sub(stored);
        lacking >= cold.options.tokens_min && lacking >= kv.tokens.len() / 8
    }

    /// The next time at which a wait for the store ends or a prefix becomes cold.
    pub(super) fn next_cold(&self) -> Option<Duration> {
        let cold = self.cold.as_ref()?;
        let waits = cold.reads.iter().filter(|read| !read.waiting.is_empty()).map(|read| read.until);
        waits.chain(self.kv.next_cold()).min()
    }
}
