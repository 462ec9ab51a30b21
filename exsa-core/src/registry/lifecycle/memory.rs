//! The memory budget: admission of loads, eviction, and waiting for memory.
//!
//! Two sums stay within the budget. Instances that are admitted, loading or ready are *committed*: their sum
//! decides whether a further load is admitted. Instances that are loading, ready or leaving *hold* memory: an
//! admitted load starts as soon as their sum leaves room for it.

use super::instance::{Instance, Phase};
use super::{Action, InstanceId, Lifecycle, Rest};
use crate::registry::error::RegistryError;
use crate::registry::event::RegistryEvent;
use crate::registry::state::ReloadOrder;
use std::sync::Arc;
use std::time::Duration;

impl<H: Clone> Lifecycle<H> {
    /// Bytes of instances that are admitted, loading or ready.
    pub fn committed_bytes(&self) -> u64 {
        self.sum(Instance::committed_bytes, |phase| !matches!(phase, Phase::Estimating | Phase::Leaving(_)))
    }

    /// Bytes of instances that are loading, ready or leaving.
    pub fn held_bytes(&self) -> u64 {
        self.sum(Instance::held_bytes, |phase| !matches!(phase, Phase::Estimating | Phase::Waiting))
    }

    fn sum(&self, bytes: fn(&Instance<H>) -> u64, counts: impl Fn(&Phase<H>) -> bool) -> u64 {
        let counted = self.instances.values().filter(|instance| counts(&instance.phase));
        counted.map(bytes).fold(0, u64::saturating_add)
    }

    /// Admits an instance whose memory is now known: evicts models as needed, decides the order of a reload,
    /// and queues the instance for memory.
    pub(super) fn admit(&mut self, id: InstanceId, now: Duration) -> Result<(), RegistryError> {
        let Some(instance) = self.instances.get(&id) else { return Ok(()) };
        let (name, needed) = (instance.model.clone(), instance.bytes());
        let (is_reload, grace) = (instance.is_reload, instance.grace);
        let old = self.models.get(&name).and_then(|entry| entry.current);
        let old_bytes = old.and_then(|id| self.instances.get(&id)).map_or(0, Instance::committed_bytes);
        let mut order = ReloadOrder::LoadFirst;
        if let Some(budget) = self.memory_bytes_max {
            let held = self.committed_bytes();
            if held.saturating_add(needed) > budget {
                // A reload never evicts another model to avoid its own interruption.
                order = ReloadOrder::UnloadFirst;
                self.evict_for(&name, needed, held - old_bytes, budget, now).map_err(|held| {
                    RegistryError::Memory { model: name.to_string(), needed, held, budget }
                })?;
            }
        }
        if is_reload {
            self.emit(RegistryEvent::Reload { model: name.clone(), order });
            if order == ReloadOrder::UnloadFirst {
                self.leave_current(&name, Rest::Unloaded, grace, now);
            }
        }
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.phase = Phase::Waiting;
            instance.order = is_reload.then_some(order);
        }
        Ok(())
    }

    /// Evicts idle models other than `name` until `needed` bytes fit into the budget together with `held`
    /// committed bytes. If that does not suffice, nothing is evicted, and the error is the bytes that the
    /// remaining models hold.
    pub(super) fn evict_for(
        &mut self,
        name: &Arc<str>,
        needed: u64,
        mut held: u64,
        budget: u64,
        now: Duration,
    ) -> Result<(), u64> {
        let mut victims = Vec::new();
        for (victim, bytes) in self.evictable(name) {
            if held.saturating_add(needed) <= budget {
                break;
            }
            held -= bytes;
            victims.push(victim);
        }
        if held.saturating_add(needed) > budget {
            return Err(held);
        }
        for victim in victims {
            if let Some(entry) = self.models.get_mut(&victim) {
                entry.counters.evictions += 1;
            }
            self.leave_current(&victim, Rest::Unloaded, None, now);
        }
        Ok(())
    }

    /// Models that may be evicted for `name`, the least recently used first, with the bytes of each.
    fn evictable(&self, name: &Arc<str>) -> Vec<(Arc<str>, u64)> {
        let mut idle: Vec<_> = self
            .models
            .iter()
            .filter(|(other, entry)| *other != name && !entry.settings.pinned && entry.pending.is_none())
            .filter_map(|(other, entry)| {
                let instance = self.instances.get(&entry.current?)?;
                let bytes = instance.committed_bytes();
                let is_idle = instance.in_flight == 0 && bytes > 0;
                is_idle.then(|| (instance.last_used, other.clone(), bytes))
            })
            .collect();
        idle.sort();
        idle.into_iter().map(|(_, name, bytes)| (name, bytes)).collect()
    }

    /// Starts admitted loads, in order, as far as memory is free.
    pub(super) fn start_waiting(&mut self, now: Duration) {
        let mut held = self.held_bytes();
        for (id, instance) in &mut self.instances {
            if !matches!(instance.phase, Phase::Waiting) {
                continue;
            }
            held = held.saturating_add(instance.bytes());
            if self.memory_bytes_max.is_some_and(|budget| held > budget) {
                return;
            }
            instance.phase = Phase::Loading;
            instance.started = now;
            self.actions.push(Action::Load(*id));
        }
    }
}
