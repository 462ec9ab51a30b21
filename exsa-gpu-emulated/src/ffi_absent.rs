//! In place of the emulator where it could not be compiled.

use std::ffi::c_void;

/// Reason for the lack of the emulator.
pub(crate) const UNAVAILABLE: Option<&str> = Some(env!("EXSA_EMULATED_UNAVAILABLE"));

/// A kernel of the emulator: there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub threads: u32,
    pub arguments: u32,
}

impl Entry {
    pub fn find(_: &str) -> Option<Self> {
        None
    }

    /// Fails.
    ///
    /// # Safety
    ///
    /// None needed.
    pub unsafe fn launch(&self, _: [u32; 3], _: u64, _: bool, _: &[*mut c_void]) -> Result<(), String> {
        Err("the emulator was not compiled".to_owned())
    }
}
