//! Memory of the adapters of a ready or loading instance.
//!
//! An adapter is first *committed*, which evicts idle models if the budget requires it, and *held* once these
//! models have released their memory.

use super::{InstanceId, Lifecycle};
use crate::adapter::AdapterError;
use crate::generator::SubmitError;
use std::time::Duration;

impl<H: Clone> Lifecycle<H> {
    /// Commits the memory of an adapter of an instance. [`hold_adapter`](Self::hold_adapter) follows until it
    /// grants the memory or fails.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Budget`] if it does not fit together with models that cannot be evicted; nothing is
    /// evicted then. [`AdapterError::Model`] if the instance is leaving.
    pub fn commit_adapter(
        &mut self,
        id: InstanceId,
        adapter: &str,
        bytes: u64,
        now: Duration,
    ) -> Result<(), AdapterError> {
        let instance = self.instances.get(&id).filter(|instance| !instance.is_leaving());
        let name = instance.map(|instance| instance.model.clone()).ok_or_else(|| self.left(id))?;
        if let Some(budget) = self.memory_bytes_max {
            let committed = self.committed_bytes();
            self.evict_for(&name, bytes, committed, budget, now).map_err(|held| AdapterError::Budget {
                name: adapter.to_owned(),
                needed: bytes,
                held,
                budget,
            })?;
        }
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.adapters_committed = instance.adapters_committed.saturating_add(bytes);
        }
        self.show(now);
        Ok(())
    }

    /// Grants the memory of a committed adapter if it is free. Returns whether it was granted.
    ///
    /// # Errors
    ///
    /// [`AdapterError::Model`] if the instance is leaving: the commitment has ended.
    pub fn hold_adapter(&mut self, id: InstanceId, bytes: u64) -> Result<bool, AdapterError> {
        let fits =
            self.memory_bytes_max.is_none_or(|budget| self.held_bytes().saturating_add(bytes) <= budget);
        match self.instances.get_mut(&id).filter(|instance| !instance.is_leaving()) {
            Some(instance) if fits => {
                instance.adapters_committed = instance.adapters_committed.saturating_sub(bytes);
                instance.adapters = instance.adapters.saturating_add(bytes);
                Ok(true)
            }
            Some(_) => Ok(false),
            None => Err(self.left(id)),
        }
    }

    /// Returns the freed memory of an adapter.
    pub fn release_adapter(&mut self, id: InstanceId, bytes: u64, now: Duration) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.adapters = instance.adapters.saturating_sub(bytes);
            self.start_waiting(now);
            self.show(now);
        }
    }

    /// Bytes of the adapters of all instances.
    pub fn adapter_bytes(&self) -> u64 {
        self.instances.values().map(|instance| instance.adapters).fold(0, u64::saturating_add)
    }

    fn left(&self, id: InstanceId) -> AdapterError {
        let model = self.instances.get(&id).map_or_else(String::new, |instance| instance.model.to_string());
        AdapterError::Model(SubmitError::ModelUnloaded { model })
    }
}
