//! LoRA adapters.

use super::file::MemoryFile;
use super::model::Model;
use crate::log;
use exsa_core::AdapterId;
use exsa_core::batch::SpanAdapter;
use llama_cpp_sys_2 as sys;
use std::ptr::NonNull;
use std::sync::PoisonError;

/// A LoRA adapter, which llama.cpp frees with its model unless it is freed before.
pub(super) struct Adapter(NonNull<sys::llama_adapter_lora>);

impl Adapter {
    /// Loads an adapter of `model` from a checked GGUF in memory. The error is llama.cpp's text.
    ///
    /// # Safety
    ///
    /// The model is alive, no context of it plans or runs a pass during the call, and it lives at least as
    /// long as the adapter is used.
    unsafe fn load(model: NonNull<sys::llama_model>, gguf: &[u8]) -> Result<Self, String> {
        let file = MemoryFile::new(gguf).map_err(|error| error.to_string())?;
        let load = || {
            // SAFETY: the model by this function's contract; the file is open and is read during this call
            // alone.
            unsafe { sys::llama_adapter_lora_init_from_file_ptr(model.as_ptr(), file.as_ptr().cast()) }
        };
        let (adapter, errors) = log::with_errors(load);
        NonNull::new(adapter).map(Self).ok_or(errors)
    }
}

/// The adapters of a model. Passes hold it shared: they read the list of adapters that llama.cpp keeps in the
/// model, and the adapters themselves.
#[derive(Default)]
pub(super) struct Adapters {
    /// Those of all passes, with their scales.
    fixed: Vec<(Adapter, f32)>,
    /// Those of single passes.
    loaded: Vec<(AdapterId, Adapter)>,
    /// The next id.
    next: u32,
    /// Number of adapters freed so far. Lists that contexts took before may not be theirs any more.
    freed: u64,
}

/// The adapters of a context's last pass.
#[derive(Default)]
pub(super) struct Applied {
    /// `None` before the first pass.
    adapters: Option<Vec<SpanAdapter>>,
    freed: u64,
}

impl Adapters {
    /// Makes the next pass of `context` add `wanted` to the weights, beside the fixed ones. The error is the
    /// first adapter that is not loaded.
    ///
    /// # Safety
    ///
    /// The context is alive, used by no other thread during the call, and one of the model that `self`
    /// belongs to.
    pub unsafe fn apply(
        &self,
        wanted: &[SpanAdapter],
        context: NonNull<sys::llama_context>,
        applied: &mut Applied,
    ) -> Result<(), AdapterId> {
        // llama.cpp plans its passes anew for another list.
        if applied.adapters.as_deref() == Some(wanted) && applied.freed == self.freed {
            return Ok(());
        }
        let mut list: Vec<(NonNull<_>, f32)> = self.fixed.iter().map(|(a, scale)| (a.0, *scale)).collect();
        for SpanAdapter { id, scale } in wanted {
            let adapter = self.loaded.iter().find(|(loaded, _)| loaded == id).ok_or(*id)?.1.0;
            list.push((adapter, *scale));
        }
        // SAFETY: by this function's contract; the adapters are those of the context's model.
        unsafe { set(context, &list) };
        *applied = Applied { adapters: Some(wanted.to_vec()), freed: self.freed };
        Ok(())
    }
}

impl Model {
    /// Loads an adapter from a checked GGUF, for all passes of all contexts. The error is llama.cpp's text.
    pub fn add_adapter(&mut self, gguf: &[u8], scale: f32) -> Result<(), String> {
        // SAFETY: the model is alive and borrowed mutably, so that it has no context. It owns the adapter.
        let adapter = unsafe { Adapter::load(self.ptr, gguf) }?;
        self.adapters.get_mut().unwrap_or_else(PoisonError::into_inner).fixed.push((adapter, scale));
        Ok(())
    }

    /// Loads an adapter from a checked GGUF, for passes that name it. Waits for running passes, which it
    /// delays for as long as the copy takes. The error is llama.cpp's text.
    pub fn load_adapter(&self, gguf: &[u8]) -> Result<AdapterId, String> {
        let mut adapters = self.adapters.write().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the model is alive and owns the adapter. Passes and the creation of contexts hold the lock
        // shared, so that none runs.
        let adapter = unsafe { Adapter::load(self.ptr, gguf) }?;
        let id = AdapterId(adapters.next);
        adapters.next += 1;
        adapters.loaded.push((id, adapter));
        Ok(id)
    }

    /// Frees an adapter once the running passes have ended; an unknown one is ignored.
    pub fn unload_adapter(&self, id: AdapterId) {
        let contexts = self.lock();
        let mut adapters = self.adapters.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = adapters.loaded.iter().position(|(loaded, _)| *loaded == id) else { return };
        let (_, adapter) = adapters.loaded.swap_remove(at);
        adapters.freed += 1;
        for context in &*contexts {
            // SAFETY: contexts leave the list before they are freed. This call changes the list of adapters
            // and the mark that the plan is outdated, which passes alone read, and none runs.
            unsafe { set(*context, &[]) };
        }
        // SAFETY: the adapter was loaded once, and neither this list nor a context has it any more. The
        // model's list of adapters, from which the call takes it, is read by passes alone.
        unsafe { sys::llama_adapter_lora_free(adapter.0.as_ptr()) };
    }
}

/// Sets the adapters of a context, with the factors on their products. Those that occur several times add up.
///
/// # Safety
///
/// The context is alive, runs no pass during the call, and is of the same model as the adapters.
unsafe fn set(context: NonNull<sys::llama_context>, list: &[(NonNull<sys::llama_adapter_lora>, f32)]) {
    let (mut pointers, mut scales) = (Vec::new(), Vec::<f32>::new());
    for (adapter, scale) in list {
        // llama.cpp would take the first scale alone.
        match pointers.iter().position(|pointer| *pointer == adapter.as_ptr()) {
            Some(at) => scales[at] += scale,
            None => {
                pointers.push(adapter.as_ptr());
                scales.push(*scale);
            }
        }
    }
    let count = pointers.len();
    // SAFETY: context and adapters by this function's contract. Both lists have `count` elements and are
    // copied by the call.
    unsafe {
        sys::llama_set_adapters_lora(context.as_ptr(), pointers.as_mut_ptr(), count, scales.as_mut_ptr())
    };
}
