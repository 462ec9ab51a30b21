//! C files that read from memory.

use exsa_core::error::LoadError;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// A C file that reads bytes in memory.
pub(super) struct MemoryFile<'a> {
    file: NonNull<libc::FILE>,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> MemoryFile<'a> {
    /// Creates a file with the content `bytes`.
    ///
    /// On Unix it reads them in place; elsewhere it is a temporary copy that the system deletes when it is
    /// closed.
    pub fn new(bytes: &'a [u8]) -> Result<Self, LoadError> {
        let file = NonNull::new(open(bytes)).ok_or_else(|| {
            let error = std::io::Error::last_os_error();
            LoadError::Backend(format!("cannot make a file of the model in memory: {error}"))
        })?;
        Ok(Self { file, bytes: PhantomData })
    }

    pub fn as_ptr(&self) -> *mut libc::FILE {
        self.file.as_ptr()
    }
}

impl Drop for MemoryFile<'_> {
    fn drop(&mut self) {
        // SAFETY: this value owns the file and closes it once.
        unsafe { libc::fclose(self.file.as_ptr()) };
    }
}

#[cfg(unix)]
fn open(bytes: &[u8]) -> *mut libc::FILE {
    // SAFETY: a file of mode "r" only reads `bytes`, which outlive it by the lifetime of `MemoryFile`.
    unsafe { libc::fmemopen(bytes.as_ptr().cast_mut().cast(), bytes.len(), c"r".as_ptr()) }
}

#[cfg(not(unix))]
fn open(bytes: &[u8]) -> *mut libc::FILE {
    // SAFETY: `bytes` is readable over its length; the file is rewound for its reader, and closed if it is
    // not whole.
    unsafe {
        let file = libc::tmpfile();
        if file.is_null() {
            return file;
        }
        if libc::fwrite(bytes.as_ptr().cast(), 1, bytes.len(), file) != bytes.len() {
            libc::fclose(file);
            return std::ptr::null_mut();
        }
        libc::rewind(file);
        file
    }
}
