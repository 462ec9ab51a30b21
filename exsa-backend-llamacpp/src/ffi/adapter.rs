//! LoRA adapters.

use super::path::c_path;
use crate::log;
use llama_cpp_sys_2 as sys;
use std::path::Path;
use std::ptr::NonNull;

/// A LoRA adapter, which llama.cpp frees with its model.
pub(super) struct Adapter {
    ptr: NonNull<sys::llama_adapter_lora>,
    scale: f32,
}

impl Adapter {
    /// Loads an adapter of `model` from a checked file. The error is llama.cpp's text.
    ///
    /// # Safety
    ///
    /// The model is alive, is used by no other thread during the call, and lives at least as long as the
    /// adapter is used.
    pub unsafe fn load(model: NonNull<sys::llama_model>, path: &Path, scale: f32) -> Result<Self, String> {
        let path = c_path(path).map_err(|error| error.to_string())?;
        let load = || {
            // SAFETY: the model by this function's contract; the path ends with a NUL and outlives the call.
            unsafe { sys::llama_adapter_lora_init(model.as_ptr(), path.as_ptr()) }
        };
        let (adapter, errors) = log::with_errors(load);
        Ok(Self { ptr: NonNull::new(adapter).ok_or(errors)?, scale })
    }

    /// Makes the passes of `context` add `adapters` to the weights.
    ///
    /// # Safety
    ///
    /// The context is alive and used by no other thread during the call; it and the adapters are of one
    /// model.
    pub unsafe fn apply(adapters: &[Self], context: NonNull<sys::llama_context>) {
        if adapters.is_empty() {
            return;
        }
        let mut pointers: Vec<_> = adapters.iter().map(|adapter| adapter.ptr.as_ptr()).collect();
        let mut scales: Vec<_> = adapters.iter().map(|adapter| adapter.scale).collect();
        let (pointers, scales) = (pointers.as_mut_ptr(), scales.as_mut_ptr());
        // SAFETY: context and adapters by this function's contract. Both lists have `adapters.len()` elements
        // and are copied by the call.
        unsafe { sys::llama_set_adapters_lora(context.as_ptr(), pointers, adapters.len(), scales) };
    }
}
