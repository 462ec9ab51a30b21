//! Deadlines of all requests, running or waiting.

use crate::schedule::sched_request::SchedRequest;
use crate::token::RequestId;
use std::collections::BTreeSet;
use std::time::Duration;

/// The kinds of time limit of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Limit {
    /// For the whole answer.
    Deadline,
    /// For its first token.
    FirstToken,
}

#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Duration, RequestId, Limit)>);

impl Deadlines {
    pub(super) fn insert(&mut self, request: &SchedRequest) {
        self.0.extend(Self::of(request));
    }

    pub(super) fn remove(&mut self, request: &SchedRequest) {
        Self::of(request).for_each(|entry| {
            self.0.remove(&entry);
        });
    }

    /// Drops the first-token limit, because the token was generated.
    pub(super) fn first_token(&mut self, request: &SchedRequest) {
        if let Some(at) = request.first_token_by {
            self.0.remove(&(at, request.id, Limit::FirstToken));
        }
    }

    pub(super) fn first(&self) -> Option<Duration> {
        self.0.first().map(|(at, ..)| *at)
    }

    /// Takes a limit that has passed by `now`.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(RequestId, Limit)> {
        if self.first()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, id, limit)| (id, limit))
    }

    fn of(request: &SchedRequest) -> impl Iterator<Item = (Duration, RequestId, Limit)> {
        let first = request.first_token_by.filter(|_| request.awaits_first_token());
        let whole = request.deadline.map(|at| (at, request.id, Limit::Deadline));
        whole.into_iter().chain(first.map(|at| (at, request.id, Limit::FirstToken)))
    }
}
