//! The answer to one request, read piece by piece.

use crate::args::{free, handle};
use crate::error::{ExsaStatus, Failure, Result, guard};
use crate::text::Piece;
use exsa::core::stream::TextStream;
use exsa::{CancelHandle, Engine, FinishReason, TokenStream};
use std::ffi::c_char;
use std::fmt;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// Finish reason of an answer.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExsaFinish {
    /// The answer has not ended, its end was not read yet, or another thread is reading it.
    None = 0,
    /// The model ended its answer, or a stop string appeared.
    Stop = 1,
    /// The token limit was reached, or the context is full.
    Length = 2,
    /// A tool call was complete.
    ToolCall = 3,
    /// A banned string could not be avoided.
    BannedString = 4,
    /// The request was cancelled.
    Cancelled = 5,
    /// A deadline of the request passed.
    Timeout = 6,
    /// The request failed.
    Failed = 7,
    /// A reason that is not in this header.
    Other = 8,
}

/// Token counts and times of a request. Later versions may add fields at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ExsaUsage {
    /// Prompt tokens, including BOS.
    pub prompt_tokens: u64,
    /// Prompt tokens whose KV was cached.
    pub cached_tokens: u64,
    /// Generated tokens, including the one that ended the answer.
    pub completion_tokens: u64,
    /// The seed of the answer.
    pub seed: u64,
    /// Seconds from submission to admission; negative if it was never admitted.
    pub queue_seconds: f64,
    /// Seconds from submission to the first token; negative if there was none.
    pub first_token_seconds: f64,
    /// Seconds from submission to the end.
    pub total_seconds: f64,
}

/// An answer in progress: a handle from exsa_engine_submit. Only one thread at a time may read it; any thread
/// may cancel it meanwhile. It may be freed before or after its engine.
pub struct ExsaAnswer {
    cancel: CancelHandle,
    reader: Mutex<Reader>,
}

/// Handles are used by several threads concurrently.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<ExsaAnswer>();
};

struct Reader {
    // Dropped before the engine, which ends with the last handle, so that the request is not cancelled in an
    // engine that has ended.
    stream: TextStream,
    piece: Piece,
    /// Keeps the engine running.
    _engine: Engine,
}

impl fmt::Debug for ExsaAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExsaAnswer").finish_non_exhaustive()
    }
}

impl ExsaAnswer {
    pub(crate) fn new(stream: TokenStream, engine: Engine) -> Self {
        let cancel = stream.cancel_handle();
        let reader = Reader { stream: stream.into_text_stream(), piece: Piece::default(), _engine: engine };
        Self { cancel, reader: Mutex::new(reader) }
    }

    fn reader(&self) -> Result<MutexGuard<'_, Reader>> {
        self.reader.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Failure::argument("another thread is reading the answer"),
            TryLockError::Poisoned(_) => {
                Failure::new(ExsaStatus::Panic, "the library panicked while the answer was read")
            }
        })
    }
}

impl Reader {
    /// Reads the next text into `piece`.
    fn next_text(&mut self, timeout: Duration) -> Result<ExsaStatus> {
        match self.stream.next_timeout(timeout) {
            Some(text) => self.piece.set(&text?),
            None => return Ok(self.nothing()),
        }
        Ok(ExsaStatus::Ok)
    }

    /// Reads the next event as JSON into `piece`.
    fn next_event(&mut self, timeout: Duration) -> Result<ExsaStatus> {
        let Some(event) = self.stream.get_mut().next_timeout(timeout) else { return Ok(self.nothing()) };
        let json = serde_json::to_string(&event)
            .map_err(|error| Failure::new(ExsaStatus::Failed, format!("an event is no JSON: {error}")))?;
        self.piece.set(&json);
        Ok(ExsaStatus::Ok)
    }

    /// Returns the status if nothing was read.
    fn nothing(&mut self) -> ExsaStatus {
        self.piece.set("");
        if self.stream.finished().is_some() { ExsaStatus::End } else { ExsaStatus::Pending }
    }
}

/// Waits for the next piece of text, for at most `timeout_ms` milliseconds (0: does not wait; negative: no
/// limit), and stores its address and its length in bytes.
///
/// Returns EXSA_STATUS_OK with a piece, EXSA_STATUS_PENDING on timeout, EXSA_STATUS_END after the last piece,
/// and EXSA_STATUS_FAILED once if the request failed. A piece is UTF-8, not empty, NUL-terminated, and valid
/// until the next call that reads or frees the answer. The concatenated pieces are the text of the first
/// answer, without reasoning and tool calls (for these, use exsa_answer_next_event). One thread at a time.
///
/// # Safety
///
/// `answer` is null or a handle that was not freed; `text` is null or has room for a pointer; `len` is null
/// or has room for a size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_answer_next(
    answer: *const ExsaAnswer,
    timeout_ms: i64,
    text: *mut *const c_char,
    len: *mut usize,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe { read(answer, timeout_ms, text, len, Reader::next_text) }
}

/// Like exsa_answer_next, for the next event as JSON: {"type": "token", ...}, also "reasoning", "tool_call",
/// "malformed_tool_call", "prompt", "answer_finished" and finally "finished", whose "reason" has the error of
/// a failed request. Text that was read as an event is not returned by exsa_answer_next. One thread at a
/// time.
///
/// # Safety
///
/// `answer` is null or a handle that was not freed; `json` is null or has room for a pointer; `len` is null
/// or has room for a size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_answer_next_event(
    answer: *const ExsaAnswer,
    timeout_ms: i64,
    json: *mut *const c_char,
    len: *mut usize,
) -> ExsaStatus {
    // SAFETY: the caller's promise.
    unsafe { read(answer, timeout_ms, json, len, Reader::next_event) }
}

