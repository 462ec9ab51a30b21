//! Contexts: the KV of several sequences, and the forward pass.

use super::abort::{AbortCheck, on_abort};
use super::adapter::Applied;
use super::memory::MemoryUse;
use super::model::Model;
use super::threads::PassThreads;
use crate::kv_type::KvTypes;
use crate::log;
use crate::options::{ContextOptions, FlashAttention, RopeScaling};
use exsa_core::AdapterId;
use exsa_core::backend::{Interrupt, KvType, Pooling, ThreadTeam};
use exsa_core::batch::{Span, SpanAdapter};
use exsa_core::error::LoadError;
use llama_cpp_sys_2 as sys;
use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

/// Settings of a context. Every number was checked to fit an `i32`.
pub(crate) struct ContextSettings<'a> {
    pub options: &'a ContextOptions,
    /// Cells of KV over all sequences.
    pub cells: usize,
    pub kv_types: KvTypes,
    pub sequences: usize,
    /// One pool of cells for all sequences.
    pub unified: bool,
    pub batch_tokens: usize,
    pub ubatch_tokens: usize,
    /// Maximum number of output rows of a pass.
    pub outputs: usize,
    pub decode_threads: usize,
    pub prefill_threads: usize,
    /// Team to share threads with, which has `decode_threads`.
    pub team: Option<ThreadTeam>,
    /// Pooling of a text's token embeddings, if the context computes embeddings.
    pub pooling: Option<Pooling>,
    pub interrupt: Interrupt,
}

/// How a pass ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    Done,
    /// Too few cells were free.
    Full,
    Interrupted,
    /// Reading the interrupt panicked with this message, which ended the pass.
    Panicked(String),
    /// This adapter is not loaded.
    NoAdapter(AdapterId),
    /// llama.cpp's code of another failure.
    Failed(i32),
}

/// A context. Its `drop` frees the context itself first, then the fields go in order.
pub(crate) struct Context {
    ptr: NonNull<sys::llama_context>,
    memory: sys::llama_memory_t,
    threads: PassThreads,
    abort: Box<AbortCheck>,
    arrays: BatchArrays,
    /// Whether passes output embeddings instead of logits.
    outputs_embeddings: bool,
    applied: Applied,
    model: Arc<Model>,
}

/// Arrays of a batch in the layout of `llama_batch`.
#[derive(Default)]
struct BatchArrays {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    /// One sequence for each token.
    counts: Vec<i32>,
    sequences: Vec<sys::llama_seq_id>,
    rows: Vec<i8>,
}

// SAFETY: llama.cpp ties a context to no thread, and `Context` is used by one at a time.
unsafe impl Send for Context {}

impl Context {
    /// Creates a context of `model`.
    pub fn new(model: Arc<Model>, settings: &ContextSettings<'_>) -> Result<Self, LoadError> {
        let abort = AbortCheck::new(settings.interrupt.clone());
        let ptr = create(&model, settings, &abort)?;
        model.lock().push(ptr);
        let most = settings.decode_threads.max(settings.prefill_threads) as c_int;
        let threads = PassThreads::new(most, settings.team.as_ref());
        // SAFETY: the context was created just now; the thread pool is freed after it, and passes are run by
        // `threads` alone.
        let memory = unsafe {
            if let Some(pool) = threads.pool() {
                sys::llama_attach_threadpool(ptr.as_ptr(), pool, pool);
                // A pass with more threads than its pool would write past the pool's end under OpenMP.
                let count = |n: usize| threads.count().min(n as c_int);
                let (decode, prefill) = (settings.decode_threads, settings.prefill_threads);
                sys::llama_set_n_threads(ptr.as_ptr(), count(decode), count(prefill));
            }
            sys::llama_get_memory(ptr.as_ptr())
        };
        Ok(Self {
            ptr,
            memory,
            threads,
            abort,
            arrays: BatchArrays::default(),
            outputs_embeddings: settings.pooling.is_some(),
            applied: Applied::default(),
            model,
        })
    }

