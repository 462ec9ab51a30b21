//! Progress of loading.

use crate::error::LoadError;
use std::fmt;

/// Callback for the progress of loading, which can cancel it.
pub struct LoadProgress<'a> {
    callback: Option<&'a mut dyn FnMut(u64, u64) -> bool>,
}

impl<'a> LoadProgress<'a> {
    /// No progress callback.
    pub fn none() -> Self {
        Self { callback: None }
    }

    /// Calls `callback(done, total)`, in bytes, during loading. If the callback returns `false`, loading ends
    /// with [`LoadError::Cancelled`].
    pub fn new(callback: &'a mut dyn FnMut(u64, u64) -> bool) -> Self {
        Self { callback: Some(callback) }
    }

    /// For backends: reports that `done` of `total` bytes are loaded.
    ///
    /// # Errors
    ///
    /// [`LoadError::Cancelled`] if the callback asked to stop.
    pub fn report(&mut self, done: u64, total: u64) -> Result<(), LoadError> {
        let go_on = self.callback.as_mut().is_none_or(|callback| callback(done, total));
        if go_on { Ok(()) } else { Err(LoadError::Cancelled) }
    }
}

impl fmt::Debug for LoadProgress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadProgress").field("has_callback", &self.callback.is_some()).finish()
    }
}
