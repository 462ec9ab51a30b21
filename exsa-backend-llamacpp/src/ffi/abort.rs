//! The check that ends a running pass early.

use super::callback::guarded;
use exsa_core::backend::Interrupt;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// Reads a session's interrupt on behalf of llama.cpp, between the operations of a pass.
pub(super) struct AbortCheck {
    interrupt: Interrupt,
    /// Message of the panic that ended the pass. The interrupt reads a clock of the host, which may panic.
    panic: Mutex<Option<String>>,
}

impl AbortCheck {
    /// A check of `interrupt`. llama.cpp keeps a pointer to it, so its address must not change.
    pub fn new(interrupt: Interrupt) -> Box<Self> {
        Box::new(Self { interrupt, panic: Mutex::new(None) })
    }

    /// Pointer for llama.cpp, to be passed to [`on_abort`].
    pub fn as_ptr(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// The message of a panic since the last call.
    pub fn take_panic(&self) -> Option<String> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the pass must end: the interrupt is raised, or reading it panicked.
    fn must_end(&self) -> bool {
        guarded(|| self.interrupt.is_raised()).unwrap_or_else(|message| {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
            true
        })
    }
}

/// Whether the running pass must end. Never unwinds.
///
/// # Safety
///
/// `data` is from [`AbortCheck::as_ptr`] of a check that is alive.
pub(super) unsafe extern "C" fn on_abort(data: *mut c_void) -> bool {
    // SAFETY: by this function's contract; the check is only read, and its state is behind a lock.
    unsafe { &*data.cast::<AbortCheck>() }.must_end()
}
