//! State shared by the threads of a pool.

use crate::job::{Job, Part};
use crate::member::MemberState;
use crate::options::PoolOptions;
use crate::progress::Attempt;
use crate::queue::Queue;
use crate::search::Missing;
use exsa_core::stream::StreamHandle;
use exsa_core::{FinishReason, RequestError};
use parking_lot::{Condvar, Mutex};
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) struct State {
    pub(crate) queue: Queue,
    pub(crate) members: Vec<MemberState>,
    /// Members that are not available yet.
    pub(crate) missing: Vec<Missing>,
    /// Handles of ended attempts, which the dispatcher drops: their streams may be locked now.
    pub(crate) retired: Vec<Arc<StreamHandle>>,
    /// Running requests, to cancel them at shutdown and to hedge them.
    pub(crate) running: Vec<Arc<Job>>,
    pub(crate) submitted: u64,
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    /// Whether further requests are refused.
    pub(crate) draining: bool,
    /// Whether the dispatcher must exit.
    pub(crate) stopped: bool,
    /// Whether something changed since the dispatcher's last round.
    pub(crate) changed: bool,
}

/// Lock order: a member's stream, [`Job::progress`], a consumer's stream; `state` alone or before `progress`.
/// Signals to members ([`StreamHandle::cancel`]) are sent without holding a lock.
pub(crate) struct Shared {
    pub(crate) options: PoolOptions,
    pub(crate) state: Mutex<State>,
    pub(crate) wake: Condvar,
    /// Wakes the searches for missing members, which [`wake`](Self::wake) would wake too often in busy pools.
    pub(crate) search: Condvar,
    pub(crate) hasher: RandomState,
    numbers: AtomicU64,
    start: Instant,
}

impl Shared {
    pub(crate) fn new(options: PoolOptions) -> Self {
        let state = State {
            queue: Queue::new(options.fair),
            members: Vec::new(),
            missing: Vec::new(),
            retired: Vec::new(),
            running: Vec::new(),
            submitted: 0,
            finished: 0,
            failed: 0,
            draining: false,
            stopped: false,
            changed: false,
        };
        Self {
            options,
            state: Mutex::new(state),
            wake: Condvar::new(),
            search: Condvar::new(),
            hasher: RandomState::new(),
            numbers: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// Returns the time since the pool was created.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns a unique number.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Wakes the dispatcher.
    pub(crate) fn notify(&self) {
        self.state.lock().changed = true;
        self.wake.notify_all();
    }

    /// Records that a member answered a request.
    pub(crate) fn answers(&self, member: u64) {
        let mut state = self.state.lock();
        if let Some(member) = state.members.iter_mut().find(|other| other.id == member) {
            member.breaker.success();
        }
    }

    /// Records the end of an attempt, which frees capacity of its member.
    pub(crate) fn release(&self, attempt: Attempt, part_answers: usize, outcome: Outcome, suspect: bool) {
        let now = self.now();
        let mut state = self.state.lock();
        state.retired.extend(attempt.handle);
        if let Some(member) = state.members.iter_mut().find(|member| member.id == attempt.member) {
            member.in_flight = member.in_flight.saturating_sub(part_answers);
            member.suspects = member.suspects.saturating_sub(usize::from(suspect));
            match outcome {
                Outcome::Answered => member.breaker.success(),
                Outcome::Neutral => member.breaker.neutral(),
                Outcome::Lost => {
                    member.breaker.failure(now, &self.options.breaker);
                    member.affinity.clear();
                    member.lost += 1;
                }
            }
        }
        state.changed = true;
        drop(state);
        self.wake.notify_all();
    }

    /// Records the end of a request.
    pub(crate) fn ended(&self, job: &Arc<Job>, failed: bool) {
        let mut state = self.state.lock();
        state.running.retain(|running| !Arc::ptr_eq(running, job));
        state.finished += 1;
        state.failed += u64::from(failed);
        state.changed = true;
        drop(state);
        self.wake.notify_all();
    }

    /// Ends a waiting or running request for the pool's own reasons.
    pub(crate) fn end(&self, job: &Arc<Job>, reason: FinishReason) {
        let failed = matches!(reason, FinishReason::Failed(_));
        drop(self.state.lock().queue.take(|part| Arc::ptr_eq(&part.job, job)));
        let mut progress = job.progress.lock();
        if progress.stream.is_none() {
            return;
        }
        progress.waiting = 0;
        let last = progress.fail(reason, &job.times(self.now()));
        let attempts = std::mem::take(&mut progress.attempts);
        let suspect = progress.crashes > 0;
        drop(progress);
        for attempt in attempts {
            let handle = attempt.handle.clone();
            let answers = if attempt.answer.is_some() { 1 } else { job.answers() };
            self.release(attempt, answers, Outcome::Neutral, suspect);
            if let Some(handle) = handle {
                handle.cancel();
                self.state.lock().retired.push(handle);
            }
        }
        self.ended(job, failed);
        if let Some(last) = last {
            last.send();
        }
    }

    /// Handles a cancellation by the consumer. A running request ends when its member answers the cancel.
    pub(crate) fn cancel(&self, job: &Arc<Job>) {
        drop(self.state.lock().queue.take(|part| Arc::ptr_eq(&part.job, job)));
        let mut progress = job.progress.lock();
        progress.cancelled = true;
        progress.waiting = 0;
        let handles: Vec<_> = progress.attempts.iter().filter_map(|attempt| attempt.handle.clone()).collect();
        let runs = !progress.attempts.is_empty();
        drop(progress);
        if runs {
            handles.iter().for_each(|handle| handle.cancel());
            self.state.lock().retired.extend(handles);
        } else {
            self.end(job, FinishReason::Cancelled);
        }
    }

    /// Requeues the open answers of a request after an attempt was lost.
    pub(crate) fn requeue(&self, part: Part, error: RequestError) {
        let job = part.job.clone();
        let mut progress = job.progress.lock();
        if progress.stream.is_none() {
            return;
        }
        if progress.cancelled {
            drop(progress);
            return self.end(&job, FinishReason::Cancelled);
        }
        if progress.attempts.iter().any(|attempt| attempt.part == part.id) {
            // Another member is also computing it.
            return;
        }
        let crashes = progress.crashes;
        if self.options.crashes_max.is_some_and(|max| crashes >= max) {
            drop(progress);
            let reason = error.to_string();
            return self.end(&job, FinishReason::Failed(RequestError::Crashed { crashes, reason }));
        }
        let too_long = |since: Duration| self.now().saturating_sub(since) >= self.options.unavailable_max;
        if progress.unknown || progress.unavailable_since.is_some_and(too_long) {
            drop(progress);
            return self.end(&job, FinishReason::Failed(error));
        }
        let parts: Vec<_> = if part.answers() > 1 && progress.has_tokens() {
            let open = progress.split();
            let of = |answer| Part { id: self.number(), answer: Some(answer), ..part.clone() };
            open.into_iter().map(of).collect()
        } else {
            vec![part]
        };
        progress.waiting += parts.len();
        drop(progress);
        let now = self.now();
        let mut state = self.state.lock();
        for mut part in parts {
            part.placed = true;
            state.queue.push(part, now);
        }
        state.changed = true;
        drop(state);
        self.wake.notify_all();
    }
}

/// Outcome of an attempt with regard to its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The member answered.
    Answered,
    /// No information: cancelled, or another attempt was faster.
    Neutral,
    /// The member was lost.
    Lost,
}
