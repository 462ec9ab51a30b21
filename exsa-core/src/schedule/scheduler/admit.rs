//! Admission: checks for room in the KV cache, and reuses existing KV.

use super::running::{Follow, Running};
use super::{Admitted, PAUSE_GRACE, Scheduler};
use crate::priority::Priority;
use crate::schedule::kv::{KvOp, Prefix};
use crate::schedule::prefix::common_len;
use crate::schedule::queue::{Service, View};
use crate::schedule::sched_request::SchedRequest;
use crate::token::RequestId;
use crate::token::SeqId;
use std::time::Duration;

/// Minimum tokens saved by following another sequence's prefill.
const FOLLOW_MIN: usize = 16;

/// Answer tokens for which KV is reserved for a protected request. The
/// bound keeps an answer without a limit from reserving the whole KV cache.
const PROTECTED_AHEAD: usize = 2048;
/// Answer tokens for which memory is allocated at admission, so that decoding allocates none.
const RESERVED_MAX: usize = 4096;

/// KV that an admitted request starts from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// The cached prefix of its tokens, if any.
    Cached(Option<Prefix>),
    /// A prefix that another sequence is about to compute.
    Following(Follow),
    /// Its own KV, saved at preemption.
    Saved,
}

impl Scheduler {
    pub(super) fn admit(&mut self, now: Duration) {
        if self.queue.is_empty() || self.admission_held {
            return;
        }
        let before = self.plan.admitted.len();
        while self.admit_next(now).is_some() {}
        let admitted = self.plan.admitted.len() - before;
        if admitted > 0 {
            self.costs.admissions(admitted, now, !self.queue.is_empty());
        }
    }

    /// Prefill budget left over by the running requests.
    fn prefill_room(&self) -> usize {
        let running = self.order.iter().filter_map(|seq| self.get(*seq)).filter(|running| running.prefills());
        running.fold(self.prefill_budget(), |room, running| room.saturating_sub(running.remaining()))
    }

    /// Admits the next request, or makes room for it. `None` if no request can be admitted.
    fn admit_next(&mut self, now: Duration) -> Option<()> {
        let slot = self.order.len() < self.preset.running_max && self.kv.has_sequence();
        let stalled = now.checked_sub(PAUSE_GRACE).and_then(|before| self.paused_last(before));
        if !slot && stalled.is_none() {
            // Fast path: with all sequences taken and no victim, the queue is not searched.
            self.victim_for(self.queue.most_urgent()?)?;
        }
        self.choose(now)?;
        let request = self.queue.chosen()?;
        let (id, level) = (request.id, request.effective_priority());
        if self.kv.blocks().blocks_of(request.tokens().len()) > self.kv.blocks().blocks_total() {
            let request = self.queue.pop(now)?;
            self.plan.exhausted.push(id);
            self.suspended.insert(id, request);
            return Some(());
        }
        if self.prefill_room() == 0 && !self.overtakes_prefill(level) {
            return None;
        }
        let origin = self.origin(request);
        let needed = self.blocks_needed(request, &origin);
        let fits = needed + self.blocks_promised() <= self.kv.available();
        if slot && fits || self.order.is_empty() {
            if self.waits_for_read(&origin, now) {
                return Some(());
            }
            return self.admit_chosen(origin, now);
        }
        let classes_count = self.queue.most_urgent().is_some();
        let victim = self.victim_for(level).filter(|_| classes_count && needed <= self.available_to(level));
        self.preempt(stalled.or(victim)?, now);
        Some(())
    }

    fn choose(&mut self, now: Duration) -> Option<RequestId> {
        let kv = &self.kv;
        let cached = |request: &SchedRequest| kv.saved_by(&request.namespace, request.shareable());
        let cached: Option<&dyn Fn(&SchedRequest) -> usize> =
            if kv.knows_anything() { Some(&cached) } else { None };
        self.queue.choose(&View { now, cached, quantum: self.preset.quantum })
    }

