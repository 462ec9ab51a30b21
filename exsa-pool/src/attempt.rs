//! Forwards the events of an attempt to the consumer.

use crate::job::Part;
use crate::shared::{Outcome, Shared};
use exsa_core::stream::EventSink;
use exsa_core::{Event, FinishReason, RequestError};
use std::sync::Arc;

/// Generated tokens per charge to the user.
const CHARGE: usize = 16;

/// Receives the events of one attempt, on the sending thread of the member.
pub(crate) struct AttemptSink {
    pub(crate) shared: Arc<Shared>,
    pub(crate) part: Part,
    pub(crate) number: u64,
    /// Tokens not yet charged.
    pub(crate) tokens: usize,
}

impl EventSink for AttemptSink {
    fn events(&mut self, events: &mut Vec<Event>) -> bool {
        let (shared, job) = (&self.shared, &self.part.job);
        let now = shared.now();
        let mut progress = job.progress.lock();
        let Some(at) = progress.attempts.iter().position(|attempt| attempt.number == self.number) else {
            // Another attempt was faster, or the request has ended.
            events.clear();
            return true;
        };
        let finished = match events.pop() {
            Some(Event::Finished(finished)) => Some(finished),
            other => {
                events.extend(other);
                None
            }
        };
        let suspect = progress.crashes > 0;
        let lost = finished.as_ref().and_then(|finished| finished.reason.error());
        if let Some(error) = lost.filter(|error| error.is_lost_engine() && !progress.cancelled).cloned() {
            // Text released by this end is void, since the answer continues elsewhere.
            events.clear();
            let attempt = progress.attempts.swap_remove(at);
            progress.lost = Some(attempt.member);
            // An attempt that never began is not a crash.
            match error {
                RequestError::Unavailable(_) => _ = progress.unavailable_since.get_or_insert(now),
                _ => progress.crashes += 1,
            }
            drop(progress);
            shared.release(attempt, self.part.answers(), Outcome::Lost, suspect);
            shared.requeue(self.part.clone(), error);
            return true;
        }
        progress.unavailable_since = None;
        let mut slower = Vec::new();
        let begins = !std::mem::replace(&mut progress.attempts[at].began, true);
        let member = progress.attempts[at].member;
        if begins {
            let part = self.part.id;
            let number = self.number;
            slower.extend(
                progress.attempts.extract_if(.., |other| other.part == part && other.number != number),
            );
        }
        let answer = self.part.answer;
        self.tokens += progress.record(events, answer, now);
        let mut has_room = true;
        let mut ended = None;
        match finished {
            None => {
                if let Some(stream) = &progress.stream {
                    has_room = stream.send(events);
                }
            }
            Some(finished) => {
                let at = progress.attempts.iter().position(|attempt| attempt.number == self.number);
                let attempt = at.map(|at| progress.attempts.swap_remove(at));
                let failed = matches!(finished.reason, FinishReason::Failed(_));
                let outcome = match &finished.reason {
                    FinishReason::Cancelled => Outcome::Neutral,
                    _ => Outcome::Answered,
                };
                let last = progress.end(std::mem::take(events), finished, answer, &job.times(now));
                ended = Some((attempt, outcome, last, failed));
            }
        }
        drop(progress);
        if begins {
            shared.answers(member);
        }
        for attempt in slower {
            shared.release(attempt, self.part.answers(), Outcome::Neutral, suspect);
        }
        if self.tokens >= CHARGE || (ended.is_some() && self.tokens > 0) {
            shared.state.lock().queue.charge(&self.part, 0, std::mem::take(&mut self.tokens));
        }
        if let Some((attempt, outcome, last, failed)) = ended {
            if let Some(attempt) = attempt {
                shared.release(attempt, self.part.answers(), outcome, suspect);
            }
            if let Some(last) = last {
                shared.ended(job, failed);
                last.send();
            }
        }
        has_room
    }
}
