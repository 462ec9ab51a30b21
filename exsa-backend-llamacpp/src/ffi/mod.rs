//! Safe wrapper of llama.cpp's C interface. No other module of this crate has `unsafe`.
//!
//! Two rules hold throughout. Every pointer from llama.cpp is owned by one value of this module, which frees
//! it once, after everything that was made from it. Every callback runs in [`callback::guarded`]: a panic
//! must not unwind through C++ frames.

mod abort;
mod adapter;
mod callback;
mod context;
mod device;
mod file;
mod kv_override;
mod memory;
mod model;
mod path;
mod threads;
#[cfg(test)]
mod vocab;

pub(crate) use context::{Context, ContextSettings, Decoded};
pub(crate) use device::{Device, Kind, devices};
#[cfg(test)]
pub(crate) use memory::MemoryUse;
pub(crate) use model::{Model, ModelSettings, Weights};
#[cfg(test)]
pub(crate) use vocab::Vocab;

use crate::log::{self, Level};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Once;

/// Initializes llama.cpp, once per process, and sends its log to [`log`].
pub(crate) fn init() {
    static READY: Once = Once::new();
    READY.call_once(|| {
        // SAFETY: nothing else of llama.cpp runs yet, which its global logger requires. The callback is a
        // function of this program and needs no data.
        unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
        #[cfg(feature = "dynamic-backends")]
        load_backends();
        // SAFETY: called once, before any model is loaded. Never freed: a model may live as long as the
        // process.
        unsafe { sys::llama_backend_init() };
    });
}

/// Loads the variants of the CPU backend and the GPU backends from the program's folder, else from the
/// build's.
#[cfg(feature = "dynamic-backends")]
fn load_backends() {
    // SAFETY: looks for libraries in the folder of the executable and in the current one.
    unsafe { sys::ggml_backend_load_all() };
    let built = sys::BACKENDS_DIR.filter(|_| devices().is_empty());
    if let Some(path) = built.and_then(|path| std::ffi::CString::new(path).ok()) {
        // SAFETY: the path ends with a NUL and outlives the call.
        unsafe { sys::ggml_backend_load_all_from_path(path.as_ptr()) };
    }
}

/// Version of llama.cpp.
pub(crate) fn version() -> String {
    // SAFETY: gives a NUL-terminated text that is a constant of the library.
    text(unsafe { sys::llama_version() })
}

unsafe extern "C" fn on_log(level: sys::ggml_log_level, line: *const c_char, _: *mut c_void) {
    let level = match level {
        sys::GGML_LOG_LEVEL_CONT => None,
        sys::GGML_LOG_LEVEL_DEBUG => Some(Level::Debug),
        sys::GGML_LOG_LEVEL_WARN => Some(Level::Warn),
        sys::GGML_LOG_LEVEL_ERROR => Some(Level::Error),
        _ => Some(Level::Info),
    };
    // A panic of the host's log subscriber loses this line and nothing else.
    let _ = callback::guarded(|| log::append(level, &text(line)));
}

/// Copies a text of llama.cpp; empty for a null pointer.
fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: llama.cpp's texts end with a NUL; this one is copied before the call that returned it can be
    // repeated.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
