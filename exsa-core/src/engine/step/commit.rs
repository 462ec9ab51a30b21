//! From logits to events: sample, commit, emit.

use crate::backend::Output;
use crate::clock::Clock;
use crate::engine::request_state::{RequestState, TokenOutcome};
use crate::finish::FinishReason;
use crate::sampler::{SampleError, SampleScratch};
use crate::schedule::scheduler::{Scheduler, Work};
use crate::stats::Recorder;
use crate::token::RequestId;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::collections::HashMap;
use std::time::Duration;

/// What was sampled for a piece of work, and its logarithm of probability.
pub(super) type Sampled = Option<Result<(TokenId, Option<f32>), SampleError>>;

/// Everything that takes part when logits become tokens.
pub(super) struct Commit<'a> {
    pub(super) scheduler: &'a mut Scheduler,
    pub(super) requests: &'a mut HashMap<RequestId, Box<RequestState>>,
    pub(super) tokenizer: &'a dyn Tokenizer,
    pub(super) scratch: &'a mut SampleScratch,
    pub(super) sampled: &'a mut Vec<Sampled>,
    pub(super) recorder: &'a mut Recorder,
    pub(super) clock: &'a dyn Clock,
    pub(super) context_max: usize,
    /// When the pass was done.
    pub(super) now: Duration,
}

impl Commit<'_> {
    /// Samples, commits and emits each piece of work; the requests that ended with it.
    pub(super) fn run(mut self, work: &[Work], output: Output<'_>) -> Vec<(RequestId, FinishReason)> {
        self.sample(work, output);
        let sampled = self.clock.now();
        let ended = self.emit(work);
        let times = &mut self.recorder.stats.step_times;
        times.sample += sampled.saturating_sub(self.now);
        times.emit += self.clock.now().saturating_sub(sampled);
        ended
    }

    fn sample(&mut self, work: &[Work], output: Output<'_>) {
        self.sampled.clear();
        let (logits, mut rows) = (output.logits(), 0);
        for work in work {
            let row = work.sample.then(|| logits?.row(rows)).flatten();
            rows += usize::from(work.sample);
            self.sampled.push(row.zip(self.requests.get_mut(&work.id)).map(|(row, sequence)| {
                let position = sequence.tokens.len() as u64;
                let sampled = sequence.sampler.sample(row, &sequence.tokens, position, self.scratch)?;
                Ok((sampled.token, sampled.logprob))
            }));
        }
    }

    fn emit(&mut self, work: &[Work]) -> Vec<(RequestId, FinishReason)> {
        let mut ended = Vec::new();
        for (i, work) in work.iter().enumerate() {
            match self.sampled[i].take() {
                None => self.scheduler.commit(work, None),
                Some(Err(error)) => {
                    self.scheduler.commit(work, None);
                    ended.push((work.id, FinishReason::Failed(error.into())));
                }
                Some(Ok((token, logprob))) => {
                    self.scheduler.commit(work, Some(token));
                    match self.advance(work.id, token, logprob) {
                        TokenOutcome::Continue => {}
                        TokenOutcome::StreamFull => self.scheduler.pause(work.id, self.now),
                        TokenOutcome::End(reason) => ended.push((work.id, reason)),
                    }
                }
            }
        }
        ended
    }

    fn advance(&mut self, id: RequestId, token: TokenId, logprob: Option<f32>) -> TokenOutcome {
        let Some(sequence) = self.requests.get_mut(&id) else {
            return TokenOutcome::End(FinishReason::Cancelled);
        };
        match sequence.last_token.replace(self.now) {
            Some(before) => self.recorder.inter_token(self.now.saturating_sub(before)),
            None => self.recorder.first_token(self.now.saturating_sub(sequence.submitted)),
        }
        sequence.advance(token, logprob, self.tokenizer, self.context_max, self.now)
    }
}
