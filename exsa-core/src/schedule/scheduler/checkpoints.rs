//! Checkpoints of prompts, for sessions that cannot truncate.
//!
//! Such a session, of a recurrent model, can only continue whole entries of the prompt store. An entry saved
//! at the end of a conversation is useful for that conversation only, so states within prompts are saved as
//! well, while the prompts are computed:
//!
//! - at multiples of a stride, which is doubled until at most four fit. Thus the first conversation with a
//!   system prompt leaves a state from which the second starts.
//! - at the position where the prompt diverges from an entry of the store, or from an idle sequence that is
//!   not written yet. Thus the second conversation leaves the state at the end of the system prompt for the
//!   third. Marconi (Pan et al., MLSys 2025) caches the states of hybrid models at such positions.
//!
//! Prefill chunks end at these positions. A save is skipped if it would delay running streams noticeably, or
//! if the store has no room.

use super::Scheduler;
use crate::prompt_cache::PromptKey;
use crate::schedule::kv::ColdKv;
use crate::schedule::sched_request::SchedRequest;
use crate::token::SeqId;

/// Maximum multiples of the stride in a prompt.
const STRIDES_MAX: usize = 4;

impl Scheduler {
    /// Positions in the prompt of `request` at which to save its state, after its first `computed` tokens,
    /// last first.
    pub(super) fn checkpoints_of(&self, request: &SchedRequest, computed: usize) -> Vec<usize> {
        let Some(cold) = &self.cold else { return Vec::new() };
        // The last token is computed with the next step, as a decode.
        let end = request.prompt_len.saturating_sub(1);
        if self.can_truncate || request.history.no_sharing || request.shifted() > 0 || end <= computed {
            return Vec::new();
        }
        let key = PromptKey::of(cold.fingerprint, &request.namespace, &request.tokens()[..end]);
        let stored = cold.options.store.find(&key, false).map_or(0, |found| found.tokens);
        let departs = stored.max(self.kv.common(&request.namespace, key.tokens));
        let departs = (departs >= cold.options.tokens_min).then_some(departs);
        let stride = cold.options.checkpoint_tokens.max(cold.options.tokens_min);
        positions(end, stride, departs, computed)
    }

    /// Plans to save the state of `seq`, if it is at a checkpoint.
    pub(super) fn plan_checkpoint(&mut self, seq: SeqId) {
        let Some(running) = self.running_mut(seq) else { return };
        let mut reached = None;
        while let Some(at) = running.checkpoints.pop_if(|at| *at <= running.computed) {
            reached = Some(at);
        }
        if reached == Some(running.computed) {
            let request = &running.request;
            let (namespace, tokens) =
                (request.namespace.clone(), request.tokens()[..running.computed].to_vec());
            self.kv.store_checkpoint(ColdKv { seq, namespace, tokens });
        }
    }
}

/// Positions above `computed` and below `end`, last first: at most [`STRIDES_MAX`] multiples of `stride`
/// times a power of two, and `departs`.
fn positions(end: usize, mut stride: usize, departs: Option<usize>, computed: usize) -> Vec<usize> {
    stride = stride.max(1);
    while end / stride > STRIDES_MAX {
        stride *= 2;
    }
    let strides = (1..=end / stride).map(|i| i * stride);
    let mut positions: Vec<_> = strides.chain(departs).filter(|at| *at > computed && *at < end).collect();
    positions.sort_unstable_by(|a, b| b.cmp(a));
    positions.dedup();
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_few_and_those_of_longer_prompts_too() {
        assert!(positions(256, 256, None, 0).is_empty());
        assert_eq!(positions(257, 256, None, 0), [256]);
        assert_eq!(positions(1279, 256, None, 0), [1024, 768, 512, 256]);
        assert_eq!(positions(1281, 256, None, 0), [1024, 512]);
        assert_eq!(positions(3000, 256, Some(900), 0), [2048, 1024, 900]);
        assert_eq!(positions(3000, 256, Some(1024), 900), [2048, 1024]);
        assert!(positions(3000, 256, Some(3000), 2048).is_empty());
        assert_eq!(positions(100, usize::MAX, Some(40), 0), [40]);
        assert!(positions(0, 0, None, 0).is_empty());
        for end in 0..5000 {
            assert!(positions(end, 64, Some(end / 3), 0).len() <= STRIDES_MAX + 1);
        }
    }
}
