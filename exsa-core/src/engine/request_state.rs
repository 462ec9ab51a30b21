//! State of a request that its answers share, outside the scheduler: stream, user, usage and times.

use crate::engine::adapters::Lease;
use crate::engine::answer::{Answer, Ended};
use crate::engine::best_of::{Candidate, best};
use crate::finish::Usage;
use crate::priority::Priority;
use crate::schedule::sched_request::SchedRequest;
use crate::schedule::scheduler::Scheduler;
use crate::stats::DraftStats;
use crate::stream::{AnswerFinished, Event, Finished, StreamSender};
use crate::token::RequestId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct RequestState {
    pub(crate) id: RequestId,
    /// Leases that keep the adapters of the answers in memory.
    pub(crate) _adapters: Vec<Arc<Lease>>,
    pub(crate) stream: StreamSender,
    pub(crate) submitted: Duration,
    /// Time spent on the answer before submission.
    pub(crate) elapsed: Duration,
    /// Whether part of the answer was generated before submission.
    pub(crate) resumed: bool,
    pub(crate) priority: Priority,
    pub(crate) user: Arc<str>,
    /// Answers that have not ended, by the id of their sequence's request.
    pub(crate) open: Vec<RequestId>,
    pub(crate) prompt_tokens: usize,
    /// Prompt tokens with cached KV at the first admission.
    pub(crate) cached_tokens: usize,
    /// The answer that was admitted first.
    pub(crate) first_admitted: Option<RequestId>,
    /// Tokens of the answers that have ended.
    pub(crate) completion_tokens: usize,
    /// Messages left out of the prompt.
    pub(crate) dropped_messages: usize,
    /// Tokens that context shifts dropped from the answers that have ended.
    pub(crate) shifted_tokens: usize,
    /// Drafts verified and accepted.
    pub(crate) drafts: DraftStats,
    /// Time of the first admission.
    pub(crate) admitted: Option<Duration>,
    /// Time of the first token of any answer.
    pub(crate) first_token: Option<Duration>,
    /// Whether there is a time limit for the first token.
    pub(crate) has_first_token_limit: bool,
    /// Number of most probable alternatives per prompt token, if log-probabilities of the prompt are sent.
    pub(crate) prompt_top: Option<usize>,
    /// Tokens of the prompt whose log-probabilities were sent; `None` if none are.
    pub(crate) scored: Option<usize>,
    /// Requests of answers that start once the log-probabilities of the prompt have been sent.
    pub(crate) held: VecDeque<SchedRequest>,
    /// Number of answers to generate.
    pub(crate) n: usize,
    /// Number of answers that failed.
    pub(crate) failed: usize,
    /// Number of answers to send, if fewer than are generated.
    pub(crate) best: Option<usize>,
    /// Withheld answers that have ended.
    pub(crate) candidates: Vec<Candidate>,
}

/// A submitted request on its way to the engine, with the scheduler's request for each answer.
///
/// The first answer has the id of the request, the others the ids that follow.
pub(crate) struct Submission {
    pub(crate) state: Box<RequestState>,
    pub(crate) answers: Vec<(Box<Answer>, SchedRequest)>,
}

impl RequestState {
    /// Moves held answers to the queue, up to the first that computes log-probabilities of the prompt.
    pub(crate) fn enqueue_held(&mut self, scheduler: &mut Scheduler, now: Duration) {
        while let Some(request) = self.held.pop_front() {
            let computes = request.unscored().is_some();
            scheduler.enqueue(request, now);
            if computes {
                return;
            }
        }
    }

    /// Pauses all answers, because the stream is full.
    pub(crate) fn pause(&self, scheduler: &mut Scheduler, now: Duration) {
        for id in &self.open {
            scheduler.pause(*id, now);
        }
    }

    /// Records the end of an answer while others are still open. Returns whether the stream has room for
    /// more.
    pub(crate) fn answer_ended(&mut self, ended: Ended) -> bool {
        let Ended { mut events, last, withheld } = ended;
        match withheld {
            Some(events) => {
                self.candidates.push(Candidate { events, end: last });
                true
            }
            None => {
                events.push(Event::AnswerFinished(last));
                self.stream.send(&mut events)
            }
        }
    }

    /// Sends the best of the withheld answers, then the last event, which also ends the answer that ended
    /// last.
    pub(crate) fn finish(mut self, ended: Ended, now: Duration) {
        let Ended { mut events, last, withheld } = ended;
        let last = match (self.best, withheld) {
            (Some(n), Some(withheld)) => {
                self.candidates.push(Candidate { events: withheld, end: last });
                self.best(n, &mut events)
            }
            _ => Some(last),
        };
        let usage = Usage {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.completion_tokens,
            queue_time: self.admitted.map(|at| at.saturating_sub(self.submitted)),
            time_to_first_token: self
                .first_token
                .filter(|_| !self.resumed)
                .map(|at| at.saturating_sub(self.submitted).saturating_add(self.elapsed)),
            total_time: now.saturating_sub(self.submitted).saturating_add(self.elapsed),
            dropped_messages: self.dropped_messages,
            shifted_tokens: self.shifted_tokens,
            drafts: Box::new(self.drafts),
        };
        let Some(AnswerFinished { index, text, reason, seed, sampler_state, logprob }) = last else { return };
        let finished = Finished::new(reason).index(index).text(text).usage(usage).seed(seed);
        self.stream.finish_with(events, finished.sampler_state(sampler_state).logprob(logprob));
    }

    /// Appends the events of the best `n` answers to `all`, except for the last event, which is returned.
    fn best(&mut self, n: usize, all: &mut Vec<Event>) -> Option<AnswerFinished> {
        let mut last = None;
        for Candidate { events, end } in best(std::mem::take(&mut self.candidates), n) {
            if let Some(end) = last.replace(end) {
                all.push(Event::AnswerFinished(end));
            }
            all.extend(events);
        }
        last
    }
}
