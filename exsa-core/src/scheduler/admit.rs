//! From the queue to a sequence: whether there is room, and what need not be computed.

use super::running::{Follow, Running};
use super::{Admitted, PAUSE_GRACE, RequestId, Scheduler, Ticket};
use crate::kv::{KvOp, Prefix};
use crate::prefix::common_len;
use crate::priority::Priority;
use crate::queue::{Service, View};
use crate::token::SeqId;
use std::time::Duration;

/// Tokens that waiting for another sequence has to save to be worth it.
const FOLLOW_MIN: usize = 16;

/// Tokens of the answer for which KV is held ready for a request that gave way often enough: an answer without a limit would
/// otherwise take the whole KV for itself.
const PINNED_AHEAD: usize = 2048;
/// Tokens of an answer for which memory is taken at once, so that decoding takes none.
const RESERVED_MAX: usize = 4096;

/// What a request starts from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// What is cached of its tokens, if anything.
    Cached(Option<Prefix>),
    /// What another sequence is about to compute.
    Following(Follow),
    /// Its KV, saved when it was preempted.
    Saved,
}

impl Scheduler {
    pub(super) fn admit(&mut self, now: Duration) {
        if self.queue.is_empty() {
            return;
        }
        let before = self.plan.admitted.len();
        while self.admit_next(now).is_some() {}
        let admitted = self.plan.admitted.len() - before;
        if admitted > 0 {
            self.costs.admissions(admitted, now, !self.queue.is_empty());
        }
    }

    /// Prefill tokens of this step that nobody who runs will take.
    fn prefill_room(&self) -> usize {
        let running = self.order.iter().filter_map(|seq| self.get(*seq)).filter(|running| running.prefills());
        running.fold(self.prefill_budget(), |room, running| room.saturating_sub(running.remaining()))
    }

    /// Admits the next request, or makes room for it. `None` where nobody can be admitted.
    fn admit_next(&mut self, now: Duration) -> Option<()> {
        let slot = self.order.len() < self.preset.running_max && self.kv.has_sequence();
        let stalled = now.checked_sub(PAUSE_GRACE).and_then(|before| self.paused_last(before));
        if !slot && stalled.is_none() {
            // Most of the time all sequences are taken: then nobody has to be looked at.
            self.victim_for(self.queue.most_urgent()?)?;
        }
        self.choose(now)?;
        let ticket = self.queue.chosen()?;
        let (id, level) = (ticket.id, ticket.level());
        if self.kv.account().blocks_of(ticket.tokens.len()) > self.kv.account().blocks_total() {
            let ticket = self.queue.pop(now)?;
            self.plan.exhausted.push(id);
            self.parked.insert(id, ticket);
            return Some(());
        }
        if self.prefill_room() == 0 && !self.overtakes_prefill(level) {
            return None;
        }
        let origin = self.origin(ticket);
        let needed = self.blocks_needed(ticket, &origin);
        let fits = needed + self.blocks_promised() <= self.kv.available();
        if slot && fits || self.order.is_empty() {
            return self.take_in(origin, now);
        }
        let classes_count = self.queue.most_urgent().is_some();
        let victim = self.victim_for(level).filter(|_| classes_count && needed <= self.available_to(level));
        self.preempt(stalled.or(victim)?, now);
        Some(())
    }

    fn choose(&mut self, now: Duration) -> Option<RequestId> {
        let kv = &self.kv;
        let cached = |ticket: &Ticket| kv.saved_by(&ticket.namespace, &ticket.tokens);
        let cached: Option<&dyn Fn(&Ticket) -> usize> =
            if kv.knows_anything() { Some(&cached) } else { None };
        self.queue.choose(&View { now, cached, quantum: self.preset.quantum })
    }

    /// Whether a request of this level goes before a prompt that is being computed.
    fn overtakes_prefill(&self, level: Priority) -> bool {
        self.order.iter().filter_map(|seq| self.get(*seq)).any(|r| r.prefills() && r.ticket.level() > level)
    }

    fn origin(&self, ticket: &Ticket) -> Origin {
        if ticket.history.alone {
            return Origin::Cached(None);
        }
        let prefix = self.kv.find(&ticket.namespace, &ticket.tokens);
        let len = prefix.map_or(0, |prefix| prefix.len);
        if ticket.history.saved > len {
            return Origin::Saved;
        }
        match self.leader_of(ticket, len + FOLLOW_MIN) {
            Some(follow) => Origin::Following(follow),
            None => Origin::Cached(prefix),
        }
    }

