//! Public view of the state of models.

use super::instance::{Instance, Phase};
use super::{InstanceId, Lifecycle, Rest, Status};
use crate::registry::error::RegistryError;
use crate::registry::event::RegistryEvent;
use crate::registry::state::{LoadingState, ModelState};
use std::sync::Arc;
use std::time::Duration;

impl<H: Clone> Lifecycle<H> {
    /// The model that serves requests without a name, if it is ready.
    pub fn active(&self) -> Option<&Arc<str>> {
        let is_ready = |name: &&Arc<str>| self.models.get(*name).is_some_and(|entry| entry.current.is_some());
        self.chosen.as_ref().filter(is_ready)
    }

    /// Describes a model.
    pub fn status(&self, name: &str, now: Duration) -> Option<Status<H>> {
        let (name, entry) = self.models.get_key_value(name)?;
        let current = entry.current.and_then(|id| self.instances.get(&id));
        let pending = entry.pending.and_then(|id| self.instances.get(&id));
        let own = self.instances.values().filter(|instance| instance.model == *name);
        Some(Status {
            name: name.clone(),
            settings: entry.settings.clone(),
            state: self.state(name, now),
            active: self.active() == Some(name),
            reloading: pending.is_some_and(|instance| instance.is_reload),
            reload_order: pending.and_then(|instance| instance.order),
            loading: pending.map(|instance| self.loading_state(instance, now)),
            memory: current.or(pending).and_then(|instance| instance.memory),
            adapter_bytes: current.or(pending).map_or(0, |instance| instance.adapters),
            requests: own.map(|instance| instance.in_flight).sum(),
            idle: current
                .filter(|instance| instance.in_flight == 0)
                .map(|instance| now.saturating_sub(instance.last_used)),
            keep_alive: current.and_then(|instance| entry.keep_alive(instance)),
            counters: entry.counters,
            handle: current.and_then(Instance::handle).cloned(),
        })
    }

    /// Engines that are ready, or leaving but not yet passed to an [`Action::Unload`].
    pub fn handles(&self) -> impl Iterator<Item = &H> {
        self.instances.values().filter_map(|instance| match &instance.phase {
            Phase::Leaving(leaving) => leaving.handle.as_ref(),
            _ => instance.handle(),
        })
    }

    /// The ready instances.
    pub fn ready(&self) -> impl Iterator<Item = (InstanceId, &H)> {
        self.instances.iter().filter_map(|(id, instance)| Some((*id, instance.handle()?)))
    }

    /// Whether an instance still exists.
    pub fn exists(&self, id: InstanceId) -> bool {
        self.instances.contains_key(&id)
    }

    /// Reason of a failed model's state.
    pub fn failure(&self, name: &str) -> Option<String> {
        match &self.models.get(name)?.rest {
            Rest::Failed(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// State of a model.
    pub(super) fn state(&self, name: &Arc<str>, now: Duration) -> ModelState {
        let Some(entry) = self.models.get(name) else { return ModelState::Unloaded };
        if entry.current.is_some() {
            return ModelState::Ready;
        }
        if let Some(pending) = entry.pending.and_then(|id| self.instances.get(&id)) {
            return ModelState::Loading(self.loading_state(pending, now));
        }
        // A cancelled load has no requests to drain.
        let is_draining = |i: &Instance<H>| {
            i.model == *name && matches!(&i.phase, Phase::Leaving(leaving) if !leaving.cancelled)
        };
        match &entry.rest {
            Rest::Failed(reason) => ModelState::Failed { reason: reason.clone() },
            _ if self.instances.values().any(is_draining) => ModelState::Draining,
            Rest::Unloaded => ModelState::Unloaded,
            Rest::Sleeping => ModelState::Sleeping,
        }
    }

    /// Emits events for the changes since the last call.
    pub(super) fn show(&mut self, now: Duration) {
        let states: Vec<_> = self.models.keys().map(|name| (name.clone(), self.state(name, now))).collect();
        for (model, state) in states {
            let Some(entry) = self.models.get_mut(&model) else { continue };
            let same = match (&entry.shown, &state) {
                (ModelState::Loading(_), ModelState::Loading(_)) => true,
                (shown, state) => shown == state,
            };
            if !same {
                entry.shown = state.clone();
                self.emit(RegistryEvent::State { model, state });
            }
        }
        let active = self.active().cloned();
        if active != self.shown_active {
            self.shown_active.clone_from(&active);
            self.emit(RegistryEvent::Active { model: active });
        }
    }

    pub(super) fn wrong_state(
        &self,
        operation: &'static str,
        name: &Arc<str>,
        allowed: &'static str,
    ) -> RegistryError {
        let state = self.state(name, Duration::ZERO).name();
        RegistryError::State { operation, model: name.to_string(), state, allowed }
    }

    /// Progress of a pending instance, with the remaining time estimated from its own speed, or from that of
    /// the last load.
    pub(super) fn loading_state(&self, instance: &Instance<H>, now: Duration) -> LoadingState {
        let (done, total) = instance.progress;
        let elapsed = now.saturating_sub(instance.started).as_secs_f64();
        let left = total.saturating_sub(done) as f64;
        let seconds = match (instance.phase.is_loading(), self.load_rate) {
            (true, _) if done > 0 => Some(elapsed * left / done as f64),
            (_, Some(rate)) if instance.bytes() > 0 => Some(instance.bytes() as f64 / rate),
            _ => None,
        };
        let remaining = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        LoadingState { done, total, remaining }
    }
}
