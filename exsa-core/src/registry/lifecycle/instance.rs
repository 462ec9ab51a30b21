//! One load of a model, from its estimate to its end.

use super::{Action, InstanceId, Lifecycle, Rest, WaiterId};
use crate::backend::MemoryEstimate;
use crate::engine::Shutdown;
use crate::registry::error::RegistryError;
use crate::registry::event::RegistryEvent;
use crate::registry::state::ReloadOrder;
use std::sync::Arc;
use std::time::Duration;

/// One load of a model, from its estimate until its memory is free.
#[derive(Debug)]
pub(super) struct Instance<H> {
    pub model: Arc<str>,
    pub phase: Phase<H>,
    /// Estimated memory; `None` until the estimate is complete.
    pub memory: Option<MemoryEstimate>,
    /// Bytes of its adapters.
    pub adapters: u64,
    /// Bytes of adapters that wait until leaving instances have released their memory.
    pub adapters_committed: u64,
    /// Callers that wait for the load.
    pub waiters: Vec<WaiterId>,
    pub is_reload: bool,
    /// Order of the reload; `None` before it is decided.
    pub order: Option<ReloadOrder>,
    /// Grace of a reload for the requests of the old instance.
    pub grace: Option<Duration>,
    /// Start of the load.
    pub started: Duration,
    /// Bytes loaded, and total bytes.
    pub progress: (u64, u64),
    /// Requests that have not ended.
    pub in_flight: usize,
    /// Number of `in_flight` requests that are still being submitted.
    pub submitting: usize,
    /// Start or end of the last request.
    pub last_used: Duration,
    /// Override of the model's idle timeout; the inner `None` means unlimited.
    pub keep_alive: Option<Option<Duration>>,
}

/// Phase of an instance.
#[derive(Debug)]
pub(super) enum Phase<H> {
    Estimating,
    /// Admitted; waits until leaving instances have released their memory.
    Waiting,
    Loading,
    Ready(H),
    Leaving(Leaving<H>),
}

/// State of a leaving instance.
#[derive(Debug)]
pub(super) struct Leaving<H> {
    /// The engine, until an [`Action::Unload`] takes it.
    pub handle: Option<H>,
    /// Whether it is a cancelled estimate or load that has not ended yet.
    pub cancelled: bool,
    /// Time at which remaining requests are aborted.
    pub abort_at: Option<Duration>,
    pub aborted: bool,
}

impl<H> Phase<H> {
    pub fn is_loading(&self) -> bool {
        matches!(self, Self::Loading)
    }
}

impl<H> Instance<H> {
    pub fn new(model: Arc<str>, now: Duration) -> Self {
        Self {
            model,
            phase: Phase::Estimating,
            memory: None,
            adapters: 0,
            adapters_committed: 0,
            waiters: Vec::new(),
            is_reload: false,
            order: None,
            grace: None,
            started: now,
            progress: (0, 0),
            in_flight: 0,
            submitting: 0,
            last_used: now,
            keep_alive: None,
        }
    }

    /// Bytes of model and session, without adapters.
    pub fn bytes(&self) -> u64 {
        self.memory.map_or(0, |memory| memory.total())
    }

    /// Bytes with its adapters.
    pub fn held_bytes(&self) -> u64 {
        self.bytes().saturating_add(self.adapters)
    }

    /// Bytes with its adapters, including those that wait for memory.
    pub fn committed_bytes(&self) -> u64 {
        self.held_bytes().saturating_add(self.adapters_committed)
    }

    /// The engine of a ready instance.
    pub fn handle(&self) -> Option<&H> {
        if let Phase::Ready(handle) = &self.phase { Some(handle) } else { None }
    }

    pub fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_))
    }

    /// Time at which the instance is to be aborted, unless that has happened.
    pub fn abort_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Leaving(leaving) if !leaving.aborted && !leaving.cancelled => leaving.abort_at,
            _ => None,
        }
    }
}

impl<H: Clone> Lifecycle<H> {
    /// Makes an instance leave; an instance that was only waiting for memory is gone at once.
    pub(super) fn leave(&mut self, id: InstanceId, grace: Option<Duration>, now: Duration) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let abort_at = grace.map(|grace| now.saturating_add(grace));
        let leaving =
            |handle, cancelled| Phase::Leaving(Leaving { handle, cancelled, abort_at, aborted: false });
        match std::mem::replace(&mut instance.phase, Phase::Waiting) {
            Phase::Estimating => instance.phase = leaving(None, true),
            Phase::Waiting => {
                self.instances.remove(&id);
            }
            Phase::Loading => {
                instance.phase = leaving(None, true);
                self.actions.push(Action::CancelLoad(id));
            }
            Phase::Ready(handle) => {
                instance.phase = leaving(Some(handle), false);
                self.settle(id, now);
            }
            phase @ Phase::Leaving(_) => instance.phase = phase,
        }
    }

    /// Shortens the grace of a leaving instance.
    pub(super) fn shorten(&mut self, id: InstanceId, grace: Option<Duration>, now: Duration) {
        let abort_at = grace.map(|grace| now.saturating_add(grace));
        if let Some(Instance { phase: Phase::Leaving(leaving), .. }) = self.instances.get_mut(&id) {
            leaving.abort_at = match (leaving.abort_at, abort_at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        self.settle(id, now);
    }

    /// Shuts down the engine of a leaving instance: by draining, as soon as no request is being submitted
    /// (which the engine would refuse), or by aborting, when its grace is over.
    pub(super) fn settle(&mut self, id: InstanceId, now: Duration) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let (due, settled) = (instance.abort_at().is_some_and(|at| at <= now), instance.submitting == 0);
        let Phase::Leaving(leaving) = &mut instance.phase else { return };
        if leaving.cancelled {
            return;
        }
        if due || settled && leaving.handle.is_some() {
            let action = match leaving.handle.take() {
                Some(handle) => {
                    Action::Unload(id, handle, if due { Shutdown::Abort } else { Shutdown::Drain })
                }
                None => Action::Abort(id),
            };
            leaving.aborted = due;
            self.actions.push(action);
        }
    }

    /// Makes the ready instance of a model leave, if there is one; the model then has the state `rest`.
    pub(super) fn leave_current(
        &mut self,
        name: &Arc<str>,
        rest: Rest,
        grace: Option<Duration>,
        now: Duration,
    ) {
        let Some(entry) = self.models.get_mut(name) else { return };
        entry.rest = rest;
        if let Some(id) = entry.current.take() {
            self.leave(id, grace, now);
        }
    }

    /// Cancels the pending load of a model. Returns whether there was one.
    pub(super) fn cancel_pending(&mut self, name: &Arc<str>, now: Duration) -> bool {
        let error = RegistryError::Cancelled { model: name.to_string() };
        let Some(id) = self.end_pending(name, &error) else { return false };
        self.leave(id, None, now);
        true
    }

    /// Detaches the pending instance from its model and answers all operations that wait for it with `error`.
    pub(super) fn end_pending(&mut self, name: &Arc<str>, error: &RegistryError) -> Option<InstanceId> {
        let entry = self.models.get_mut(name)?;
        let id = entry.pending.take()?;
        let kept_ready = entry.current.is_some();
        let instance = self.instances.get_mut(&id)?;
        let is_reload = instance.is_reload;
        for waiter in std::mem::take(&mut instance.waiters) {
            self.answer(waiter, Err(error.clone()));
        }
        if is_reload && kept_ready {
            self.emit(RegistryEvent::Reloaded { model: name.clone(), error: Some(error.to_string()) });
        }
        Some(id)
    }
}
