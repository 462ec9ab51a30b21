//! A memory budget that several engines share for their adapters.

use super::AdapterError;

/// Grants memory for the adapters of an engine.
pub(crate) trait AdapterMemory: Send + Sync {
    /// Reserves `bytes` for the adapter `name`, or returns why that is impossible. Waits until the memory of
    /// evicted models is free.
    fn reserve(&self, name: &str, bytes: u64) -> Result<(), AdapterError>;

    /// Returns `bytes` of a reservation.
    fn release(&self, bytes: u64);
}
