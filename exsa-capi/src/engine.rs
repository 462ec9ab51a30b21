//! Engine functions: loading, submitting, tokens, embeddings, adapters.

use crate::answer::ExsaAnswer;
use crate::args::{array, clear, copy_out, free, give, handle, put, text, too_small};
use crate::error::{ExsaStatus, Failure, Result, c_text, guard};
use crate::options::ExsaOptions;
use crate::request::ExsaRequest;
use exsa::{Engine, ModelSource};
use std::ffi::{CString, c_char};

/// A loaded model and the thread that serves it: a handle from exsa_engine_load. Any number of threads may
/// use it concurrently. It may be freed before its answers, which then run to their end.
#[derive(Debug)]
pub struct ExsaEngine {
    engine: Engine,
    name: CString,
}

/// Handles are used by several threads concurrently.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<ExsaEngine>();
};

fn load(source: impl Into<ModelSource>, options: Option<&ExsaOptions>) -> Result<ExsaEngine> {
    let builder = options.map(ExsaOptions::builder).unwrap_or_default();
    let engine = builder.load(source)?;
    let name = c_text(engine.model().name.clone());
    Ok(ExsaEngine { engine, name })
}

/// Loads a GGUF file and starts an engine on it; returns when the model is loaded. `options` may be null. Any
/// thread.
///
/// # Safety
///
/// `path` is null or ends with NUL; `options` is null or a handle that was not freed and that no other thread
/// changes; `engine` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_load(
    path: *const c_char,
    options: *const ExsaOptions,
    engine: *mut *mut ExsaEngine,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for all arguments.
        let (path, options) = unsafe {
            clear(engine)?;
            (text(path, "path")?, options.as_ref())
        };
        let loaded = load(path, options)?;
        // SAFETY: the caller's promise.
        unsafe { give(loaded, engine) }
    })
}

/// Loads a GGUF from memory; the bytes are copied. Otherwise like exsa_engine_load. Any thread.
///
/// # Safety
///
/// `bytes` has `len` elements, or is null with a length of 0; `options` is null or a handle that was not
/// freed and that no other thread changes; `engine` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_load_bytes(
    bytes: *const u8,
    len: usize,
    options: *const ExsaOptions,
    engine: *mut *mut ExsaEngine,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for all arguments.
        let (bytes, options) = unsafe {
            clear(engine)?;
            (array(bytes, len, "bytes")?, options.as_ref())
        };
        let loaded = load(bytes.to_vec(), options)?;
        // SAFETY: the caller's promise.
        unsafe { give(loaded, engine) }
    })
}

/// Frees the handle of an engine; null is allowed. The engine ends with the last of its answers; if there is
/// none, this call waits until it has ended. Answers continue until their own handles are freed.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_free(engine: *mut ExsaEngine) {
    // SAFETY: the caller's promise.
    unsafe { free(engine) }
}

/// Submits a request and returns immediately with a handle of its answer. Any thread.
///
/// # Safety
///
/// `engine` and `request` are null or handles that were not freed, the request one that no other thread
/// changes; `answer` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_submit(
    engine: *const ExsaEngine,
    request: *const ExsaRequest,
    answer: *mut *mut ExsaAnswer,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for all arguments.
        let (engine, request) = unsafe {
            clear(answer)?;
            (handle(engine, "engine")?, handle(request, "request")?)
        };
        let stream = engine.engine.submit(request.request().clone())?;
        let submitted = ExsaAnswer::new(stream, engine.engine.clone());
        // SAFETY: the caller's promise.
        unsafe { give(submitted, answer) }
    })
}

/// Counts the tokens of a request's prompt, with the chat template and BOS. Any thread.
///
/// # Safety
///
/// `engine` and `request` are null or handles that were not freed, the request one that no other thread
/// changes; `tokens` is null or has room for a size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_count_tokens(
    engine: *const ExsaEngine,
    request: *const ExsaRequest,
    tokens: *mut usize,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for both arguments.
        let (engine, request) = unsafe { (handle(engine, "engine")?, handle(request, "request")?) };
        let counted = engine.engine.count_tokens(request.request())?;
        // SAFETY: the caller's promise.
        unsafe { put(tokens, counted, "tokens") }?;
        Ok(ExsaStatus::Ok)
    })
}

/// Copies the token ids of a text to `tokens`, which has room for `capacity` ids, and stores their number in
/// `len`, also if it returns EXSA_STATUS_BUFFER_TOO_SMALL. BOS and EOS are not added, and control tokens in
/// the text are encoded as plain text. Any thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed; `input` is null or ends with NUL; `tokens` has room for
/// `capacity` ids, or is null; `len` is null or has room for a size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_tokenize(
    engine: *const ExsaEngine,
    input: *const c_char,
    tokens: *mut u32,
    capacity: usize,
    len: *mut usize,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for both arguments.
        let (engine, input) = unsafe { (handle(engine, "engine")?, text(input, "input")?) };
        let ids = engine.engine.tokenize(input);
        // SAFETY: the caller's promise.
        unsafe { copy_out(&ids, tokens, capacity, len) }
    })
}

