//! State that the threads of a pool share.

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
    /// Members that are not there yet.
    pub(crate) missing: Vec<Missing>,
    /// Handles of attempts that have ended, dropped by the dispatcher: their streams may be locked now.
    pub(crate) retired: Vec<Arc<StreamHandle>>,
    /// Requests that run, to cancel them at the end and to hedge them.
    pub(crate) running: Vec<Arc<Job>>,
    pub(crate) submitted: u64,
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    /// No request is accepted any more.
    pub(crate) draining: bool,
    /// The dispatcher ends.
    pub(crate) stopped: bool,
    /// Something changed since the dispatcher looked.
    pub(crate) changed: bool,
}

/// Locks are taken in this order: a member's stream, [`Job::progress`], a consumer's stream; and `state`
/// alone or before `progress`. Signals to members ([`StreamHandle::cancel`]) are sent without a lock.
pub(crate) struct Shared {
    pub(crate) options: PoolOptions,
    pub(crate) state: Mutex<State>,
    pub(crate) wake: Condvar,
    /// Wakes the searches for missing members, which busy pools would wake too often by [`wake`](Self::wake).
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

    /// Time since the pool was made.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A number that was not given before.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes the dispatcher look.
    pub(crate) fn notify(&self) {
        self.state.lock().changed = true;
        self.wake.notify_all();
    }

    /// A member answers a request.
    pub(crate) fn answers(&self, member: u64) {
        let mut state = self.state.lock();
        if let Some(member) = state.members.iter_mut().find(|other| other.id == member) {
            member.breaker.success();
        }
    }

    /// Takes note that an attempt has ended: its member has room.
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

    /// A request has ended.
    pub(crate) fn ended(&self, job: &Arc<Job>, failed: bool) {
        let mut state = self.state.lock();
        state.running.retain(|running| !Arc::ptr_eq(running, job));
        state.finished += 1;
        state.failed += u64::from(failed);
        state.changed = true;
        drop(state);
        self.wake.notify_all();
    }

    /// Ends a request that waits or runs, for a reason of the pool's own.
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

    /// The consumer wants no more. A request that runs ends with its member's answer to the cancel.
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

    /// Puts what is open of a request back into the queue, after an attempt was lost.
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
            // Another member computes it as well.
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

/// Verdict of an attempt's end on its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered.
    Answered,
    /// Nothing: cancelled, or another attempt was faster.
    Neutral,
    /// It was lost.
    Lost,
}
