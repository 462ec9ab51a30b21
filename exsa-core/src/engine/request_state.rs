//! The part of a request that its answers share, outside the scheduler: stream, owner, usage, times.

use crate::engine::answer::Answer;
use crate::finish::Usage;
use crate::priority::Priority;
use crate::schedule::sched_request::SchedRequest;
use crate::stream::{AnswerFinished, Finished, StreamSender};
use crate::token::RequestId;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct RequestState {
    pub(crate) id: RequestId,
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
    /// Prompt tokens with cached KV.
    pub(crate) cached_tokens: usize,
    /// Tokens of the answers that have ended.
    pub(crate) completion_tokens: usize,
    /// Time of the first admission.
    pub(crate) admitted: Option<Duration>,
    /// Time of the first token of any answer.
    pub(crate) first_token: Option<Duration>,
}

/// A request on its way to the engine, and its answers with what the scheduler needs of each.
///
/// The id of the first answer is that of the request; those of the others follow it.
pub(crate) struct Submission {
    pub(crate) state: Box<RequestState>,
    pub(crate) answers: Vec<(Box<Answer>, SchedRequest)>,
}

impl RequestState {
    /// Sends the last event, which is also that of the answer that ended last.
    pub(crate) fn finish(self, last: AnswerFinished, now: Duration) {
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
        };
        let AnswerFinished { index, text, reason, seed } = last;
        self.stream.finish(Finished::new(reason).index(index).text(text).usage(usage).seed(seed));
    }
}
