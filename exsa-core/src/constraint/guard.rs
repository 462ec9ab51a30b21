//! Converts panics of the grammar library to errors.

use super::error::ConstraintError;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `f`. A value that `f` borrows must not be used again after a panic.
pub(super) fn guard<T>(f: impl FnOnce() -> T) -> Result<T, ConstraintError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        ConstraintError::Internal(text.unwrap_or_else(|| "it panicked".to_owned()))
    })
}
