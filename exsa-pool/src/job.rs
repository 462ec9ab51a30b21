//! A request in a pool, and the parts of it that are placed.

use crate::progress::{Progress, Times};
use exsa_core::priority::UserId;
use exsa_core::{Request, Resume};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A request of a consumer.
pub(crate) struct Job {
    /// The request with its seed, and without its `resume`.
    pub(crate) request: Request,
    /// The answer generated before the pool saw the request.
    pub(crate) base: Resume,
    /// Number of the request; the order of arrival.
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

/// A request, or one of its answers, that is placed as a whole.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) id: u64,
    pub(crate) job: Arc<Job>,
    /// The answer, if the others are computed elsewhere.
    pub(crate) answer: Option<usize>,
    /// Members that cannot compute it.
    pub(crate) excluded: Vec<u64>,
    /// Whether it was placed before, so that its prompt was charged.
    pub(crate) placed: bool,
}

impl Job {
    pub(crate) fn times(&self, now: Duration) -> Times {
        let resumed = !self.base.tokens.is_empty();
        Times { submitted: self.submitted, elapsed: self.base.elapsed, resumed, now }
    }

    /// Number of answers that are generated.
    pub(crate) fn answers(&self) -> usize {
        self.request.best_of.unwrap_or(self.request.n).max(self.request.n)
    }
}

impl Part {
    /// Number of answers that it generates.
    pub(crate) fn answers(&self) -> usize {
        if self.answer.is_some() { 1 } else { self.job.answers() }
    }

    /// The request for a member: what was sent of the answer comes back as [`Resume`].
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
            // Several answers cannot be resumed together; what they waited is taken off their limits.
            let rest = |limit: Duration| limit.saturating_sub(elapsed);
            request.timeout = request.timeout.map(rest);
            request.first_token_timeout = request.first_token_timeout.map(rest);
        }
        request
    }
}
