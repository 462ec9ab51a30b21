//! Bytes in memory as a C file.

use exsa_core::error::LoadError;
use std::ptr::NonNull;

/// A C file that reads bytes in memory.
pub(super) struct MemoryFile {
    file: NonNull<libc::FILE>,
}

impl MemoryFile {
    /// A file with the content `bytes`, which outlive it.
    ///
    /// On Unix it reads them where they are; elsewhere it is a copy in a file that the system deletes when it is closed.
    pub fn new(bytes: &[u8]) -> Result<Self, LoadError> {
        let file = NonNull::new(open(bytes)).ok_or_else(|| {
            let error = std::io::Error::last_os_error();
            LoadError::Backend(format!("cannot make a file of the model in memory: {error}"))
        })?;
        Ok(Self { file })
    }

    pub fn as_ptr(&self) -> *mut libc::FILE {
        self.file.as_ptr()
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // SAFETY: this value owns the file, and nobody else has closed it.
        unsafe { libc::fclose(self.file.as_ptr()) };
    }
}

#[cfg(unix)]
fn open(bytes: &[u8]) -> *mut libc::FILE {
    // SAFETY: mode "r" makes a file that only reads `bytes`; the caller keeps them alive.
    unsafe { libc::fmemopen(bytes.as_ptr().cast_mut().cast(), bytes.len(), c"r".as_ptr()) }
}

#[cfg(not(unix))]
fn open(bytes: &[u8]) -> *mut libc::FILE {
    // SAFETY: `bytes` is readable over its length; the file is rewound for its reader, and closed if it is not whole.
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
