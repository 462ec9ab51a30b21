//! The C functions of `cpp/emulated.cpp`.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// Reason for the lack of the emulator.
pub(crate) const UNAVAILABLE: Option<&str> = None;

unsafe extern "C" {
    fn exsa_emulated_find(name: *const c_char, threads: *mut u32, arguments: *mut u32) -> *const c_void;
    fn exsa_emulated_launch(
        entry: *const c_void,
        grid: *const u32,
        seed: u64,
        races: c_int,
        args: *const *mut c_void,
        error: *mut c_char,
        capacity: usize,
    ) -> c_int;
}

/// A kernel of the emulator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// A static of the C++ side.
    entry: *const c_void,
    pub threads: u32,
    pub arguments: u32,
}

// SAFETY: the entry is a constant that nothing writes to.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    /// The kernel called `name`.
    pub fn find(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        let (mut threads, mut arguments) = (0, 0);
        // SAFETY: the name ends in a zero, and both numbers outlive the call.
        let entry = unsafe { exsa_emulated_find(name.as_ptr(), &mut threads, &mut arguments) };
        (!entry.is_null()).then_some(Self { entry, threads, arguments })
    }

    /// Runs the kernel.
    ///
    /// # Safety
    ///
    /// `args` has [`arguments`](Self::arguments) pointers: to a pointer for every buffer, to the struct for
    /// parameters, aligned to 4 bytes. Nothing else accesses the buffers that the kernel writes, or writes
    /// those that it reads.
    pub unsafe fn launch(
        &self,
        grid: [u32; 3],
        seed: u64,
        races: bool,
        args: &[*mut c_void],
    ) -> Result<(), String> {
        let mut error: [c_char; 512] = [0; 512];
        // SAFETY: the caller vouches for the arguments; the message ends in a zero within its capacity.
        let failed = unsafe {
            exsa_emulated_launch(
                self.entry,
                grid.as_ptr(),
                seed,
                c_int::from(races),
                args.as_ptr(),
                error.as_mut_ptr(),
                error.len(),
            )
        };
        if failed == 0 {
            return Ok(());
        }
        // SAFETY: the message ends in a zero.
        Err(unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned())
    }
}
