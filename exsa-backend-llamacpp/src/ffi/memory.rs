//! Memory of models and contexts as reported by llama.cpp.

use llama_cpp_sys_2 as sys;
use std::ptr::NonNull;

unsafe extern "C" {
    /// Writes the bytes of weights, KV and compute buffers of `context` to `out`; `false` if that failed. In
    /// `memory.cpp`.
    fn exsa_llama_memory(context: *const sys::llama_context, out: *mut [u64; 3]) -> bool;
}

/// Bytes of a model and of one of its contexts, over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryUse {
    /// Weights.
    pub weights: u64,
    /// KV cells and recurrent states.
    pub kv: u64,
    /// Compute buffers, sized for the largest pass.
    pub compute: u64,
}

impl MemoryUse {
    /// The memory of `context` and its model; `None` if llama.cpp cannot tell.
    ///
    /// # Safety
    ///
    /// The context and its model are alive, and no other thread uses the context during the call.
    pub unsafe fn of(context: NonNull<sys::llama_context>) -> Option<Self> {
        let mut bytes = [0; 3];
        // SAFETY: the context by this function's contract; `bytes` has the three elements that are written.
        let known = unsafe { exsa_llama_memory(context.as_ptr(), &mut bytes) };
        let [weights, kv, compute] = bytes;
        known.then_some(Self { weights, kv, compute })
    }
}
