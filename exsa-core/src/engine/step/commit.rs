//! From logits to events: sample, emit, commit.

use crate::backend::Output;
use crate::clock::Clock;
use crate::engine::request_state::{Limits, RequestState, TokenOutcome};
use crate::finish::FinishReason;
use crate::sampler::SampleScratch;
use crate::schedule::scheduler::{Scheduler, Work};
use crate::speculate::Speculation;
use crate::stats::Recorder;
use crate::token::RequestId;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::collections::HashMap;
use std::time::Duration;

/// Everything that takes part when logits become tokens.
pub(super) struct Commit<'a> {
    pub(super) scheduler: &'a mut Scheduler,
    pub(super) requests: &'a mut HashMap<RequestId, Box<RequestState>>,
    pub(super) tokenizer: &'a dyn Tokenizer,
    pub(super) speculation: Option<&'a mut Speculation>,
    pub(super) scratch: &'a mut SampleScratch,
    /// Memory for the tokens that a piece of work gives.
    pub(super) generated: &'a mut Vec<TokenId>,
    pub(super) recorder: &'a mut Recorder,
    pub(super) clock: &'a dyn Clock,
    pub(super) context_max: usize,
    /// When the pass was done.
    pub(super) now: Duration,
}

impl Commit<'_> {
    /// Samples, emits and commits each piece of work; the requests that ended with it.
    pub(super) fn run(mut self, work: &[Work], output: Output<'_>) -> Vec<(RequestId, FinishReason)> {
        let mut ended = Vec::new();
        let mut rows = 0;
        for work in work {
            self.generated.clear();
            let outcome =
                if work.rows > 0 { self.verify(work, output, rows) } else { TokenOutcome::Continue };
            rows += work.rows;
            let accepted = self.scheduler.commit(work, self.generated);
            if let Some(speculation) = self.speculation.as_mut().filter(|_| work.drafts > 0) {
                speculation.verified(work.id, work.drafts, accepted);
            }
            match outcome {
                TokenOutcome::Continue => {}
                TokenOutcome::StreamFull => self.scheduler.pause(work.id, self.now),
                TokenOutcome::End(reason) => ended.push((work.id, reason)),
            }
        }
        ended
    }

    /// Draws and emits the tokens that follow the known ones, from the rows of `work`, which begin at `first`.
    ///
    /// Each row is sampled as it would be in a pass of its own. It is the right row as long as the draft that it was
    /// computed with equals the token drawn from the row before: the first draft that does not is rejected with all after it.
    /// Where the request ends, or its stream is full, the remaining rows are left alone.
    fn verify(&mut self, work: &Work, output: Output<'_>, first: usize) -> TokenOutcome {
        let request = self.scheduler.request(work.seq).filter(|request| request.id == work.id);
        let (Some(request), Some(state)) = (request, self.requests.get_mut(&work.id)) else {
            return TokenOutcome::End(FinishReason::Cancelled);
        };
        let limits = Limits { len_max: request.len_max, context_max: self.context_max };
        let tokens = request.tokens_and_drafts();
        let mut begun = self.clock.now();
        for (row, len) in (first..first + work.rows).zip(work.known()..) {
            let Some(logits) = output.row(row) else { break };
            let sampled = match state.sampler.sample(logits, &tokens[..len], len as u64, self.scratch) {
                Ok(sampled) => sampled,
                Err(error) => return TokenOutcome::End(FinishReason::Failed(error.into())),
            };
            let token = sampled.token;
            self.generated.push(token);
            let drawn = self.clock.now();
            match state.last_token.replace(self.now) {
                Some(before) => self.recorder.inter_token(self.now.saturating_sub(before)),
                None if state.resumed => {}
                None => self.recorder.first_token(self.now.saturating_sub(state.submitted)),
            }
            let outcome = state.advance(sampled, len + 1, &limits, self.tokenizer, self.now);
            let emitted = self.clock.now();
            let stats = &mut self.recorder.stats;
            stats.tokens_generated += 1;
            stats.step_times.sample += drawn.saturating_sub(begun);
            stats.step_times.emit += emitted.saturating_sub(drawn);
            begun = emitted;
            if !matches!(outcome, TokenOutcome::Continue) {
                return outcome;
            }
            if tokens.get(len) != Some(&token) {
                break;
            }
        }
        TokenOutcome::Continue
    }
}