/// Body of the reading functions.
///
/// # Safety
///
/// That of the two functions.
unsafe fn read(
    answer: *const ExsaAnswer,
    timeout_ms: i64,
    text: *mut *const c_char,
    len: *mut usize,
    next: fn(&mut Reader, Duration) -> Result<ExsaStatus>,
) -> ExsaStatus {
    guard(|| {
        if text.is_null() {
            return Err(Failure::new(ExsaStatus::NullPointer, "the place for the text is null"));
        }
        // SAFETY: the caller's promise.
        let mut reader = unsafe { handle(answer, "answer") }?.reader()?;
        let timeout = u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis);
        let status = next(&mut reader, timeout);
        if status.is_err() {
            reader.piece.set("");
        }
        // SAFETY: the caller's promise. The text lives in the handle until it is read from again.
        unsafe { reader.piece.show(text, len) }?;
        status
    })
}

/// Cancels the request; no effect once it has ended. Text generated before, and the end, can still be read.
/// Any thread, even while another one reads the answer.
///
/// # Safety
///
/// `answer` is null or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_answer_cancel(answer: *const ExsaAnswer) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { handle(answer, "answer") }?.cancel.cancel();
        Ok(ExsaStatus::Ok)
    })
}

/// Returns the finish reason, once EXSA_STATUS_END or EXSA_STATUS_FAILED was read; EXSA_FINISH_NONE before,
/// for a null answer, and while another thread reads. Any thread.
///
/// # Safety
///
/// `answer` is null or a handle that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_answer_finish(answer: *const ExsaAnswer) -> ExsaFinish {
    // SAFETY: the caller's promise.
    let Some(answer) = (unsafe { answer.as_ref() }) else { return ExsaFinish::None };
    let Ok(reader) = answer.reader.try_lock() else { return ExsaFinish::None };
    reader.stream.finished().map_or(ExsaFinish::None, |finished| finish(&finished.reason))
}

/// Stores token counts, times and seed of the request in `usage`, which has room for `size` bytes: pass
/// sizeof(ExsaUsage). Bytes after the fields known to the library are zeroed; a smaller size is refused.
/// Returns EXSA_STATUS_PENDING until the end was read. Any thread while none reads.
///
/// # Safety
///
/// `answer` is null or a handle that was not freed; `usage` is null or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_answer_usage(
    answer: *const ExsaAnswer,
    usage: *mut ExsaUsage,
    size: usize,
) -> ExsaStatus {
    guard(|| {
        // SAFETY: the caller's promise.
        let reader = unsafe { handle(answer, "answer") }?.reader()?;
        if usage.is_null() {
            return Err(Failure::new(ExsaStatus::NullPointer, "usage is null"));
        }
        let known = size_of::<ExsaUsage>();
        if !(known..=USAGE_BYTES_MAX).contains(&size) {
            let problem =
                format!("the size of usage is {size} bytes; {known} to {USAGE_BYTES_MAX} are allowed");
            return Err(Failure::argument(problem));
        }
        let Some(finished) = reader.stream.finished() else { return Ok(ExsaStatus::Pending) };
        let seconds = |time: Option<Duration>| time.map_or(-1.0, |time| time.as_secs_f64());
        let of = &finished.usage;
        let value = ExsaUsage {
            prompt_tokens: of.prompt_tokens as u64,
            cached_tokens: of.cached_tokens as u64,
            completion_tokens: of.completion_tokens as u64,
            seed: finished.seed.unwrap_or_default(),
            queue_seconds: seconds(of.queue_time),
            first_token_seconds: seconds(of.time_to_first_token),
            total_seconds: of.total_time.as_secs_f64(),
        };
        // SAFETY: not null, and room for `size` bytes by the caller's promise, of which `known` are no more.
        unsafe {
            usage.cast::<u8>().write_bytes(0, size);
            usage.write(value);
        }
        Ok(ExsaStatus::Ok)
    })
}

/// Maximum size of the structure in a later header.
const USAGE_BYTES_MAX: usize = 4096;

/// Frees an answer; null is allowed. A running request is cancelled.
///
/// # Safety
///
/// `answer` is null or a handle that was not freed and that no other thread uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn exsa_answer_free(answer: *mut ExsaAnswer) {
    // SAFETY: the caller's promise.
    unsafe { free(answer) }
}

fn finish(reason: &FinishReason) -> ExsaFinish {
    match reason {
        FinishReason::EndOfGeneration | FinishReason::StopToken(_) | FinishReason::StopString(_) => {
            ExsaFinish::Stop
        }
        FinishReason::MaxTokens | FinishReason::ContextFull => ExsaFinish::Length,
        FinishReason::ToolCall => ExsaFinish::ToolCall,
        FinishReason::BannedString(_) => ExsaFinish::BannedString,
        FinishReason::Cancelled => ExsaFinish::Cancelled,
        FinishReason::Deadline | FinishReason::FirstTokenTimeout => ExsaFinish::Timeout,
        FinishReason::Failed(_) => ExsaFinish::Failed,
        _ => ExsaFinish::Other,
    }
}
