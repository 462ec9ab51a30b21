//! Options of an engine.

use crate::args::{free, handle_mut, text};
use crate::error::{ExsaStatus, Failure, Result, guard, guard_pointer};
use exsa::core::backend::Pooling;
use exsa::{EngineBuilder, KvType, Mode};
use std::ffi::{c_char, c_void};

const MODES: [(&str, Mode); 3] =
    [("latency", Mode::Latency), ("throughput", Mode::Throughput), ("balanced", Mode::Balanced)];

const POOLINGS: [(&str, Pooling); 3] =
    [("mean", Pooling::Mean), ("first", Pooling::First), ("last", Pooling::Last)];

const BACKENDS: &[(&str, Backend)] = &[
    ("candle", Backend::Candle),
    #[cfg(feature = "llamacpp")]
    ("llamacpp", Backend::LlamaCpp),
];

/// Progress callback of a load: bytes loaded, total bytes, and the user pointer. Return true to continue,
/// false to cancel the load. It is called by the loading thread or a thread of the library, never
/// concurrently, and not after the load.
pub type ExsaProgress = Option<unsafe extern "C" fn(done: u64, total: u64, user_data: *mut c_void) -> bool>;

/// Options of an engine: a handle from exsa_options_new. Unset options keep their defaults. Only one thread
/// at a time may use it.
#[derive(Clone, Debug, Default)]
pub struct ExsaOptions {
    backend: Option<Backend>,
    device: Option<String>,
    draft_model: Option<String>,
    threads: Option<usize>,
    context_tokens: Option<usize>,
    sequences: Option<usize>,
    batch_tokens: Option<usize>,
    queue: Option<usize>,
    kv_bytes: Option<u64>,
    kv_types: Option<(KvType, KvType)>,
    memory: Option<u64>,
    mode: Option<Mode>,
    pooling: Option<Pooling>,
    progress: Option<Progress>,
}

#[derive(Clone, Copy, Debug)]
enum Backend {
    Candle,
    #[cfg(feature = "llamacpp")]
    LlamaCpp,
}

/// The host's callback and its pointer.
#[derive(Clone, Copy, Debug)]
struct Progress {
    call: unsafe extern "C" fn(u64, u64, *mut c_void) -> bool,
    user_data: *mut c_void,
}

// SAFETY: the library only passes the pointer on; exsa_options_set_progress requires that the function may be
// called with it from another thread.
unsafe impl Send for Progress {}

impl Progress {
    fn report(self, done: u64, total: u64) -> bool {
        // SAFETY: exsa_options_set_progress requires a function that may be called with its pointer until the
        // load ends.
        unsafe { (self.call)(done, total, self.user_data) }
    }
}

impl ExsaOptions {
    /// Returns a builder with these options.
    pub(crate) fn builder(&self) -> EngineBuilder {
        let mut builder = EngineBuilder::default();
        match self.backend {
            None | Some(Backend::Candle) => {}
            #[cfg(feature = "llamacpp")]
            Some(Backend::LlamaCpp) => builder = builder.backend(exsa::llamacpp::LlamaCppBackend::new()),
        }
        if let Some(device) = &self.device {
            builder = builder.device(device.clone());
        }
        if let Some(path) = &self.draft_model {
            builder = builder.draft_model(path);
        }
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        if let Some(bytes) = self.memory {
            builder = builder.memory_max(bytes);
        }
        if let Some(mode) = self.mode {
            builder = builder.mode(mode);
        }
        if let Some(progress) = self.progress {
            builder = builder.progress(move |done, total| progress.report(done, total));
        }
        self.limits(builder)
    }

    /// Applies the session options and limits.
    fn limits(&self, mut builder: EngineBuilder) -> EngineBuilder {
        if let Some(tokens) = self.context_tokens {
            builder = builder.context_tokens(tokens);
        }
        if let Some(sequences) = self.sequences {
            builder = builder.sequences(sequences);
        }
        if let Some(bytes) = self.kv_bytes {
            builder = builder.kv_bytes(bytes);
        }
        builder.options(|mut options| {
            options.session = options.session.pooling(self.pooling);
            if let Some((keys, values)) = self.kv_types {
                options.session = options.session.kv_types(keys, values);
            }
            if let Some(tokens) = self.batch_tokens {
                options.session = options.session.batch_tokens(tokens);
            }
            match self.queue {
                Some(requests) => options.queue_max(requests),
                None => options,
            }
        })
    }
}

/// Creates options with all defaults. Null if memory is exhausted. Free them with exsa_options_free. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn exsa_options_new() -> *mut ExsaOptions {
    guard_pointer(|| Ok(Box::into_raw(Box::default())))
}

/// Frees options; null is allowed. Engines loaded with them are not affected.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_free(options: *mut ExsaOptions) {
    // SAFETY: the caller's promise.
    unsafe { free(options) }
}

