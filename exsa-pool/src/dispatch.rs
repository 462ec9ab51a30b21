//! Dispatcher thread: places waiting requests, enforces deadlines, drops handles.

use crate::attempt::AttemptSink;
use crate::job::{Job, Part};
use crate::place::{Need, choose};
use crate::progress::Attempt;
use crate::shared::{Outcome, Shared, State};
use exsa_core::{FinishReason, RequestError, SubmitError};
use std::sync::Arc;
use std::time::Duration;

/// Poll interval while requests wait, since members may become ready without notice.
const LOOK: Duration = Duration::from_millis(20);
/// Pause for a member whose own queue is full.
const BUSY: Duration = Duration::from_millis(20);

/// A part and the member reserved for it.
pub(crate) struct Placed {
    pub(crate) part: Part,
    pub(crate) member: u64,
    suspect: bool,
}

/// Reason why a member did not take a part.
pub(crate) enum Refusal {
    /// The request is invalid.
    Request(SubmitError),
    /// This member cannot take it now; another one may.
    Member,
}

impl State {
    /// Reserves a member for a part, if one can take it now.
    pub(crate) fn place(&mut self, part: &Part, shared: &Shared, now: Duration) -> Option<Placed> {
        let (origin, crashes, lost) = {
            let progress = part.job.progress.lock();
            (progress.origin.filter(|_| progress.has_tokens()), progress.crashes, progress.lost)
        };
        let suspect = crashes > 0;
        let need = Need { part, origin, suspect, lost, slack: shared.options.affinity_slack };
        let chosen = choose(&self.members, &need, now)?;
        let member = &mut self.members[chosen];
        member.in_flight += part.answers();
        member.suspects += usize::from(suspect);
        member.submitted += 1;
        member.breaker.begin();
        member.affinity.insert(&part.job.keys);
        let member = member.id;
        if !part.placed {
            // A quarter of the bytes: text has about four bytes per token.
            let input = part.job.keys.len().max(1) * 64;
            self.queue.charge(part, input, 0);
        }
        Some(Placed { part: part.clone(), member, suspect })
    }

    /// Returns the next waiting part and a member for it.
    fn next(&mut self, shared: &Shared, now: Duration) -> Option<Placed> {
        let mut passed = Vec::new();
        let mut found = None;
        while self.members.iter().any(|member| member.takes(1, now)) {
            let Some(part) = self.queue.choose(now) else { break };
            if let Some(placed) = self.place(&part, shared, now) {
                self.queue.pop(now);
                found = Some(placed);
                break;
            }
            // No member can take it now; it must not block others that have a member.
            passed.extend(self.queue.remove(part.id));
        }
        for part in passed {
            self.queue.push(part, now);
        }
        found
    }
}

impl Shared {
    /// Submits a part to its reserved member.
    pub(crate) fn start(self: &Arc<Self>, placed: Placed) -> Result<(), (Part, Refusal)> {
        let Placed { mut part, member, suspect } = placed;
        let now = self.now();
        let number = self.number();
        let generator = {
            let state = self.state.lock();
            let found = state.members.iter().find(|other| other.id == member);
            found.map(|found| found.member.generator.clone())
        };
        let attempt = Attempt {
            number,
            part: part.id,
            member,
            answer: part.answer,
            handle: None,
            began: false,
            submitted: now,
        };
        let Some(generator) = generator else {
            return Err((part, Refusal::Member));
        };
        let terms = generator.continuation(part.job.request.model.as_deref());
        let request = part.request(&part.job.progress.lock(), now);
        let stream = match generator.submit(request) {
            Ok(stream) => stream,
            Err(error) => {
                self.release(attempt, part.answers(), Outcome::Neutral, suspect);
                let refusal = self.refused(&mut part, member, error);
                return Err((part, refusal));
            }
        };
        let mut progress = part.job.progress.lock();
        if progress.stream.is_none() {
            drop(progress);
            self.release(attempt, part.answers(), Outcome::Neutral, suspect);
            return Ok(());
        }
        progress.dispatched.get_or_insert(now);
        match progress.origin.filter(|_| progress.has_tokens()) {
            None => progress.origin = Some(terms),
            Some(origin) => {
                let continued = origin.with(&terms);
                progress.continued =
                    Some(progress.continued.map_or(continued, |so_far| so_far.min(continued)));
            }
        }
        progress.attempts.push(attempt);
        drop(progress);
        let sink = AttemptSink { shared: self.clone(), part: part.clone(), number, tokens: 0 };
        let handle = Arc::new(stream.pipe(Box::new(sink)));
        let mut progress = part.job.progress.lock();
        let drained = std::mem::take(&mut progress.drained);
        let cancelled = progress.cancelled;
        let current = progress.attempts.iter_mut().find(|attempt| attempt.number == number);
        let is_current = current.map(|attempt| attempt.handle = Some(handle.clone())).is_some();
        drop(progress);
        if cancelled || !is_current {
            handle.cancel();
        } else if drained {
            handle.drained();
        }
        Ok(())
    }

