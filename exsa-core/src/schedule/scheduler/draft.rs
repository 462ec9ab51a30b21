//! Drafts: tokens that a proposer expects, verified in the pass that computes the token before them.

use super::{Scheduler, WorkKind};
use crate::speculate::Speculation;
use crate::token::{RequestId, TokenId};

impl Scheduler {
    /// Adds drafts to the decodes of the plan, in plan order,
    /// within the batch tokens left by prompts and decodes.
    ///
    /// Drafts take free blocks only: they preempt no sequence and evict no cached prefix. A
    /// session that cannot truncate gets no drafts, since rejected drafts could not be removed.
    pub fn plan_drafts(&mut self, speculation: &mut Speculation) {
        self.plan_plausible_drafts(speculation, |_, drafts| drafts.len());
    }

    /// Like [`plan_drafts`](Self::plan_drafts). `plausible` counts the drafts of
    /// a request that can be accepted; those after them are dropped.
    pub fn plan_plausible_drafts(
        &mut self,
        speculation: &mut Speculation,
        mut plausible: impl FnMut(RequestId, &[TokenId]) -> usize,
    ) {
        if !self.can_truncate {
            return;
        }
        for i in 0..self.plan.work.len() {
            let work = self.plan.work[i];
            if work.kind != WorkKind::Decode || work.rows == 0 {
                continue;
            }
            let known = work.known();
            let kv = self.kv.blocks();
            let blocks = kv.blocks_held(work.seq).saturating_add(kv.blocks_free());
            let kv_room = blocks.saturating_mul(kv.block_tokens()).saturating_sub(known);
            let batch_room = self.batch_room();
            let Some(running) = self.running.get_mut(work.seq.index()).and_then(Option::as_mut) else {
                continue;
            };
            // The row of the last draft yields one more token.
            let limit = running.request.len_max.min(self.context_tokens_max);
            let answer_room = limit.saturating_sub(known + 1);
            let max = batch_room.min(kv_room).min(answer_room);
            let drafts = speculation.propose(work.id, running.request.tokens(), max);
            let drafts = if drafts.is_empty() { drafts } else { &drafts[..plausible(work.id, drafts)] };
            if drafts.is_empty() || !self.kv.grow_free(work.seq, known + drafts.len()) {
                continue;
            }
            running.request.set_drafts(drafts);
            self.plan.add_drafts(i, drafts.len());
        }
    }

    /// Drops the drafts of a plan that was not executed, and returns their blocks.
    pub(super) fn drop_drafts(&mut self) {
        for work in self.plan.work.iter().filter(|work| work.drafts > 0) {
            let Some(running) = self.running.get_mut(work.seq.index()).and_then(Option::as_mut) else {
                continue;
            };
            let request = &mut running.request;
            if request.id == work.id && request.tokens_and_drafts().len() > request.tokens().len() {
                request.clear_drafts();
                self.kv.return_blocks(work.seq, work.known());
            }
        }
    }
}