    /// A sequence at least as urgent that is about to compute `least` or more tokens that the request begins with.
    fn leader_of(&self, ticket: &Ticket, least: usize) -> Option<Follow> {
        if !self.kv.forks() || ticket.tokens.len() <= least {
            return None;
        }
        let leads = |leader: &&Running| {
            leader.paused.is_none()
                && leader.computed < leader.ticket.prompt_len
                && leader.ticket.level() <= ticket.level()
                && leader.ticket.tokens.get(least - 1) == ticket.tokens.get(least - 1)
                && leader.ticket.namespace == ticket.namespace
        };
        let leaders = self.order.iter().filter_map(|seq| self.get(*seq)).filter(leads);
        let shared = |leader: &Running| {
            let prompt = &leader.ticket.tokens[..leader.ticket.prompt_len];
            self.kv.usable(common_len(prompt, &ticket.tokens), ticket.tokens.len())
        };
        let (len, leader) = leaders.map(|leader| (shared(leader), leader)).max_by_key(|(len, _)| *len)?;
        let first = !ticket.history.admitted;
        (len >= least).then_some(Follow { leader: leader.ticket.id, leader_seq: leader.seq, len, first })
    }

    /// Tokens for which a request's KV is held ready.
    fn tokens_promised(&self, ticket: &Ticket, pinned: bool) -> usize {
        let ahead = if pinned { PINNED_AHEAD } else { self.preset.reserve_tokens };
        let kv = self.kv.account();
        let most = ticket.tokens_max.min(kv.blocks_total() * kv.block_tokens());
        ticket.tokens.len().saturating_add(ahead).min(most).max(ticket.tokens.len())
    }

    fn is_pinned(&self, ticket: &Ticket) -> bool {
        ticket.history.preemptions >= self.options.preemptions_max
    }

    fn blocks_needed(&self, ticket: &Ticket, origin: &Origin) -> usize {
        let tokens = self.tokens_promised(ticket, self.is_pinned(ticket));
        let kv = self.kv.account();
        match origin {
            Origin::Cached(prefix) => self.kv.blocks_needed(prefix.as_ref(), tokens),
            Origin::Following(follow) => kv.blocks_of(tokens) - follow.len / kv.block_tokens(),
            Origin::Saved => kv.blocks_of(tokens),
        }
    }

    /// Blocks that are held ready for those that run, and that they do not hold yet.
    fn blocks_promised(&self) -> usize {
        let kv = self.kv.account();
        let promised = |running: &Running| {
            let shared = running.follows.map_or(0, |follow| follow.len / kv.block_tokens());
            let tokens = self.tokens_promised(&running.ticket, running.pinned);
            kv.blocks_of(tokens).saturating_sub(kv.blocks_held(running.seq) + shared)
        };
        self.order.iter().filter_map(|seq| self.get(*seq)).map(promised).sum()
    }

    /// Gives the chosen request a sequence.
    fn take_in(&mut self, origin: Origin, now: Duration) -> Option<()> {
        let ticket = self.queue.pop(now)?;
        let prefix = if let Origin::Cached(prefix) = origin { prefix } else { None };
        let Some((seq, mut computed)) = self.kv.admit(prefix) else {
            self.queue.push(ticket, now);
            return None;
        };
        let cached = computed;
        let saved = ticket.history.saved;
        let restores = matches!(origin, Origin::Saved);
        if restores {
            computed = saved;
        } else if saved > 0 {
            self.kv.push_op(KvOp::Discard(ticket.id));
        }
        let follows = if let Origin::Following(follow) = origin { Some(follow) } else { None };
        let pinned = self.is_pinned(&ticket);
        let mut running = Running { ticket, seq, computed, paused: None, follows, worked: now, pinned };
        self.saved_bytes -= self.bytes_of(std::mem::take(&mut running.ticket.history.saved));
        let grown = follows.is_some() || self.kv.grow(seq, running.ticket.tokens.len());
        if restores {
            // After the evictions that make room for it.
            self.kv.push_op(KvOp::Restore { id: running.ticket.id, seq, len: saved });
        }
        let answer = running.ticket.tokens_max.saturating_sub(running.ticket.tokens.len()).min(RESERVED_MAX);
        running.ticket.tokens.reserve(answer);
        self.kv.reserve(seq, running.ticket.tokens.len() + answer);
        if computed > 0 && grown {
            self.kv.computed(seq, &running.ticket.namespace, &running.ticket.tokens[..computed]);
        }
        self.welcome(&mut running.ticket, seq, follows.map_or(cached, |follow| follow.len), cached);
        self.start(running);
        if !grown {
            // The prefix went to make room for its own sequence. Once more, without it.
            self.preempt(seq, now);
            return Some(());
        }
        self.plan_late_decode(seq);
        Some(())
    }

    /// Counts and charges a request that is given a sequence, of whose prompt `shared` tokens need not be computed and
    /// `cached` are here already.
    fn welcome(&mut self, ticket: &mut Ticket, seq: SeqId, shared: usize, cached: usize) {
        let (id, again) = (ticket.id, std::mem::replace(&mut ticket.history.admitted, true));
        self.plan.admitted.push(Admitted { id, seq, again });
        if again {
            return;
        }
        self.counters.prompt_tokens += ticket.prompt_len as u64;
        self.count_cached(id, cached);
        let (priority, user) = (ticket.priority, ticket.user);
        let input = ticket.prompt_len.saturating_sub(shared);
        self.queue.charge(Service { priority, user, input, output: 0 });
    }
}
