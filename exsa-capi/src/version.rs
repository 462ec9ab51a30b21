//! Library and ABI version.

use std::ffi::{CStr, c_char};

/// Major version of the ABI: within one version, functions keep their names and types.
const ABI_VERSION: u32 = 1;

/// The package version with a NUL.
const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// Returns the library version as text, such as "0.1.0". It is valid forever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn exsa_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Returns the ABI version. A program that was compiled against a header with a different EXSA_ABI_VERSION
/// must not use the library. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn exsa_abi_version() -> u32 {
    ABI_VERSION
}
