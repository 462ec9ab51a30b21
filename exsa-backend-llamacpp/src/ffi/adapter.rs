//! LoRA adapters of a model.

use super::model::{Model, c_path};
use crate::log;
use llama_cpp_sys_2 as sys;
use std::path::Path;
use std::ptr::NonNull;

/// An adapter. It is freed with its model.
pub(super) struct Adapter {
    ptr: NonNull<sys::llama_adapter_lora>,
    scale: f32,
}

impl Model {
    /// Loads an adapter for the contexts that are made from here on. The file was checked. The error is what llama.cpp says.
    pub fn add_adapter(&mut self, path: &Path, scale: f32) -> Result<(), String> {
        let path = c_path(path).map_err(|error| error.to_string())?;
        let load = || {
            // SAFETY: the model lives and nobody else uses it; the path ends with a NUL and outlives the call.
            unsafe { sys::llama_adapter_lora_init(self.ptr.as_ptr(), path.as_ptr()) }
        };
        let (adapter, errors) = log::with_errors(load);
        let ptr = NonNull::new(adapter).ok_or(errors)?;
        self.adapters.push(Adapter { ptr, scale });
        Ok(())
    }

    /// Makes a context of this model add all adapters to the weights.
    pub(super) fn adapt(&self, context: NonNull<sys::llama_context>) {
        let mut adapters: Vec<_> = self.adapters.iter().map(|adapter| adapter.ptr.as_ptr()).collect();
        let mut scales: Vec<_> = self.adapters.iter().map(|adapter| adapter.scale).collect();
        if adapters.is_empty() {
            return;
        }
        // SAFETY: the context lives and is of this model, whose adapters live as long as it; both lists have that length, and
        // are copied.
        unsafe {
            sys::llama_set_adapters_lora(
                context.as_ptr(),
                adapters.as_mut_ptr(),
                adapters.len(),
                scales.as_mut_ptr(),
            );
        }
    }
}
