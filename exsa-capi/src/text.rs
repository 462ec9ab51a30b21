//! A piece of text that a handle keeps alive for C.

use crate::args::put;
use crate::error::Result;
use std::ffi::c_char;

/// Text followed by a NUL, so that C can read it by length or, if it contains no NUL, as a string.
#[derive(Debug, Default)]
pub(crate) struct Piece(Vec<u8>);

impl Piece {
    pub(crate) fn set(&mut self, text: &str) {
        self.0.clear();
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// Stores pointer and length. `len` may be null.
    ///
    /// # Safety
    ///
    /// `text` is null or has room for a pointer; `len` is null or has room for a size.
    pub(crate) unsafe fn show(&self, text: *mut *const c_char, len: *mut usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { put(text, self.0.as_ptr().cast(), "the place for the text") }?;
        if !len.is_null() {
            // SAFETY: the caller's promise.
            unsafe { put(len, self.0.len().saturating_sub(1), "the place for the length") }?;
        }
        Ok(())
    }
}
