//! Request functions: prompt, sampling, limits.

use crate::args::{array, clear, free, give, handle_mut, text};
use crate::error::{ExsaStatus, Failure, Result, guard, guard_pointer};
use exsa::core::adapter::RequestAdapter;
use exsa::{Constraint, Message, Prompt, Request};
use std::ffi::c_char;
use std::time::Duration;

/// A generation request: a handle from exsa_request_new or exsa_request_from_json. It can be submitted any
/// number of times, to any engine. Only one thread at a time may use it.
#[derive(Clone, Debug)]
pub struct ExsaRequest {
    request: Request,
}

impl ExsaRequest {
    pub(crate) fn request(&self) -> &Request {
        &self.request
    }
}

/// Creates a request: a conversation without messages, with default settings. Null if memory is exhausted.
/// Free it with exsa_request_free. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn exsa_request_new() -> *mut ExsaRequest {
    guard_pointer(|| Ok(Box::into_raw(Box::new(ExsaRequest { request: Request::chat([]) }))))
}

/// Creates a request from JSON in the form of OpenAI's API: "messages" or "prompt", and any further field
/// documented by the crate exsa-core, such as "tools", "response_format", "logprobs" and "n". Nothing is
/// filtered: do not pass untrusted JSON. Any thread.
///
/// # Safety
///
/// `json` is null or ends with NUL; `request` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_from_json(
    json: *const c_char,
    request: *mut *mut ExsaRequest,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise, here and below.
        unsafe { clear(request) }?;
        // SAFETY: as above.
        let json = unsafe { text(json, "json") }?;
        let parsed = serde_json::from_str(json)
            .map_err(|error| Failure::argument(format!("json is no request: {error}")))?;
        // SAFETY: as above.
        unsafe { give(ExsaRequest { request: parsed }, request) }
    })
}

/// Frees a request; null is allowed. Its answers are not affected.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_free(request: *mut ExsaRequest) {
    // SAFETY: the caller's promise.
    unsafe { free(request) }
}

/// Changes a request, as the body of a setter.
///
/// # Safety
///
/// That of the setters.
unsafe fn set(request: *mut ExsaRequest, change: impl FnOnce(&mut Request) -> Result<()>) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise.
        change(&mut unsafe { handle_mut(request, "request") }?.request)?;
        Ok(ExsaStatus::Ok)
    })
}

/// Adds a message to the conversation: `role` is "system", "user", "assistant", "tool" or another role that
/// the model's chat template knows. Replaces a prompt that was set before.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
/// or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_add_message(
    request: *mut ExsaRequest,
    role: *const c_char,
    content: *const c_char,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            let message = Message::new(text(role, "role")?, text(content, "content")?);
            match &mut request.prompt {
                Prompt::Chat(messages) => messages.push(message),
                prompt => *prompt = Prompt::Chat(vec![message]),
            }
            Ok(())
        })
    }
}

/// Sets a text prompt to complete, without a chat template, instead of the conversation.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
/// or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_prompt(
    request: *mut ExsaRequest,
    prompt: *const c_char,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.prompt = Prompt::Text(text(prompt, "prompt")?.into());
            Ok(())
        })
    }
}

/// Sets token ids to complete, used unchanged, instead of the conversation.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses; `tokens` has
/// `len` elements, or is null with a length of 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_prompt_tokens(
    request: *mut ExsaRequest,
    tokens: *const u32,
    len: usize,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.prompt = Prompt::Tokens(array(tokens, len, "tokens")?.to_vec());
            Ok(())
        })
    }
}

/// Sets the maximum tokens to generate; 0, the default, generates until the model ends or the context is
/// full.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_max_tokens(request: *mut ExsaRequest, tokens: usize) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.max_tokens = (tokens > 0).then_some(tokens);
            Ok(())
        })
    }
}

/// Sets the seed: the same request with the same seed gives the same answer. Each answer reports its seed.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_seed(request: *mut ExsaRequest, seed: u64) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.sampling.seed = Some(seed);
            Ok(())
        })
    }
}

/// Sets the temperature; 0 is greedy.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_temperature(
    request: *mut ExsaRequest,
    temperature: f32,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.sampling.temperature = temperature;
            Ok(())
        })
    }
}

/// Sets top-k: keeps the `k` most probable tokens; 0 keeps all.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_top_k(request: *mut ExsaRequest, k: u32) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.sampling.top_k = (k > 0).then_some(k);
            Ok(())
        })
    }
}

/// Sets top-p: keeps the most probable tokens whose probabilities sum to `p`; 1 keeps all.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_top_p(request: *mut ExsaRequest, p: f32) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.sampling.top_p = p;
            Ok(())
        })
    }
}

/// Sets min-p: keeps tokens with at least `p` times the probability of the most probable one; 0 keeps all.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_min_p(request: *mut ExsaRequest, p: f32) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.sampling.min_p = p;
            Ok(())
        })
    }
}

/// Sets the repetition penalty: divides the logits of tokens that occurred by `penalty`; 1 is off.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_repetition_penalty(
    request: *mut ExsaRequest,
    penalty: f32,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.sampling.repetition_penalty = penalty;
            Ok(())
        })
    }
}

/// Adds a stop string, which ends the answer and is not part of it.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
/// or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_add_stop(request: *mut ExsaRequest, stop: *const c_char) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.stop.push(text(stop, "stop")?.into());
            Ok(())
        })
    }
}

/// Restricts the answer to JSON that matches a schema, given as JSON. A schema that cannot be enforced is
/// refused at submission.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
/// or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_json_schema(
    request: *mut ExsaRequest,
    schema: *const c_char,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.constraint = Some(Constraint::json_schema(text(schema, "schema")?));
            Ok(())
        })
    }
}

/// Adds a loaded LoRA adapter (exsa_engine_load_adapter); a scale of 1 is its trained strength.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
/// or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_add_adapter(
    request: *mut ExsaRequest,
    name: *const c_char,
    scale: f32,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.adapters.push(RequestAdapter { name: text(name, "name")?.into(), scale });
            Ok(())
        })
    }
}

/// Ends the request with EXSA_FINISH_TIMEOUT when `milliseconds` have passed since its submission; 0, the
/// default, is no limit.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_timeout(
    request: *mut ExsaRequest,
    milliseconds: u64,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.timeout = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
            Ok(())
        })
    }
}

/// Sets the user for fair scheduling between users. Requests without a user count as one user.
///
/// # Safety
///
/// `request` is null or a handle that was not freed and that no other thread uses; the texts are null
/// or end with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_request_set_user(request: *mut ExsaRequest, user: *const c_char) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe {
        set(request, |request| {
            request.user = Some(text(user, "user")?.into());
            Ok(())
        })
    }
}
