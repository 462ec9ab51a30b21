//! When requests expire, running and waiting ones alike.

use super::{RequestId, Ticket};
use std::collections::BTreeSet;
use std::time::Duration;

/// Which of a request's limits has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Limit {
    /// For the whole answer.
    Whole,
    /// For its first token.
    FirstToken,
}

#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Duration, RequestId, Limit)>);

impl Deadlines {
    pub(super) fn insert(&mut self, ticket: &Ticket) {
        self.0.extend(Self::of(ticket));
    }

    pub(super) fn remove(&mut self, ticket: &Ticket) {
        Self::of(ticket).for_each(|entry| {
            self.0.remove(&entry);
        });
    }

    /// The first token came, so its limit no longer counts.
    pub(super) fn first_token(&mut self, ticket: &Ticket) {
        if let Some(at) = ticket.first_token_by {
            self.0.remove(&(at, ticket.id, Limit::FirstToken));
        }
    }

    pub(super) fn first(&self) -> Option<Duration> {
        self.0.first().map(|(at, ..)| *at)
    }

    /// Takes a limit that has passed at `now`.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(RequestId, Limit)> {
        if self.first()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, id, limit)| (id, limit))
    }

    fn of(ticket: &Ticket) -> impl Iterator<Item = (Duration, RequestId, Limit)> {
        let first = ticket.first_token_by.filter(|_| ticket.awaits_first_token());
        let whole = ticket.deadline.map(|at| (at, ticket.id, Limit::Whole));
        whole.into_iter().chain(first.map(|at| (at, ticket.id, Limit::FirstToken)))
    }
}