    /// Memory of `model` and of a context with `settings`, which is freed again. A model of a dry run makes
    /// it allocate nothing but the rows of its output.
    pub fn measure(model: &Model, settings: &ContextSettings<'_>) -> Result<MemoryUse, LoadError> {
        let abort = AbortCheck::new(settings.interrupt.clone());
        let ptr = create(model, settings, &abort)?;
        let lock = model.lock();
        // SAFETY: the context was created just now, is used by nothing else, and is freed once. `abort`
        // outlives it.
        let memory = unsafe {
            let memory = MemoryUse::of(ptr);
            sys::llama_free(ptr.as_ptr());
            memory
        };
        drop(lock);
        memory.ok_or_else(|| LoadError::Backend("llama.cpp could not tell its memory".to_owned()))
    }

    /// Current memory of the context and its model.
    #[cfg(test)]
    pub fn memory_use(&self) -> MemoryUse {
        // SAFETY: context and model are alive, and the context is used by one thread at a time.
        unsafe { MemoryUse::of(self.ptr) }.unwrap()
    }

    /// Cells over all sequences, cells of one sequence, and tokens in a batch, as llama.cpp rounded them.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let context = self.ptr.as_ptr();
        // SAFETY: the context lives.
        let sizes = unsafe {
            (sys::llama_n_ctx(context), sys::llama_n_ctx_seq(context), sys::llama_n_batch(context))
        };
        (sizes.0 as usize, sizes.1 as usize, sizes.2 as usize)
    }

    /// Whether the context holds KV at all. Encoders do not.
    pub fn has_memory(&self) -> bool {
        !self.memory.is_null()
    }

    /// Runs a batch of `spans`, each with the number of its stream, with `adapters` for all of them; rows of
    /// logits are in the order of the spans. The batch was checked: it is not empty, not over the limit, its
    /// inputs are tokens, and all sequences and tokens exist.
    pub fn decode(&mut self, spans: &[(u32, Span<'_>)], adapters: &[SpanAdapter]) -> Decoded {
        // Over the whole pass: none of its adapters is freed meanwhile.
        let loaded = self.model.adapters();
        // SAFETY: the context lives, is borrowed mutably, and is of this model.
        if let Err(id) = unsafe { loaded.apply(adapters, self.ptr, &mut self.applied) } {
            return Decoded::NoAdapter(id);
        }
        let mut sequences = self.arrays.fill(spans);
        let arrays = &mut self.arrays;
        let batch = sys::llama_batch {
            n_tokens: arrays.tokens.len() as i32,
            token: arrays.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: arrays.positions.as_mut_ptr(),
            n_seq_id: arrays.counts.as_mut_ptr(),
            seq_id: sequences.as_mut_ptr(),
            logits: arrays.rows.as_mut_ptr(),
        };
        let context = self.ptr.as_ptr();
        // SAFETY: the context lives and is borrowed mutably; each array has `n_tokens` elements and outlives
        // the call.
        let code = self.threads.run(|| unsafe { sys::llama_decode(context, batch) });
        drop(loaded);
        if let Some(message) = self.abort.take_panic() {
            return Decoded::Panicked(message);
        }
        match code {
            0 => Decoded::Done,
            1 => Decoded::Full,
            2 => Decoded::Interrupted,
            code => Decoded::Failed(code),
        }
    }

    /// The logits of the last pass, which asked for `rows` rows.
    pub fn logits(&self, rows: usize) -> &[f32] {
        if rows == 0 {
            return &[];
        }
        // SAFETY: the context lives; the call waits until the pass has finished.
        let logits = unsafe { sys::llama_get_logits(self.ptr.as_ptr()) };
        if logits.is_null() {
            return &[];
        }
        // SAFETY: the pass output `rows` rows of `n_vocab` values. They are valid until the next call that
        // changes the context, which needs it mutably.
        unsafe { std::slice::from_raw_parts(logits, rows * self.model.n_vocab()) }
    }

    /// Selects the output of passes: embeddings, or logits.
    pub fn output_embeddings(&mut self, embeddings: bool) {
        if self.outputs_embeddings != embeddings {
            self.outputs_embeddings = embeddings;
            // SAFETY: the context lives.
            unsafe { sys::llama_set_embeddings(self.ptr.as_ptr(), embeddings) };
        }
    }

    /// The pooled embedding of `seq` from the last pass, of `width` values; empty if there is none.
    pub fn embedding(&self, seq: u32, width: usize) -> &[f32] {
        // SAFETY: the context lives; the call waits until the pass has finished.
        let embedding = unsafe { sys::llama_get_embeddings_seq(self.ptr.as_ptr(), seq as i32) };
        if embedding.is_null() {
            return &[];
        }
        // SAFETY: an embedding has as many values as the model's width for this pooling. It is valid until
        // the next pass, which needs the context mutably.
        unsafe { std::slice::from_raw_parts(embedding, width) }
    }

    /// Whether tokens see only those before them.
    pub fn is_causal(&self) -> bool {
        // SAFETY: the context lives.
        unsafe { sys::llama_get_causal_attn(self.ptr.as_ptr()) }
    }

    /// Removes all but the first `len` tokens of `seq`; returns `false` if that is impossible.
    pub fn truncate(&mut self, seq: u32, len: usize) -> bool {
        // SAFETY: the memory belongs to the context, and the sequence exists.
        self.memory.is_null() || unsafe { sys::llama_memory_seq_rm(self.memory, seq as i32, len as i32, -1) }
    }

    /// Makes the empty `to` share the first `len` tokens of `from`, in a context with one pool of cells.
    pub fn share(&mut self, from: u32, to: u32, len: usize) {
        // SAFETY: the memory belongs to the context, and the sequences exist.
        unsafe { sys::llama_memory_seq_cp(self.memory, from as i32, to as i32, 0, len as i32) };
    }

    /// Schedules a copy of stream `from` to the empty stream `to`, done when the next pass begins. Only in a
    /// context with one stream per sequence.
    pub fn copy_stream(&mut self, from: u32, to: u32) {
        // SAFETY: the memory belongs to the context, and the sequences exist. Copies across streams are of
        // all positions.
        unsafe { sys::llama_memory_seq_cp(self.memory, from as i32, to as i32, -1, -1) };
    }

    /// Tokens that llama.cpp holds for `seq`.
    pub fn held(&self, seq: u32) -> usize {
        // SAFETY: the memory belongs to the context, and the sequence exists.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory, seq as i32) };
        usize::try_from(last.saturating_add(1)).unwrap_or(0)
    }

    /// Returns the state of `seq`; `None` if llama.cpp cannot save it.
    pub fn state(&self, seq: u32) -> Option<Vec<u8>> {
        let context = self.ptr.as_ptr();
        // SAFETY: the context lives, and the sequence exists.
        let size = unsafe { sys::llama_state_seq_get_size(context, seq as i32) };
        let mut state = vec![0; size];
        // SAFETY: `state` has `size` bytes.
        let written = unsafe { sys::llama_state_seq_get_data(context, state.as_mut_ptr(), size, seq as i32) };
        (written > 0 && written == size).then_some(state)
    }

    /// Fills the empty sequence `seq` from a [`state`](Self::state); returns `false` if llama.cpp refuses it.
    pub fn set_state(&mut self, seq: u32, state: &[u8]) -> bool {
        // SAFETY: the context lives, the sequence exists, and `state` is readable over its length.
        let read = unsafe {
            sys::llama_state_seq_set_data(self.ptr.as_ptr(), state.as_ptr(), state.len(), seq as i32)
        };
        read > 0
    }

    /// Replaces the content of `seq` by a [`state`](Self::state); an empty one empties the sequence. Returns
    /// `false` if llama.cpp refuses it.
    pub fn replace_state(&mut self, seq: u32, state: &[u8]) -> bool {
        self.truncate(seq, 0) && (state.is_empty() || self.set_state(seq, state))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let mut contexts = self.model.lock();
        contexts.retain(|context| *context != self.ptr);
        // SAFETY: this value owns the context. Threads, abort check and model, which it uses, are dropped
        // after it.
        unsafe { sys::llama_free(self.ptr.as_ptr()) };
    }
}

impl BatchArrays {
    /// Fills the arrays with `spans` and returns a pointer to the sequence of each token.
    fn fill(&mut self, spans: &[(u32, Span<'_>)]) -> Vec<*mut sys::llama_seq_id> {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.rows.clear();
        for (sequence, span) in spans {
            for (i, &token) in span.token_ids().unwrap_or_default().iter().enumerate() {
                self.tokens.push(token as i32);
                self.positions.push((span.position + i) as i32);
                self.sequences.push(*sequence as i32);
                self.rows.push(i8::from(i >= span.len() - span.rows));
            }
        }
        self.counts.resize(self.tokens.len(), 1);
        self.sequences.iter_mut().map(std::ptr::from_mut).collect()
    }
}

/// Creates a llama.cpp context. The caller frees it before `abort` and the model go.
fn create(
    model: &Model,
    settings: &ContextSettings<'_>,
    abort: &AbortCheck,
) -> Result<NonNull<sys::llama_context>, LoadError> {
    // SAFETY: returns a structure by value.
    let mut params = unsafe { sys::llama_context_default_params() };
    let number = |n: usize| u32::try_from(n).unwrap_or(i32::MAX as u32);
    params.n_ctx = number(settings.cells);
    params.n_seq_max = number(settings.sequences);
    params.n_batch = number(settings.batch_tokens);
    params.n_ubatch = number(settings.ubatch_tokens);
    params.n_outputs_max = number(settings.outputs);
    params.n_threads = number(settings.decode_threads) as c_int;
    params.n_threads_batch = number(settings.prefill_threads) as c_int;
    params.kv_unified = settings.unified;
    params.no_perf = true;
    params.abort_callback = Some(on_abort);
    params.abort_callback_data = abort.as_ptr();
    params.embeddings = settings.pooling.is_some();
    params.pooling_type = pooling_type(settings.pooling)?;
    params.type_k = ggml_type("key_type", settings.kv_types.keys)?;
    params.type_v = ggml_type("value_type", settings.kv_types.values)?;
    apply(settings.options, &mut params);

    let _lock = model.lock();
    // The first plan reads the model's list of adapters.
    let _adapters = model.adapters();
    // SAFETY: the model lives and its locks are held; `abort` outlives the context by this function's
    // contract.
    let (ptr, errors) =
        log::with_errors(|| unsafe { sys::llama_init_from_model(model.ptr.as_ptr(), params) });
    let reason = || if errors.is_empty() { "llama.cpp created no context".to_owned() } else { errors };
    NonNull::new(ptr).ok_or_else(|| LoadError::Backend(reason()))
}

fn apply(options: &ContextOptions, params: &mut sys::llama_context_params) {
    params.offload_kqv = options.kv_on_device;
    params.swa_full = options.swa_full;
    params.flash_attn_type = match options.flash_attention {
        FlashAttention::Auto => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
        FlashAttention::On => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        FlashAttention::Off => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
    };
    let rope = &options.rope;
    if let Some(scaling) = rope.scaling {
        params.rope_scaling_type = match scaling {
            RopeScaling::None => sys::LLAMA_ROPE_SCALING_TYPE_NONE,
            RopeScaling::Linear => sys::LLAMA_ROPE_SCALING_TYPE_LINEAR,
            RopeScaling::Yarn => sys::LLAMA_ROPE_SCALING_TYPE_YARN,
        };
    }
    let set = |field: &mut f32, value: Option<f32>| *field = value.unwrap_or(*field);
    set(&mut params.rope_freq_base, rope.freq_base);
    set(&mut params.rope_freq_scale, rope.freq_scale);
    set(&mut params.yarn_ext_factor, rope.yarn_ext_factor);
    set(&mut params.yarn_attn_factor, rope.yarn_attn_factor);
    set(&mut params.yarn_beta_fast, rope.yarn_beta_fast);
    set(&mut params.yarn_beta_slow, rope.yarn_beta_slow);
    params.yarn_orig_ctx = rope.yarn_orig_ctx.unwrap_or(params.yarn_orig_ctx);
}

fn pooling_type(pooling: Option<Pooling>) -> Result<sys::llama_pooling_type, LoadError> {
    Ok(match pooling {
        None => sys::LLAMA_POOLING_TYPE_NONE,
        Some(Pooling::Mean) => sys::LLAMA_POOLING_TYPE_MEAN,
        Some(Pooling::First) => sys::LLAMA_POOLING_TYPE_CLS,
        Some(Pooling::Last) => sys::LLAMA_POOLING_TYPE_LAST,
        Some(Pooling::Rank) => sys::LLAMA_POOLING_TYPE_RANK,
        Some(other) => {
            let problem = format!("{other:?} is not known to llama.cpp");
            return Err(LoadError::Option { option: "pooling", problem });
        }
    })
}

fn ggml_type(option: &'static str, kv_type: KvType) -> Result<sys::ggml_type, LoadError> {
    Ok(match kv_type {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
        other => {
            let problem = format!("{other} is not known to llama.cpp");
            return Err(LoadError::Option { option, problem });
        }
    })
}
