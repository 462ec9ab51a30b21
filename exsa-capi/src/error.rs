//! Status codes, the last failure of a thread, and the boundary that stops panics.

use exsa::Error;
use exsa::core::SubmitError;
use exsa::core::adapter::AdapterError;
use exsa::core::embed::EmbedError;
use exsa::{LoadError, RequestError};
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Result of a call. Negative values are failures, described by exsa_last_error.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExsaStatus {
    /// Success.
    Ok = 0,
    /// Nothing arrived within the timeout.
    Pending = 1,
    /// The answer has ended and everything was read.
    End = 2,
    /// A required pointer is null.
    NullPointer = -1,
    /// A text is not UTF-8.
    InvalidUtf8 = -2,
    /// An argument is out of range, or does not fit the state of the handle.
    InvalidArgument = -3,
    /// The caller's buffer is too small; the required length was stored.
    BufferTooSmall = -4,
    /// The model or the adapter could not be loaded.
    Load = -5,
    /// The request was refused: it exceeds the limits of the model.
    Refused = -6,
    /// The request was refused because the queue is full. A later retry may be accepted.
    Busy = -7,
    /// The request failed after it was accepted.
    Failed = -8,
    /// A bug in the library: it panicked. The handle may be freed and should not be used otherwise.
    Panic = -9,
}

/// A failure before it becomes status and message.
#[derive(Debug)]
pub(crate) struct Failure {
    status: ExsaStatus,
    message: String,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(status: ExsaStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(ExsaStatus::InvalidArgument, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Load(error) => error.into(),
            Error::Submit(error) => error.into(),
            Error::Request(error) => error.into(),
            Error::Embed(error) => error.into(),
            error => Self::new(ExsaStatus::Failed, error.to_string()),
        }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let status = match error {
            SubmitError::QueueFull { .. } => ExsaStatus::Busy,
            _ => ExsaStatus::Refused,
        };
        Self::new(status, error.to_string())
    }
}

/// Conversions of errors with one status each.
macro_rules! failures {
    ($($error:ty => $status:ident),+) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(ExsaStatus::$status, error.to_string())
            }
        }
    )+};
}

failures!(LoadError => Load, AdapterError => Load, RequestError => Failed, EmbedError => Failed);

/// The last failure of a thread.
struct Last {
    status: ExsaStatus,
    message: CString,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::new(Last { status: ExsaStatus::Ok, message: CString::default() });
}

/// Returns the status of the last failed call of this thread; EXSA_STATUS_OK if none has failed. Successful
/// calls do not reset it.
/// it.
#[unsafe(no_mangle)]
pub extern "C" fn exsa_last_error_status() -> ExsaStatus {
    LAST.try_with(|last| last.borrow().status).unwrap_or(ExsaStatus::Ok)
}

/// Returns the message of the last failed call of this thread: the invalid argument or file, and the allowed
/// values. Empty if none has failed; never null. Valid until the next failed call of this thread, but not
/// after the thread has ended.
#[unsafe(no_mangle)]
pub extern "C" fn exsa_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().message.as_ptr()).unwrap_or(c"".as_ptr())
}

/// Runs the body of a function. A failure or a panic becomes the thread's last failure.
pub(crate) fn guard(body: impl FnOnce() -> Result<ExsaStatus>) -> ExsaStatus {
    // Handles have no state that an interrupted call leaves inconsistent: engines and streams check
    // themselves, and the lock of an answer is poisoned.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => return status,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let message = format!("the library panicked: {}", panic_text(&*panic));
            // Its destructor could panic, too.
            std::mem::forget(panic);
            Failure::new(ExsaStatus::Panic, message)
        }
    };
    let Failure { status, message } = failure;
    // The storage of a thread that is ending is gone.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Last { status, message: c_text(message) });
    status
}

/// Like [`guard`], for functions that return a pointer: null on failure.
pub(crate) fn guard_pointer<T>(body: impl FnOnce() -> Result<*mut T>) -> *mut T {
    let mut pointer = std::ptr::null_mut();
    guard(|| {
        pointer = body()?;
        Ok(ExsaStatus::Ok)
    });
    pointer
}

/// Converts a text for C. A NUL inside would truncate it and is replaced.
pub(crate) fn c_text(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let text = String::from_utf8_lossy(&error.into_vec()).replace('\0', "\u{fffd}");
        CString::new(text).unwrap_or_default()
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