    /// Classifies a member's refusal of a part.
    fn refused(&self, part: &mut Part, member: u64, error: SubmitError) -> Refusal {
        let now = self.now();
        let mut state = self.state.lock();
        let found = state.members.iter_mut().find(|other| other.id == member);
        match &error {
            SubmitError::QueueFull { .. } => {
                if let Some(found) = found {
                    found.busy_until = now + BUSY;
                }
            }
            SubmitError::ShuttingDown
            | SubmitError::ModelLoading { .. }
            | SubmitError::ModelUnloaded { .. }
            | SubmitError::ModelFailed { .. }
            | SubmitError::NoActiveModel { .. }
            | SubmitError::Generator(_) => {
                if let Some(found) = found {
                    found.breaker.failure(now, &self.options.breaker);
                    found.busy_until = now + BUSY;
                }
            }
            SubmitError::Unsupported { .. } | SubmitError::UnknownModel { .. } => {
                part.excluded.push(member);
                let model = part.job.request.model.as_deref();
                let other = |other: &crate::member::MemberState| {
                    other.has(model) && !part.excluded.contains(&other.id)
                };
                if !state.members.iter().any(other) {
                    return Refusal::Request(error);
                }
            }
            _ => return Refusal::Request(error),
        }
        Refusal::Member
    }

    /// Submits a part that has waited.
    fn start_waiting(self: &Arc<Self>, placed: Placed) {
        let job = placed.part.job.clone();
        {
            let mut progress = job.progress.lock();
            progress.waiting = progress.waiting.saturating_sub(1);
        }
        match self.start(placed) {
            Ok(()) => {}
            Err((mut part, Refusal::Member)) => {
                part.placed = true;
                job.progress.lock().waiting += 1;
                self.state.lock().queue.push(part, self.now());
            }
            Err((_, Refusal::Request(error))) => {
                let error = RequestError::Generator(format!("refused after waiting: {error}"));
                self.end(&job, FinishReason::Failed(error));
            }
        }
    }

    /// Runs the dispatcher thread.
    pub(crate) fn run(self: &Arc<Self>) {
        loop {
            let now = self.now();
            let mut state = self.state.lock();
            if state.stopped {
                let rest = std::mem::take(&mut state.retired);
                drop(state);
                drop(rest);
                return;
            }
            state.changed = false;
            let retired = std::mem::take(&mut state.retired);
            let expired: Vec<_> = state.queue.iter().filter_map(|part| expiry(&part.job, now)).collect();
            let hopeless = state.hopeless();
            let placed = state.next(self, now);
            let hedges = self.hedges(&mut state, now);
            drop(state);
            drop(retired);
            let worked =
                !expired.is_empty() || !hopeless.is_empty() || placed.is_some() || !hedges.is_empty();
            for (job, reason) in expired.into_iter().chain(hopeless) {
                self.end(&job, reason);
            }
            placed.into_iter().chain(hedges).for_each(|placed| self.start_waiting(placed));
            if worked {
                continue;
            }
            let mut state = self.state.lock();
            if !state.changed && !state.stopped && state.retired.is_empty() {
                let waits = state.queue.len() > 0;
                let hedging = self.options.hedge_after.is_some() && !state.running.is_empty();
                if waits || hedging {
                    self.wake.wait_for(&mut state, LOOK);
                } else {
                    self.wake.wait(&mut state);
                }
            }
        }
    }

    /// Returns placements on a second member for requests that have waited too long for their first token.
    fn hedges(&self, state: &mut State, now: Duration) -> Vec<Placed> {
        let Some(after) = self.options.hedge_after else { return Vec::new() };
        let mut parts = Vec::new();
        for job in &state.running {
            let progress = job.progress.lock();
            if let [attempt] = progress.attempts.as_slice()
                && !attempt.began
                && progress.waiting == 0
                && now.saturating_sub(attempt.submitted) >= after
            {
                let (id, answer, excluded) = (attempt.part, attempt.answer, vec![attempt.member]);
                parts.push(Part { id, job: job.clone(), answer, excluded, placed: true });
            }
        }
        parts.into_iter().filter_map(|part| state.place(&part, self, now)).collect()
    }
}

/// Returns the request of a waiting part if its deadline has passed.
fn expiry(job: &Arc<Job>, now: Duration) -> Option<(Arc<Job>, FinishReason)> {
    if job.deadline.is_some_and(|deadline| now >= deadline) {
        return Some((job.clone(), FinishReason::Deadline));
    }
    let is_late = job.first_token_by.is_some_and(|limit| now >= limit) && !job.progress.lock().has_tokens();
    is_late.then(|| (job.clone(), FinishReason::FirstTokenTimeout))
}
