//! Members of a pool.

use crate::affinity::Affinity;
use crate::breaker::Breaker;
use exsa_core::model_info::ModelInfo;
use exsa_core::{Continuation, Continued, Generator, SubmitError};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

type Ready = Arc<dyn Fn() -> bool + Send + Sync>;
type Failed = Arc<dyn Fn() -> Option<SubmitError> + Send + Sync>;

/// A generator with its settings as a member of a [`Pool`](crate::Pool).
#[derive(Clone)]
pub struct Member {
    pub(crate) name: String,
    pub(crate) generator: Arc<dyn Generator>,
    pub(crate) in_flight_max: usize,
    pub(crate) ready: Option<Ready>,
    pub(crate) failed: Option<Failed>,
}

impl Member {
    /// Creates a member; the name must be unique in the pool.
    pub fn new(name: impl Into<String>, generator: Arc<dyn Generator>) -> Self {
        Self { name: name.into(), generator, in_flight_max: usize::MAX, ready: None, failed: None }
    }

    /// Sets the maximum number of concurrent answers of the member; no limit by default. The rest wait in the
    /// pool's queue, where classes and fair shares apply across all members. Best is slightly more than the
    /// member can compute at once.
    #[must_use]
    pub fn in_flight_max(mut self, answers: usize) -> Self {
        self.in_flight_max = answers.max(1);
        self
    }

    /// Sets a function that returns whether the member accepts requests. It must not block;
    /// [`Pool::wake`](crate::Pool::wake) announces a change.
    #[must_use]
    pub fn ready(mut self, ready: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.ready = Some(Arc::new(ready));
        self
    }

    /// Sets a function that returns the error of a member that was given up: it accepts no requests and will
    /// not recover by itself. Once all members that could compute a request were given up, the request fails
    /// with the error of the first, instead of waiting. `None` for a member that is ready or may become
    /// ready. It must not block; [`Pool::wake`](crate::Pool::wake) announces a change.
    #[must_use]
    pub fn failed(mut self, failed: impl Fn() -> Option<SubmitError> + Send + Sync + 'static) -> Self {
        self.failed = Some(Arc::new(failed));
        self
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("name", &self.name)
            .field("in_flight_max", &self.in_flight_max)
            .finish_non_exhaustive()
    }
}

/// State of a member: [`Pool::members`](crate::Pool::members).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// The member's name.
    pub name: String,
    /// Names of its models.
    pub models: Vec<String>,
    /// Whether it accepts requests.
    pub ready: bool,
    /// The reason why it was given up.
    pub failed: Option<String>,
    /// Whether it is not available yet ([`Pool::add_later`](crate::Pool::add_later)).
    pub missing: bool,
    /// Whether it accepts no more requests while its requests finish.
    pub draining: bool,
    /// Whether its circuit breaker is open.
    pub breaker_open: bool,
    /// Answers that it computes or queues.
    pub in_flight: usize,
    /// Requests submitted to it.
    pub submitted: u64,
    /// Requests that were lost on it.
    pub lost: u64,
}

impl MemberStatus {
    /// Status of a member that is not available yet.
    pub(crate) fn missing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            models: Vec::new(),
            ready: false,
            failed: None,
            missing: true,
            draining: false,
            breaker_open: false,
            in_flight: 0,
            submitted: 0,
            lost: 0,
        }
    }
}

/// Runtime state of a member.
pub(crate) struct MemberState {
    pub(crate) id: u64,
    pub(crate) member: Member,
    /// The last known models; a member that is down keeps them.
    pub(crate) models: Vec<Arc<ModelInfo>>,
    pub(crate) breaker: Breaker,
    pub(crate) affinity: Affinity,
    pub(crate) in_flight: usize,
    /// Requests in flight that were running in a crash.
    pub(crate) suspects: usize,
    pub(crate) draining: bool,
    /// Another member has taken its name: it is removed once its requests have ended.
    pub(crate) replaced: bool,
    /// Its own queue was full: no requests before this time.
    pub(crate) busy_until: Duration,
    pub(crate) submitted: u64,
    pub(crate) lost: u64,
}

impl MemberState {
    pub(crate) fn new(id: u64, member: Member, models: Vec<Arc<ModelInfo>>) -> Self {
        Self {
            id,
            member,
            models,
            breaker: Breaker::default(),
            affinity: Affinity::default(),
            in_flight: 0,
            suspects: 0,
            draining: false,
            replaced: false,
            busy_until: Duration::ZERO,
            submitted: 0,
            lost: 0,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        !self.draining && self.member.ready.as_ref().is_none_or(|ready| ready())
    }

    /// Returns the error of a member that was given up.
    pub(crate) fn failure(&self) -> Option<SubmitError> {
        self.member.failed.as_ref().and_then(|failed| failed())
    }

    /// Returns whether it can continue an answer that was begun on the terms `origin`.
    pub(crate) fn continues(&self, origin: Option<Continuation>, model: Option<&str>) -> bool {
        origin.is_none_or(|origin| {
            origin.with(&self.member.generator.continuation(model)) != Continued::Refused
        })
    }

    /// Returns whether it accepts `answers` more now. An idle member accepts any number.
    pub(crate) fn takes(&self, answers: usize, now: Duration) -> bool {
        let has_room =
            self.in_flight == 0 || self.in_flight.saturating_add(answers) <= self.member.in_flight_max;
        has_room && now >= self.busy_until && self.breaker.allows(now) && self.is_ready()
    }

    /// Returns whether it has the model; true if the request names none.
    pub(crate) fn has(&self, model: Option<&str>) -> bool {
        model.is_none_or(|name| self.models.iter().any(|model| model.name == name))
    }

    pub(crate) fn status(&self) -> MemberStatus {
        MemberStatus {
            name: self.member.name.clone(),
            models: self.models.iter().map(|model| model.name.clone()).collect(),
            ready: self.is_ready(),
            failed: self.failure().map(|error| error.to_string()),
            missing: false,
            draining: self.draining,
            breaker_open: self.breaker.is_open(),
            in_flight: self.in_flight,
            submitted: self.submitted,
            lost: self.lost,
        }
    }
}