    /// Whether a request of this priority is more urgent than a running prefill.
    fn overtakes_prefill(&self, level: Priority) -> bool {
        self.order
            .iter()
            .filter_map(|seq| self.get(*seq))
            .any(|r| r.prefills() && r.request.effective_priority() > level)
    }

    fn origin(&self, request: &SchedRequest) -> Origin {
        if request.history.no_sharing {
            return Origin::Cached(None);
        }
        let prefix = self.kv.find(&request.namespace, request.shareable());
        let len = prefix.map_or(0, |prefix| prefix.len);
        if request.history.saved > len {
            return Origin::Saved;
        }
        match self.sibling_of(request, len).or_else(|| self.leader_of(request, len + FOLLOW_MIN)) {
            Some(follow) => Origin::Following(follow),
            None => Origin::Cached(prefix),
        }
    }

    /// A sequence, at least as urgent as the request, that is about to compute a prefix of it of at least
    /// `least` tokens.
    fn leader_of(&self, request: &SchedRequest, least: usize) -> Option<Follow> {
        let tokens = request.shareable();
        if !self.kv.forks() || tokens.len() <= least {
            return None;
        }
        let leads = |leader: &&Running| {
            leader.paused.is_none()
                && leader.request.shifted() == 0
                && leader.computed < leader.request.prompt_len
                && leader.request.effective_priority() <= request.effective_priority()
                && leader.request.tokens().get(least - 1) == tokens.get(least - 1)
                && leader.request.namespace == request.namespace
                && !self.awaits(leader, request.id)
        };
        let leaders = self.order.iter().filter_map(|seq| self.get(*seq)).filter(leads);
        let shared = |leader: &Running| {
            let prompt = &leader.request.tokens()[..leader.request.prompt_len];
            self.kv.usable(common_len(prompt, tokens), tokens.len())
        };
        let (len, leader) = leaders.map(|leader| (shared(leader), leader)).max_by_key(|(len, _)| *len)?;
        (len >= least).then(|| leader.leads(request, len))
    }

    /// The sequence of another answer to the same prompt that is about to compute more than the first `known`
    /// tokens of it. Unlike other leaders, it may be less urgent and save fewer than [`FOLLOW_MIN`] tokens.
    fn sibling_of(&self, request: &SchedRequest, known: usize) -> Option<Follow> {
        let tokens = request.shareable();
        let len = self.kv.usable(tokens.len().min(request.prompt_len), tokens.len());
        if !self.kv.forks() || len <= known || request.shifted() > 0 {
            return None;
        }
        let computes = |leader: &&Running| {
            leader.request.group == request.group
                && leader.paused.is_none()
                && leader.request.shifted() == 0
                && leader.computed < len
                && !self.awaits(leader, request.id)
        };
        let leader = self.order.iter().filter_map(|seq| self.get(*seq)).find(computes)?;
        Some(leader.leads(request, len))
    }

    /// Whether a sequence waits, directly or by its leader's leader, for the prefill of request `id`. That
    /// request may have lost its sequence in the meantime; if it followed the sequence in turn, they would
    /// wait for each other.
    pub(super) fn awaits(&self, running: &Running, id: RequestId) -> bool {
        let mut next = running.follows;
        for _ in 0..self.order.len() {
            let Some(follow) = next else { return false };
            if follow.leader == id {
                return true;
            }
            let leader = self.get(follow.leader_seq).filter(|leader| leader.request.id == follow.leader);
            next = leader.and_then(|leader| leader.follows);
        }
        next.is_some()
    }

    /// Tokens for which KV is reserved for a request.
    fn tokens_promised(&self, request: &SchedRequest, protected: bool) -> usize {
        let ahead = if protected { PROTECTED_AHEAD } else { self.preset.reserve_tokens };
        let kv = self.kv.blocks();
        let most = self.len_limit(request).min(kv.blocks_total() * kv.block_tokens());
        request.tokens().len().saturating_add(ahead).min(most).max(request.tokens().len())
    }

