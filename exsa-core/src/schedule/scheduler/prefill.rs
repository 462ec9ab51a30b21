//! Chunked prefill, and followers: sequences that wait for another sequence to compute a shared prefix.

use super::Scheduler;
use super::running::{Follow, Running};
use crate::schedule::queue::Service;
use crate::token::SeqId;
use std::time::Duration;

/// Time without progress after which a prefill is treated as one of the most urgent class.
const STALLED: Duration = Duration::from_secs(5);
/// Maximum rows of logits of prompts in a pass, which bounds the memory of
/// its output: 64 rows of a vocabulary of 128k tokens take 32 MiB.
pub(super) const PROMPT_ROWS_MAX: usize = 64;

impl Scheduler {
    /// Prefill tokens that fit into this plan in addition to its decodes.
    pub(super) fn prefill_budget(&self) -> usize {
        let (decodes, rest) = (self.plan.decodes(), self.batch_room());
        if decodes == 0 { rest } else { self.policy.prefill_budget(decodes).min(rest) }
    }

    pub(super) fn plan_prefills(&mut self, now: Duration) {
        self.raise_stalled(now);
        let (mut budget, mut rows) = (self.prefill_budget(), PROMPT_ROWS_MAX);
        for i in 0..self.order.len() {
            if budget == 0 {
                break;
            }
            let seq = self.order[i];
            if !self.get(seq).is_some_and(Running::prefills) || !self.takes_adapters_of(seq) {
                continue;
            }
            self.plan_checkpoint(seq);
            let Some(running) = self.running_mut(seq) else { continue };
            let work = running.work(budget, rows);
            if work.len == 0 {
                continue;
            }
            running.worked = now;
            rows -= work.prompt_rows;
            self.plan.push(work);
            budget -= work.len;
        }
    }

    /// Starts followers whose leader has computed the shared prefix, or no longer can compute it.
    pub(super) fn settle_followers(&mut self, now: Duration) {
        let mut i = 0;
        while let Some(seq) = self.order.get(i).copied() {
            i += 1;
            let Some(Running { follows: Some(follow), paused: None, .. }) = self.get(seq) else { continue };
            let follow = *follow;
            let leader = self.get(follow.leader_seq).filter(|leader| leader.request.id == follow.leader);
            let pending = leader.is_some_and(|leader| {
                leader.paused.is_none()
                    && leader.request.shifted() == 0
                    && leader.computed < follow.len.min(leader.request.prompt_len)
            });
            if pending {
                continue;
            }
            if self.start_from_prefix(seq, &follow, now) {
                self.plan_late_decode(seq);
            } else {
                self.preempt(seq, now);
            }
            // Making room may have preempted other sequences.
            i = self.order.iter().position(|other| *other == seq).map_or(0, |at| at + 1);
        }
    }

    /// Starts a follower from the prefix computed so far. Returns `false` if there is no room for it.
    fn start_from_prefix(&mut self, seq: SeqId, follow: &Follow, now: Duration) -> bool {
        let Some(running) = self.running.get_mut(seq.index()).and_then(Option::as_mut) else { return true };
        running.follows = None;
        running.worked = now;
        let request = &running.request;
        let (priority, user, tokens) = (request.priority, request.user, request.tokens().len());
        let prefix = self.kv.find(&request.namespace, request.shareable());
        let len = prefix.map_or(0, |prefix| prefix.len);
        if let Some(prefix) = prefix {
            self.kv.share_prefix(&prefix, seq);
            self.kv.computed(seq, &request.namespace, &request.tokens()[..len]);
            running.computed = len;
        }
        if follow.first {
            let (id, prompt_len) = (request.id, request.prompt_len);
            self.count_cached(id, len.min(prompt_len));
            // Admission assumed that the whole prefix would be shared; charge the part that was not.
            let input = follow.len.saturating_sub(len);
            self.queue.charge(Service { priority, user, input, output: 0 });
        }
        self.make_room(seq, tokens, now)
    }

    pub(super) fn count_cached(&mut self, id: super::RequestId, len: usize) {
        if len > 0 {
            self.counters.cached_tokens += len as u64;
            self.plan.cached.push((id, len));
        }
    }

    fn raise_stalled(&mut self, now: Duration) {
        let stalled = |seq: &SeqId| {
            let running = self.get(*seq)?;
            let stalled = running.prefills() && now.saturating_sub(running.worked) >= STALLED;
            (stalled && !running.request.history.aged).then_some(*seq)
        };
        let Some(seq) = self.order.iter().find_map(stalled) else { return };
        if let Some(mut running) = self.stop(seq) {
            running.request.history.aged = true;
            self.start(running);
        }
    }
}
