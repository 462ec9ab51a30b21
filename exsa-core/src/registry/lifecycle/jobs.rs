//! Results of jobs: estimates, loads and unloads.

use super::instance::{Leaving, Phase};
use super::{Action, InstanceId, Lifecycle, Rest};
use crate::backend::MemoryEstimate;
use crate::engine::Shutdown;
use crate::registry::error::RegistryError;
use crate::registry::event::RegistryEvent;
use std::time::Duration;

/// Time after a refusal for lack of memory during which requests do not start another load of the model.
const REFUSED: Duration = Duration::from_secs(5);

impl<H: Clone> Lifecycle<H> {
    /// The result of an [`Action::Estimate`]; `None` if the memory is unknown, which is treated as 0.
    pub fn estimated(
        &mut self,
        id: InstanceId,
        result: Result<Option<MemoryEstimate>, RegistryError>,
        now: Duration,
    ) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.is_leaving() {
            return self.gone(id, now);
        }
        let result = match result {
            Ok(memory) => {
                instance.memory = memory;
                self.admit(id, now)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {
                self.start_waiting(now);
                self.show(now);
            }
            Err(error) => self.load_failed(id, error, now),
        }
    }

    /// Progress of an [`Action::Load`] in bytes.
    pub fn progress(&mut self, id: InstanceId, done: u64, total: u64, now: Duration) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.progress = (done, total);
        if !instance.phase.is_loading() {
            return;
        }
        let model = instance.model.clone();
        if let Some(instance) = self.instances.get(&id) {
            let progress = self.loading_state(instance, now);
            self.emit(RegistryEvent::Progress { model, progress });
        }
    }

    /// The success of an [`Action::Load`].
    pub fn loaded(&mut self, id: InstanceId, handle: H, now: Duration) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.is_leaving() {
            // The load completed before it noticed the cancellation.
            let leaving = Leaving { handle: None, cancelled: false, abort_at: Some(now), aborted: true };
            instance.phase = Phase::Leaving(leaving);
            self.actions.push(Action::Unload(id, handle, Shutdown::Abort));
            return;
        }
        let started = instance.started;
        let seconds = now.saturating_sub(started).as_secs_f64();
        if seconds > 0.0 && instance.bytes() > 0 {
            self.load_rate = Some(instance.bytes() as f64 / seconds);
        }
        instance.phase = Phase::Ready(handle);
        instance.last_used = now;
        let (model, grace, order) = (instance.model.clone(), instance.grace, instance.order);
        let waiters = std::mem::take(&mut instance.waiters);
        let old = self.models.get_mut(&model).and_then(|entry| {
            (entry.pending, entry.rest, entry.refused) = (None, Rest::Unloaded, None);
            entry.current.replace(id)
        });
        self.chosen.get_or_insert(model.clone());
        if let Some(entry) = self.models.get_mut(&model) {
            entry.counters.loads += 1;
            entry.counters.load_time += now.saturating_sub(started);
        }
        waiters.into_iter().for_each(|waiter| self.answer(waiter, Ok(order)));
        if let Some(old) = old {
            self.emit(RegistryEvent::Reloaded { model, error: None });
            self.leave(old, grace, now);
        }
        self.show(now);
    }

    /// The failure of an [`Action::Load`].
    pub fn load_failed(&mut self, id: InstanceId, error: RegistryError, now: Duration) {
        let Some(instance) = self.instances.get(&id) else { return };
        if instance.is_leaving() {
            return self.gone(id, now);
        }
        let model = instance.model.clone();
        self.end_pending(&model, &error);
        if let Some(entry) = self.models.get_mut(&model) {
            entry.counters.loads_failed += u64::from(!matches!(error, RegistryError::Cancelled { .. }));
            match error {
                RegistryError::Memory { .. } => {
                    entry.refused = Some((error.to_string(), now.saturating_add(REFUSED)));
                }
                _ if entry.current.is_none() => entry.rest = Rest::Failed(error.to_string()),
                _ => {}
            }
        }
        self.gone(id, now);
    }

    /// The end of an [`Action::Unload`]: the memory of the instance is free.
    pub fn gone(&mut self, id: InstanceId, now: Duration) {
        let Some(instance) = self.instances.remove(&id) else { return };
        self.answer_unloaded(&instance.model);
        self.start_waiting(now);
        self.show(now);
    }

    /// A ready engine ended on its own, because its backend panicked.
    pub fn engine_ended(&mut self, id: InstanceId, now: Duration) {
        let Some(instance) = self.instances.get(&id).filter(|instance| instance.handle().is_some()) else {
            return;
        };
        let model = instance.model.clone();
        let reason = "the engine has ended: the backend panicked".to_owned();
        self.leave_current(&model, Rest::Failed(reason), Some(Duration::ZERO), now);
        self.show(now);
    }
}
