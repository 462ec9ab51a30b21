//! Requests in a pool, and their parts, which are the units of placement.

use crate::progress::{Progress, Times};
use exsa_core::priority::UserId;
use exsa_core::{Request, Resume};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A request of a consumer.
pub(crate) struct Job {
    /// The request with its seed, without its `resume`.
    pub(crate) request: Request,
    /// The answer as generated before the pool received the request.
    pub(crate) base: Resume,
    /// Request number, in order of arrival.
    pub(crate) number: u64,
    pub(crate) user: UserId,
    pub(crate) user_name: Arc<str>,
    /// Hashes of the prompt's prefixes.
    pub(crate) keys: Vec<u64>,
    pub(crate) submitted: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) first_token_by: Option<Duration>,
    pub(crate) progress: Mutex<Progress>,
}

/// A request, or one of its answers; placed as a unit.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) id: u64,
    pub(crate) job: Arc<Job>,
    /// The index of the answer, if the answers are computed separately.
    pub(crate) answer: Option<usize>,
    /// Ids of members that cannot compute it.
    pub(crate) excluded: Vec<u64>,
    /// Whether it was placed before, so its prompt was charged.
    pub(crate) placed: bool,
}

impl Job {
    pub(crate) fn times(&self, now: Duration) -> Times {
        let resumed = !self.base.tokens.is_empty();
        Times { submitted: self.submitted, elapsed: self.base.elapsed, resumed, now }
    }

    /// Number of answers to generate.
    pub(crate) fn answers(&self) -> usize {
        self.request.best_of.unwrap_or(self.request.n).max(self.request.n)
    }
}

impl Part {
    /// Number of answers of this part.
    pub(crate) fn answers(&self) -> usize {
        if self.answer.is_some() { 1 } else { self.job.answers() }
    }

    /// Builds the request for a member; the part of the answer that was already sent becomes a [`Resume`].
    pub(crate) fn request(&self, progress: &Progress, now: Duration) -> Request {
        let job = &self.job;
        let mut request = job.request.clone();
        if let Some(answer) = self.answer {
            request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(answer as u64));
            (request.n, request.best_of) = (1, None);
        }
        let waited = now.saturating_sub(job.submitted);
        let elapsed = job.base.elapsed.saturating_add(waited);
        if self.answers() == 1 {
            let resume = progress.resume(self.answer.unwrap_or(0)).elapsed(elapsed);
            if !resume.tokens.is_empty() {
                request.prompt_logprobs = None;
            }
            let needed = resume != Resume::default();
            request.resume = needed.then_some(resume);
        } else {
            // Several answers cannot be resumed together; the elapsed time is subtracted from their
            // deadlines.
            let rest = |limit: Duration| limit.saturating_sub(elapsed);
            request.timeout = request.timeout.map(rest);
            request.first_token_timeout = request.first_token_timeout.map(rest);
        }
        request
    }
}
