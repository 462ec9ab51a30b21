//! The registry's memory budget, for the adapters of one instance.

use super::driver::Inner;
use super::lifecycle::InstanceId;
use crate::adapter::AdapterError;
use crate::adapter::memory::AdapterMemory;
use std::sync::{Arc, Weak};

/// Charges the memory of an instance's adapters to the budget of its registry.
pub(super) struct AdapterBudget {
    id: InstanceId,
    registry: Weak<Inner>,
}

impl AdapterBudget {
    pub(super) fn new(id: InstanceId, registry: &Arc<Inner>) -> Self {
        Self { id, registry: Arc::downgrade(registry) }
    }
}

impl AdapterMemory for AdapterBudget {
    fn reserve(&self, name: &str, bytes: u64) -> Result<(), AdapterError> {
        // If the registry is gone, the engine is about to end.
        let Some(registry) = self.registry.upgrade() else { return Ok(()) };
        registry.event(|lifecycle, now| lifecycle.commit_adapter(self.id, name, bytes, now))?;
        registry.wait_until(|lifecycle| match lifecycle.hold_adapter(self.id, bytes) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn release(&self, bytes: u64) {
        if let Some(registry) = self.registry.upgrade() {
            registry.event(|lifecycle, now| lifecycle.release_adapter(self.id, bytes, now));
        }
    }
}