/// Copies the text of token ids to `output`, which has room for `capacity` bytes including NUL, and stores
/// its length with NUL in `len`, also if it returns EXSA_STATUS_BUFFER_TOO_SMALL. Control tokens have no
/// text; invalid UTF-8 becomes U+FFFD. Any thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed; `tokens` has `count` elements, or is null with a count of
/// 0; `output` has room for `capacity` bytes, or is null; `len` is null or has room for a size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_detokenize(
    engine: *const ExsaEngine,
    tokens: *const u32,
    count: usize,
    output: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for both arguments.
        let (engine, tokens) = unsafe { (handle(engine, "engine")?, array(tokens, count, "tokens")?) };
        let text = c_text(engine.engine.detokenize(tokens));
        // SAFETY: the caller's promise; bytes and chars of C are alike.
        unsafe { copy_out(text.as_bytes_with_nul(), output.cast(), capacity, len) }
    })
}

/// Embeds `count` texts, blocks until their vectors are ready, and copies these to `values` one after
/// another, each with exsa_engine_embedding_width values and length 1. `capacity` is the room in values. A
/// model without a pooling type of its own needs exsa_options_set_pooling. Any thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed; `texts` has `count` elements, each null or ending with
/// NUL, or is null with a count of 0; `values` has room for `capacity` values, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_embed(
    engine: *const ExsaEngine,
    texts: *const *const c_char,
    count: usize,
    values: *mut f32,
    capacity: usize,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for both arguments.
        let (engine, texts) = unsafe { (handle(engine, "engine")?, array(texts, count, "texts")?) };
        let width = engine.engine.model().n_embd;
        // Checked before the work, not after it.
        match count.checked_mul(width) {
            Some(needed) if needed <= capacity => {}
            needed => return Err(too_small(needed.unwrap_or(usize::MAX), capacity)),
        }
        let texts: Vec<&str> = texts
            .iter()
            .enumerate()
            // SAFETY: the caller's promise, for each element.
            .map(|(index, item)| unsafe { text(*item, &format!("text {index}")) })
            .collect::<Result<_>>()?;
        let vectors = engine.engine.embed_texts(texts)?;
        if let Some(odd) = vectors.iter().find(|vector| vector.len() != width) {
            let problem = format!("the model gave a vector of {} values in place of {width}", odd.len());
            return Err(Failure::new(ExsaStatus::Failed, problem));
        }
        let mut len = 0;
        // SAFETY: the caller's promise; the length is our own.
        unsafe { copy_out(&vectors.concat(), values, capacity, &raw mut len) }
    })
}

/// Loads a LoRA adapter (a GGUF file) that requests can then use by name; passes continue meanwhile. Any
/// thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed; the texts are null or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_load_adapter(
    engine: *const ExsaEngine,
    name: *const c_char,
    path: *const c_char,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for all arguments.
        let (engine, name, path) =
            unsafe { (handle(engine, "engine")?, text(name, "name")?, text(path, "path")?) };
        engine.engine.load_adapter(name, &path.into())?;
        Ok(ExsaStatus::Ok)
    })
}

/// Unloads an adapter. Running requests keep using it. Any thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed; `name` is null or ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_unload_adapter(
    engine: *const ExsaEngine,
    name: *const c_char,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, for both arguments.
        let (engine, name) = unsafe { (handle(engine, "engine")?, text(name, "name")?) };
        engine.engine.unload_adapter(name)?;
        Ok(ExsaStatus::Ok)
    })
}

/// Returns the name of the model, from its file. Valid until the engine is freed; null for a null engine. Any
/// thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_model_name(engine: *const ExsaEngine) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { engine.as_ref() }.map_or(std::ptr::null(), |engine| engine.name.as_ptr())
}

/// Returns the context length: the maximum tokens of a sequence, prompt and answer together; 0 for a null
/// engine. Any thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_context_tokens(engine: *const ExsaEngine) -> usize {
    // SAFETY: the caller's promise.
    unsafe { engine.as_ref() }.map_or(0, |engine| engine.engine.info().capabilities.context_tokens_max)
}

/// Returns the vocabulary size; 0 for a null engine. Any thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_vocabulary_size(engine: *const ExsaEngine) -> usize {
    // SAFETY: the caller's promise.
    unsafe { engine.as_ref() }.map_or(0, |engine| engine.engine.model().n_vocab)
}

/// Returns the number of values of an embedding; 0 for a null engine. Any thread.
///
/// # Safety
///
/// `engine` is null or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_engine_embedding_width(engine: *const ExsaEngine) -> usize {
    // SAFETY: the caller's promise.
    unsafe { engine.as_ref() }.map_or(0, |engine| engine.engine.model().n_embd)
}
