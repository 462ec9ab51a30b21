//! A budget of memory that several engines share with their adapters.

use super::AdapterError;

/// Grants an engine the memory of its adapters.
pub(crate) trait AdapterMemory: Send + Sync {
    /// Grants `bytes` for the adapter `name`, or says why not. Waits until memory that others give back for
    /// it is free.
    fn reserve(&self, name: &str, bytes: u64) -> Result<(), AdapterError>;

    /// Takes `bytes` of a grant back.
    fn release(&self, bytes: u64);
}
