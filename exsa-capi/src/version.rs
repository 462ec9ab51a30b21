//! Version of the library.

use std::ffi::{CStr, c_char};

/// Major version of the interface: functions keep their names and types within one.
const ABI_VERSION: u32 = 1;

/// The package's version with a NUL.
const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// Version of the library as text, such as "0.1.0". It is valid for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn exsa_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Version of the interface. A program that was compiled against a header with another EXSA_ABI_VERSION must
/// not use the library. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn exsa_abi_version() -> u32 {
    ABI_VERSION
}