    fn is_protected(&self, request: &SchedRequest) -> bool {
        request.history.preemptions >= self.options.preemptions_max
    }

    fn blocks_needed(&self, request: &SchedRequest, origin: &Origin) -> usize {
        let tokens = self.tokens_promised(request, self.is_protected(request));
        let kv = self.kv.blocks();
        match origin {
            Origin::Cached(prefix) => self.kv.blocks_needed(prefix.as_ref(), tokens),
            Origin::Following(follow) => kv.blocks_of(tokens) - follow.len / kv.block_tokens(),
            Origin::Saved => kv.blocks_of(tokens),
        }
    }

    /// Blocks reserved for running requests beyond the blocks that they hold.
    fn blocks_promised(&self) -> usize {
        let kv = self.kv.blocks();
        let promised = |running: &Running| {
            let shared = running.follows.map_or(0, |follow| follow.len / kv.block_tokens());
            let tokens = self.tokens_promised(&running.request, running.protected);
            kv.blocks_of(tokens).saturating_sub(kv.blocks_held(running.seq) + shared)
        };
        self.order.iter().filter_map(|seq| self.get(*seq)).map(promised).sum()
    }

    /// Assigns a sequence to the chosen request.
    fn admit_chosen(&mut self, origin: Origin, now: Duration) -> Option<()> {
        let request = self.queue.pop(now)?;
        let prefix = if let Origin::Cached(prefix) = origin { prefix } else { None };
        let Some((seq, mut computed)) = self.kv.admit(prefix) else {
            self.queue.push(request, now);
            return None;
        };
        let cached = computed;
        let saved = request.history.saved;
        let restores = matches!(origin, Origin::Saved);
        if restores {
            computed = saved;
        } else if saved > 0 {
            self.kv.push_op(KvOp::Discard(request.id));
        }
        let follows = if let Origin::Following(follow) = origin { Some(follow) } else { None };
        let protected = self.is_protected(&request);
        let prefill_len = request.tokens().len() - 1;
        let checkpoints = self.checkpoints_of(&request, computed);
        let (paused, worked) = (None, now);
        let mut running =
            Running { request, seq, computed, prefill_len, paused, follows, worked, checkpoints, protected };
        self.saved_bytes -= self.bytes_of(std::mem::take(&mut running.request.history.saved));
        let grown = follows.is_some() || self.kv.grow(seq, running.request.tokens().len());
        if restores {
            // Ordered after the evictions that make room for it.
            self.kv.push_op(KvOp::Restore { id: running.request.id, seq, len: saved });
        }
        let len = running.request.tokens().len();
        let answer = self.len_limit(&running.request).saturating_sub(len).min(RESERVED_MAX);
        running.request.reserve(answer);
        self.kv.reserve(seq, len + answer);
        if computed > 0 && grown {
            self.kv.computed(seq, &running.request.namespace, &running.request.tokens()[..computed]);
        }
        self.record_admission(&mut running.request, seq, follows.map_or(cached, |follow| follow.len), cached);
        self.start(running);
        if !grown {
            // Making room evicted the prefix itself: requeue and retry without it.
            self.preempt(seq, now);
            return Some(());
        }
        self.plan_late_decode(seq);
        Some(())
    }

    /// Counts and charges an admitted request: `shared` tokens of its prompt
    /// need no computation, and `cached` of them are in the KV cache already.
    fn record_admission(&mut self, request: &mut SchedRequest, seq: SeqId, shared: usize, cached: usize) {
        let (id, again) = (request.id, std::mem::replace(&mut request.history.admitted, true));
        self.plan.admitted.push(Admitted { id, seq, again });
        if again {
            return;
        }
        self.counters.prompt_tokens += request.prompt_len as u64;
        self.count_cached(id, cached.min(request.prompt_len));
        let (priority, user) = (request.priority, request.user);
        let input = request.tokens().len().saturating_sub(shared);
        self.queue.charge(Service { priority, user, input, output: 0 });
    }
}