/// Changes options, as the body of a setter.
///
/// # Safety
///
/// That of the setters.
unsafe fn set(options: *mut ExsaOptions, change: impl FnOnce(&mut ExsaOptions) -> Result<()>) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise.
        change(unsafe { handle_mut(options, "options") }?)?;
        Ok(ExsaStatus::Ok)
    })
}

/// Sets the number of threads for loading and computing; 0 for the default, one per physical core.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_threads(options: *mut ExsaOptions, threads: usize) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.threads = Some(threads);
            Ok(())
        })
    }
}

/// Sets the context length: the maximum tokens of a sequence, prompt and answer together; by default the
/// context length of the model.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_context_tokens(
    options: *mut ExsaOptions,
    tokens: usize,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.context_tokens = Some(tokens);
            Ok(())
        })
    }
}

/// Sets the maximum number of concurrent sequences; 16 by default.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_sequences(
    options: *mut ExsaOptions,
    sequences: usize,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.sequences = Some(sequences);
            Ok(())
        })
    }
}

/// Sets the maximum tokens per forward pass; 512 by default.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_batch_tokens(
    options: *mut ExsaOptions,
    tokens: usize,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.batch_tokens = Some(tokens);
            Ok(())
        })
    }
}

/// Sets the maximum number of waiting requests; 1,024 by default. Further ones are refused with
/// EXSA_STATUS_BUSY.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_queue(options: *mut ExsaOptions, requests: usize) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.queue = Some(requests);
            Ok(())
        })
    }
}

/// Sets the maximum size of the KV cache in bytes; 1 GiB by default.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_kv_bytes(options: *mut ExsaOptions, bytes: u64) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.kv_bytes = Some(bytes);
            Ok(())
        })
    }
}

/// Refuses a model whose estimated memory exceeds `bytes`, before it is loaded; no limit by default.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_memory(options: *mut ExsaOptions, bytes: u64) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.memory = Some(bytes);
            Ok(())
        })
    }
}

/// Sets the element types of cached keys and values: "f32", "f16" (the default), "bf16", "q8_0", "q4_0". If
/// the backend does not support a type, the load fails with the list of supported types.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
/// with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_kv_types(
    options: *mut ExsaOptions,
    keys: *const c_char,
    values: *const c_char,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.kv_types = Some((kv_type(text(keys, "keys")?)?, kv_type(text(values, "values")?)?));
            Ok(())
        })
    }
}

/// Sets the scheduler mode: "latency", "throughput" or "balanced" (the default).
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
/// with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_mode(options: *mut ExsaOptions, mode: *const c_char) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.mode = Some(named(text(mode, "mode")?, "mode", &MODES)?);
            Ok(())
        })
    }
}

/// Sets the pooling of embeddings: "mean", "first" or "last"; by default that of the model.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
/// with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_pooling(
    options: *mut ExsaOptions,
    pooling: *const c_char,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.pooling = Some(named(text(pooling, "pooling")?, "pooling", &POOLINGS)?);
            Ok(())
        })
    }
}

/// Sets the backend: "candle" (the default), or "llamacpp" if the library was built with it.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
/// with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_backend(
    options: *mut ExsaOptions,
    backend: *const c_char,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.backend = Some(named(text(backend, "backend")?, "backend", BACKENDS)?);
            Ok(())
        })
    }
}

/// Sets the device by the backend's name for it, such as "cpu"; by default the backend's first device.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
/// with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_device(
    options: *mut ExsaOptions,
    device: *const c_char,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.device = Some(text(device, "device")?.into());
            Ok(())
        })
    }
}

/// Loads a draft model for speculative decoding: a smaller model with the same vocabulary.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses; the texts are null or end
/// with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_draft_model(
    options: *mut ExsaOptions,
    path: *const c_char,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.draft_model = Some(text(path, "path")?.into());
            Ok(())
        })
    }
}

/// Sets the progress callback of loads; null for none, the default.
///
/// # Safety
///
/// `options` is null or a handle that was not freed and that no other thread uses. `progress` is null or may
/// be called, with `user_data`, by any thread until the loads with these options have ended. It must not
/// unwind (C++ exceptions, longjmp).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_options_set_progress(
    options: *mut ExsaOptions,
    progress: ExsaProgress,
    user_data: *mut c_void,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(options, |options| {
            options.progress = progress.map(|call| Progress { call, user_data });
            Ok(())
        })
    }
}

fn kv_type(name: &str) -> Result<KvType> {
    named(name, "KV type", &KvType::ALL.map(|kv_type| (kv_type.name(), kv_type)))
}

/// Looks up a value by name.
fn named<T: Copy>(name: &str, option: &str, values: &[(&str, T)]) -> Result<T> {
    if let Some((_, value)) = values.iter().find(|(known, _)| *known == name) {
        return Ok(*value);
    }
    let names: Vec<&str> = values.iter().map(|(known, _)| *known).collect();
    Err(Failure::argument(format!("there is no {option} '{name}'; available: {}", names.join(", "))))
}
