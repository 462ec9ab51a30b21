//! Operations of callers.

use super::instance::Instance;
use super::{Action, InstanceId, Lifecycle, Rest, WaiterId};
use crate::registry::error::RegistryError;
use std::sync::Arc;
use std::time::Duration;

impl<H: Clone> Lifecycle<H> {
    /// Loads a model, or joins its load. No effect on a ready model.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`], [`RegistryError::ShuttingDown`].
    pub fn load(&mut self, model: &str, now: Duration) -> Result<WaiterId, RegistryError> {
        self.check_open()?;
        let name = self.resolve(model)?;
        let waiter = self.waiter();
        let Some(entry) = self.models.get(&name) else { return Ok(waiter) };
        match (entry.current, entry.pending) {
            (Some(_), _) => self.answer(waiter, Ok(None)),
            (None, Some(pending)) => self.join(pending, waiter),
            (None, None) => {
                let id = self.begin_load(&name, now);
                self.join(id, waiter);
            }
        }
        self.show(now);
        Ok(waiter)
    }

    /// Like [`load`](Self::load), for a sleeping model.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Self::load), and [`RegistryError::State`] for an unloaded or failed model.
    pub fn wake(&mut self, model: &str, now: Duration) -> Result<WaiterId, RegistryError> {
        let name = self.resolve(model)?;
        let has_instance = self.models.get(&name).is_some_and(|entry| {
            entry.current.or(entry.pending).is_some() || matches!(entry.rest, Rest::Sleeping)
        });
        if !has_instance {
            return Err(self.wrong_state("wake", &name, "sleeping"));
        }
        self.load(&name, now)
    }

    /// Loads a ready model again, or joins its reload. The old instance then drains,
    /// and is aborted after `grace`.
    ///
    /// # Errors
    ///
    /// [`RegistryError::State`] if the model is not ready, and those of [`load`](Self::load).
    pub fn reload(
        &mut self,
        model: &str,
        grace: Option<Duration>,
        now: Duration,
    ) -> Result<WaiterId, RegistryError> {
        self.check_open()?;
        let name = self.resolve(model)?;
        let (current, pending) = self.models.get(&name).map_or((None, None), |e| (e.current, e.pending));
        let joined = pending.filter(|id| self.instances.get(id).is_some_and(|i| i.is_reload));
        if current.is_none() && joined.is_none() {
            return Err(self.wrong_state("reload", &name, "ready"));
        }
        let waiter = self.waiter();
        let id = joined.unwrap_or_else(|| {
            let id = self.begin_load(&name, now);
            if let Some(instance) = self.instances.get_mut(&id) {
                (instance.is_reload, instance.grace) = (true, grace);
            }
            id
        });
        self.join(id, waiter);
        self.show(now);
        Ok(waiter)
    }

    /// Unloads a model: a load is cancelled, and a ready instance drains and is aborted after `grace`; `None`
    /// waits for all its requests. A shorter `grace` than that of an earlier call replaces it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`].
    pub fn unload(
        &mut self,
        model: &str,
        grace: Option<Duration>,
        now: Duration,
    ) -> Result<WaiterId, RegistryError> {
        let name = self.resolve(model)?;
        if self.chosen.as_ref() == Some(&name) {
            self.chosen = None;
        }
        Ok(self.take_down(&name, Rest::Unloaded, grace, now))
    }

    /// Puts a ready model to sleep: its memory is freed, and the next request wakes it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::State`] if the model is neither ready nor asleep.
    pub fn sleep(
        &mut self,
        model: &str,
        grace: Option<Duration>,
        now: Duration,
    ) -> Result<WaiterId, RegistryError> {
        let name = self.resolve(model)?;
        let can_sleep = self.models.get(&name).is_some_and(|entry| {
            entry.current.is_some() || entry.pending.is_none() && matches!(entry.rest, Rest::Sleeping)
        });
        if !can_sleep {
            return Err(self.wrong_state("put to sleep", &name, "ready"));
        }
        Ok(self.take_down(&name, Rest::Sleeping, grace, now))
    }

    /// Cancels the load or reload of a model. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`].
    pub fn cancel_load(&mut self, model: &str, now: Duration) -> Result<bool, RegistryError> {
        let name = self.resolve(model)?;
        let cancelled = self.cancel_pending(&name, now);
        self.start_waiting(now);
        self.show(now);
        Ok(cancelled)
    }

    /// Makes a ready model the active one.
    ///
    /// # Errors
    ///
    /// [`RegistryError::State`] if it is not ready.
    pub fn set_active(&mut self, model: &str, now: Duration) -> Result<(), RegistryError> {
        let name = self.resolve(model)?;
        if self.models.get(&name).is_none_or(|entry| entry.current.is_none()) {
            return Err(self.wrong_state("activate", &name, "ready"));
        }
        self.chosen = Some(name);
        self.show(now);
        Ok(())
    }

    /// Takes down all models and refuses all further requests and operations. Can be called again with a
    /// shorter `grace`.
    pub fn close(&mut self, grace: Option<Duration>, now: Duration) {
        self.closed = true;
        let names: Vec<_> = self.models.keys().cloned().collect();
        for name in names {
            if self.instances.values().any(|instance| instance.model == name) {
                // This answer has no receiver.
                self.take_down(&name, Rest::Unloaded, grace, now);
            }
        }
        self.show(now);
    }

    pub(super) fn begin_load(&mut self, name: &Arc<str>, now: Duration) -> InstanceId {
        self.instances_made += 1;
        let id = InstanceId(self.instances_made);
        self.instances.insert(id, Instance::new(name.clone(), now));
        if let Some(entry) = self.models.get_mut(name) {
            entry.pending = Some(id);
        }
        self.actions.push(Action::Estimate(id, name.clone()));
        id
    }

    pub(super) fn join(&mut self, id: InstanceId, waiter: WaiterId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.waiters.push(waiter);
        }
    }

    /// Takes a model down to `rest`; the waiter is answered once its memory is free.
    pub(super) fn take_down(
        &mut self,
        name: &Arc<str>,
        rest: Rest,
        grace: Option<Duration>,
        now: Duration,
    ) -> WaiterId {
        let waiter = self.waiter();
        self.cancel_pending(name, now);
        self.leave_current(name, rest, grace, now);
        let leaving: Vec<_> = self.leaving(name).collect();
        leaving.iter().for_each(|id| self.shorten(*id, grace, now));
        if let Some(entry) = self.models.get_mut(name) {
            entry.unload_waiters.push(waiter);
        }
        self.answer_unloaded(name);
        self.start_waiting(now);
        self.show(now);
        waiter
    }

    /// Answers the operations that wait for a model's memory, once no instance of it is leaving.
    pub(super) fn answer_unloaded(&mut self, name: &Arc<str>) {
        let nothing_leaves = self.leaving(name).next().is_none();
        if let Some(entry) = self.models.get_mut(name).filter(|_| nothing_leaves) {
            let waiters = std::mem::take(&mut entry.unload_waiters);
            waiters.into_iter().for_each(|waiter| self.answer(waiter, Ok(None)));
        }
    }
}
