//! Drafts: tokens that a proposer expects, verified in the pass that computes the token before them.

use super::{Scheduler, Work, WorkKind};
use crate::speculate::{DraftContext, Speculation};

impl Scheduler {
    /// Adds drafts to the decodes of the plan, within the batch tokens left by prompts and decodes: those
    /// that raise the expected tokens per second at the measured cost of a row, or, without
    /// [adaptive](Speculation::adaptive) speculation, all that are proposed and fit, in plan order.
    ///
    /// Drafts use free blocks only: they never preempt a sequence or evict a cached prefix. A session that
    /// cannot truncate gets no drafts, since rejected drafts could not be removed.
    pub fn plan_drafts(&mut self, speculation: &mut Speculation, context: &mut dyn DraftContext) {
        if !self.can_truncate {
            return;
        }
        speculation.begin();
        for (number, work) in self.plan.work.iter().enumerate() {
            if work.kind != WorkKind::Decode || work.rows == 0 {
                continue;
            }
            let room = self.draft_room(work);
            let Some(request) = self.request(work.seq).filter(|request| room > 0 && request.speculate) else {
                continue;
            };
            speculation.propose(number, request, room, |drafts| context.plausible(work.id, drafts));
        }
        if speculation.is_adaptive() {
            let decodes = self.plan.decodes();
            let (cost, drafts_max) = self.row_costs.of_next(decodes);
            let (room, costs) = (self.batch_room().min(drafts_max), &self.row_costs);
            speculation.select(cost, decodes, room, |rows| costs.factor(rows));
        }
        speculation.run_model(&|work| self.request(self.plan.work[work].seq), context);
        for number in 0..speculation.streams() {
            let (stream, drafts) = speculation.stream(number);
            let work = self.plan.work[stream.work];
            // Earlier streams may have used up the room.
            let drafts = &drafts[..drafts.len().min(self.draft_room(&work))];
            if drafts.is_empty() || !self.kv.grow_free(work.seq, work.known() + drafts.len()) {
                continue;
            }
            let Some(running) = self.running.get_mut(work.seq.index()).and_then(Option::as_mut) else {
                continue;
            };
            running.request.set_drafts(drafts);
            self.plan.add_drafts(stream.work, drafts.len(), stream.kind);
        }
    }

    /// Maximum drafts of `work`, limited by the batch, the free blocks and the length of the answer.
    fn draft_room(&self, work: &Work) -> usize {
        let (kv, known) = (self.kv.blocks(), work.known());
        let blocks = kv.blocks_held(work.seq).saturating_add(kv.blocks_free());
        let kv_room = blocks.saturating_mul(kv.block_tokens()).saturating_sub(known);
        let limit = self.request(work.seq).map_or(0, |request| self.len_limit(request));
        // The row of the last draft yields one more token.
        let answer_room = limit.saturating_sub(known + 1);
        self.batch_room().min(kv_room).min(answer_room)
    }

    /// Drops the drafts of a plan that was not executed, and frees their blocks.
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
