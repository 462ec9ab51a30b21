//! View of the answers for planning drafts: their constraints and samplers.

use crate::clock::Clock;
use crate::engine::answer::Answer;
use crate::sampler::SampleScratch;
use crate::speculate::DraftContext;
use crate::token::{RequestId, TokenId};
use std::collections::HashMap;
use std::time::Duration;

/// The answers of the engine, for drafts.
pub(super) struct Drafting<'a> {
    pub(super) answers: &'a mut HashMap<RequestId, Box<Answer>>,
    pub(super) scratch: &'a mut SampleScratch,
    pub(super) clock: &'a dyn Clock,
}

impl DraftContext for Drafting<'_> {
    fn plausible(&mut self, id: RequestId, drafts: &[TokenId]) -> usize {
        let constraint = self.answers.get_mut(&id).and_then(|answer| answer.constraint.as_mut());
        constraint.map_or(drafts.len(), |constraint| constraint.count_plausible(drafts))
    }

    fn draw(&mut self, id: RequestId, logits: &[f32], history: &[TokenId], position: u64) -> Option<TokenId> {
        let sampler = &mut self.answers.get_mut(&id)?.sampler;
        let drawn = sampler.sample(logits, history, position, self.scratch).ok();
        // The answer will not accept this draw, which is from the draft model's logits.
        sampler.forget_draw();
        drawn.map(|sampled| sampled.token)
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }
}
