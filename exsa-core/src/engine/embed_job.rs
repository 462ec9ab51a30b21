//! Queue of embedding and rerank requests, scheduled text by text.

use crate::embed::{EmbedError, EmbedOutput, PendingSender, RerankOutput};
use crate::finish::{RequestError, Usage};
use crate::priority::Priority;
use crate::token::{RequestId, TokenId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Receiver of the output, by kind of request.
pub(crate) enum Reply {
    Vectors { to: PendingSender<EmbedOutput>, normalize: bool, dimensions: Option<usize> },
    Scores(PendingSender<RerankOutput>),
}

/// An embedding or rerank request.
pub(crate) struct EmbedJob {
    pub(crate) id: RequestId,
    pub(crate) texts: Vec<Vec<TokenId>>,
    pub(crate) reply: Reply,
    pub(crate) priority: Priority,
    pub(crate) user: Arc<str>,
    pub(crate) submitted: Duration,
    pub(crate) deadline: Option<Duration>,
    /// Time at which the first text entered a pass.
    pub(crate) started: Option<Duration>,
    /// Indices of the texts that are neither in a pass nor complete, in order.
    waiting: VecDeque<usize>,
    results: Vec<Option<Result<Vec<f32>, RequestError>>>,
    missing: usize,
}

impl EmbedJob {
    pub(crate) fn new(
        id: RequestId,
        texts: Vec<Vec<TokenId>>,
        reply: Reply,
        priority: Priority,
        user: Arc<str>,
        submitted: Duration,
        timeout: Option<Duration>,
    ) -> Self {
        Self {
            id,
            waiting: (0..texts.len()).collect(),
            results: vec![None; texts.len()],
            missing: texts.len(),
            texts,
            reply,
            priority,
            user,
            submitted,
            deadline: timeout.map(|timeout| submitted.saturating_add(timeout)),
            started: None,
        }
    }

    /// Whether no text has a result.
    pub(crate) fn all_failed(&self) -> bool {
        self.results.iter().all(|result| !matches!(result, Some(Ok(_))))
    }

    /// Sends the output, which must be complete.
    pub(crate) fn finish(self, now: Duration) {
        let usage = Usage::new(self.texts.iter().map(Vec::len).sum(), 0)
            .queue_time(self.started.map(|at| at.saturating_sub(self.submitted)))
            .total_time(now.saturating_sub(self.submitted));
        let results =
            self.results.into_iter().map(|result| result.unwrap_or(Err(RequestError::EngineStopped)));
        match self.reply {
            Reply::Scores(to) => {
                let score = |values: Vec<f32>| values.first().copied().unwrap_or_default();
                to.send(Ok(RerankOutput::new(results.map(|result| result.map(score)), usage)));
            }
            Reply::Vectors { to, normalize, dimensions } => {
                let mut vectors: Vec<_> = results.collect();
                if let Some(asked) = dimensions {
                    let short = vectors.iter().flatten().map(Vec::len).find(|width| *width < asked);
                    if let Some(width) = short {
                        return to.send(Err(EmbedError::Dimensions { asked, width }));
                    }
                    vectors.iter_mut().flatten().for_each(|vector| vector.truncate(asked));
                }
                if normalize {
                    vectors.iter_mut().flatten().for_each(|vector| normalise(vector));
                }
                to.send(Ok(EmbedOutput::new(vectors, usage)));
            }
        }
    }

    /// Ends the request without an output.
    pub(crate) fn fail(self, error: EmbedError) {
        match self.reply {
            Reply::Scores(to) => to.send(Err(error)),
            Reply::Vectors { to, .. } => to.send(Err(error)),
        }
    }
}

/// Normalizes to length 1; a zero vector stays zero.
fn normalise(vector: &mut [f32]) {
    let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

/// Incomplete embedding and rerank requests.
///
/// More urgent classes go first, but after [`OVERTAKEN_MAX`] texts the oldest request of another class gets a
/// turn. Within a class, requests alternate text by text (round robin), so that a long list does not delay a
/// short one.
#[derive(Default)]
pub(crate) struct EmbedQueue {
    jobs: HashMap<RequestId, EmbedJob>,
    /// Requests with waiting texts, by class.
    turns: [VecDeque<RequestId>; Priority::COUNT],
    /// Texts taken ahead of less urgent classes since their last turn.
    overtaken: usize,
    /// Time since which the next text has been waiting for a sequence and KV.
    pub(crate) blocked_since: Option<Duration>,
}

/// Maximum texts in a row ahead of a waiting less urgent class.
const OVERTAKEN_MAX: usize = 16;

/// A text of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextId {
    pub(crate) job: RequestId,
    pub(crate) index: usize,
}

impl EmbedQueue {
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(crate) fn push(&mut self, job: EmbedJob) {
        self.turns[job.priority.index()].push_back(job.id);
        self.jobs.insert(job.id, job);
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<EmbedJob> {
        let job = self.jobs.remove(&id)?;
        self.turns[job.priority.index()].retain(|other| *other != id);
        Some(job)
    }

    /// Takes all requests, in order of arrival.
    pub(crate) fn drain(&mut self) -> Vec<EmbedJob> {
        let mut jobs: Vec<_> = self.jobs.drain().map(|(_, job)| job).collect();
        self.turns.iter_mut().for_each(VecDeque::clear);
        jobs.sort_unstable_by_key(|job| job.id);
        jobs
    }

    /// Requests whose deadline has passed.
    pub(crate) fn expired(&self, now: Duration) -> Vec<RequestId> {
        let expired = |job: &&EmbedJob| job.deadline.is_some_and(|deadline| deadline <= now);
        let mut ids: Vec<_> = self.jobs.values().filter(expired).map(|job| job.id).collect();
        ids.sort_unstable();
        ids
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.jobs.values().filter_map(|job| job.deadline).min()
    }

    pub(crate) fn deadline(&self, id: RequestId) -> Option<Duration> {
        self.jobs.get(&id)?.deadline
    }

    pub(crate) fn tokens(&self, text: TextId) -> &[TokenId] {
        self.jobs.get(&text.job).map_or(&[], |job| &job.texts[text.index])
    }

    /// The next text.
    pub(crate) fn next(&self) -> Option<TextId> {
        let job = self.jobs.get(self.turns[self.class()?].front()?)?;
        Some(TextId { job: job.id, index: *job.waiting.front()? })
    }

    /// The class of the next text.
    fn class(&self) -> Option<usize> {
        let mut waiting = (0..Priority::COUNT).filter(|class| !self.turns[*class].is_empty());
        let first = waiting.next()?;
        let oldest = waiting.min_by_key(|class| self.turns[*class].front().copied());
        Some(oldest.filter(|_| self.overtaken >= OVERTAKEN_MAX).unwrap_or(first))
    }

    /// Takes the [next](Self::next) text into a pass. Returns
    /// its request if this is the request's first text.
    pub(crate) fn take(&mut self, now: Duration) -> Option<&EmbedJob> {
        let class = self.class()?;
        let others_wait = self.turns.iter().skip(class + 1).any(|turns| !turns.is_empty());
        self.overtaken = if others_wait { self.overtaken + 1 } else { 0 };
        let turns = &mut self.turns[class];
        let id = turns.pop_front()?;
        let job = self.jobs.get_mut(&id)?;
        job.waiting.pop_front();
        if !job.waiting.is_empty() {
            turns.push_back(id);
        }
        if job.started.is_some() {
            return None;
        }
        job.started = Some(now);
        Some(job)
    }

    /// Returns a text whose pass gave no result.
    pub(crate) fn put_back(&mut self, text: TextId) {
        let Some(job) = self.jobs.get_mut(&text.job) else { return };
        if job.waiting.is_empty() {
            self.turns[job.priority.index()].push_front(text.job);
        }
        job.waiting.push_front(text.index);
    }

    /// Records the result of a text. Returns the request if that was the last missing result.
    pub(crate) fn done(&mut self, text: TextId, result: Result<&[f32], RequestError>) -> Option<EmbedJob> {
        let job = self.jobs.get_mut(&text.job)?;
        let result = result.and_then(|values| {
            let name = if matches!(job.reply, Reply::Scores(_)) { "score" } else { "vector" };
            match values.iter().position(|value| !value.is_finite()) {
                Some(index) => Err(RequestError::NotFinite { result: name, index, value: values[index] }),
                None => Ok(values.to_vec()),
            }
        });
        job.results[text.index] = Some(result);
        job.missing -= 1;
        if job.missing == 0 { self.remove(text.job) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::pending;

    fn job(id: u64, texts: usize, priority: Priority) -> EmbedJob {
        let (to, _) = pending(|| {});
        let reply = Reply::Vectors { to, normalize: false, dimensions: None };
        let (texts, user) = (vec![vec![1]; texts], Arc::from(""));
        EmbedJob::new(RequestId(id), texts, reply, priority, user, Duration::ZERO, None)
    }

    /// Takes `n` texts.
    fn take(queue: &mut EmbedQueue, n: usize) -> Vec<(u64, usize)> {
        let mut taken = Vec::new();
        while let Some(text) = queue.next().filter(|_| taken.len() < n) {
            queue.take(Duration::ZERO);
            taken.push((text.job.0, text.index));
        }
        taken
    }

    #[test]
    fn requests_of_a_class_take_turns() {
        let mut queue = EmbedQueue::default();
        queue.push(job(1, 3, Priority::Normal));
        queue.push(job(2, 2, Priority::Normal));
        queue.push(job(3, 1, Priority::Interactive));
        assert_eq!(take(&mut queue, 9), [(3, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, 2)]);
        let text = |index| TextId { job: RequestId(1), index };
        queue.put_back(text(2));
        queue.put_back(text(1));
        assert_eq!(take(&mut queue, 9), [(1, 1), (1, 2)]);
    }

    #[test]
    fn a_less_urgent_class_is_overtaken_by_so_many_texts() {
        let mut queue = EmbedQueue::default();
        queue.push(job(1, 2, Priority::Batch));
        queue.push(job(2, 2, Priority::Normal));
        queue.push(job(3, 100, Priority::Interactive));
        let taken = take(&mut queue, 60);
        for (request, turns) in [(1, 2), (2, 1)] {
            assert_eq!(taken.iter().filter(|(id, _)| *id == request).count(), turns, "{taken:?}");
        }
    }

    #[test]
    fn a_result_is_complete_with_its_last_text() {
        let mut queue = EmbedQueue::default();
        queue.push(job(1, 2, Priority::Normal));
        take(&mut queue, 2);
        let text = |index| TextId { job: RequestId(1), index };
        assert!(queue.done(text(1), Ok(&[1.0, f32::NAN])).is_none());
        let job = queue.done(text(0), Ok(&[3.0, 4.0])).expect("all texts have a result");
        assert!(queue.is_empty() && queue.done(text(0), Ok(&[0.0])).is_none());
        assert!(matches!(job.results[1], Some(Err(RequestError::NotFinite { index: 1, .. }))));
        assert_eq!(job.results[0], Some(Ok(vec![3.0, 4.0])));
    }
}
