//! Converts C arguments to Rust values, with all checks that are possible on pointers.

use crate::error::{ExsaStatus, Failure, Result};
use std::ffi::{CStr, c_char};

/// Maximum bytes of a slice in Rust.
const BYTES_MAX: usize = isize::MAX as usize;

fn null(name: &str) -> Failure {
    Failure::new(ExsaStatus::NullPointer, format!("{name} is null"))
}

/// Returns a handle as a reference.
///
/// # Safety
///
/// `handle` is null or points to a `T` that lives and is not written for `'a`.
pub(crate) unsafe fn handle<'a, T>(handle: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_ref() }.ok_or_else(|| null(name))
}

/// Returns a handle as a mutable reference.
///
/// # Safety
///
/// `handle` is null or points to a `T` that lives and is used by no other thread for `'a`.
pub(crate) unsafe fn handle_mut<'a, T>(handle: *mut T, name: &str) -> Result<&'a mut T> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_mut() }.ok_or_else(|| null(name))
}

/// Writes a result to a location that may be uninitialized.
///
/// # Safety
///
/// `place` is null or has room for a `T` that no other thread uses.
pub(crate) unsafe fn put<T>(place: *mut T, value: T, name: &str) -> Result<()> {
    if place.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}

/// Reads a NUL-terminated text.
///
/// # Safety
///
/// `text` is null or points to bytes that end with NUL and are not written for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: not null, and the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) };
    bytes.to_str().map_err(|error| {
        let problem = format!("{name} is not UTF-8 after {} bytes", error.valid_up_to());
        Failure::new(ExsaStatus::InvalidUtf8, problem)
    })
}

/// Reads an array; a null pointer is only allowed for an empty one.
///
/// # Safety
///
/// `items` is null or points to `len` values that are not written for `'a`.
pub(crate) unsafe fn array<'a, T>(items: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_array(items, len, name)?;
    // SAFETY: not null, aligned, not longer than a slice may be, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(items, len) })
}

fn check_array<T>(items: *const T, len: usize, name: &str) -> Result<()> {
    if items.is_null() {
        return Err(null(name));
    }
    if !items.is_aligned() {
        return Err(Failure::argument(format!("{name} is not aligned for its type")));
    }
    match len.checked_mul(size_of::<T>()) {
        Some(bytes) if bytes <= BYTES_MAX => Ok(()),
        _ => Err(Failure::argument(format!("{name} has {len} elements, more than memory can hold"))),
    }
}

/// Copies `values` to the caller's buffer of `capacity` elements, and their number to `len`.
///
/// # Safety
///
/// `buffer` is null or points to `capacity` elements that no other thread uses; `len` is null or points to a
/// size that no other thread uses.
pub(crate) unsafe fn copy_out<T: Copy>(
    values: &[T],
    buffer: *mut T,
    capacity: usize,
    len: *mut usize,
) -> Result<ExsaStatus> {
    // SAFETY: the caller's promise.
    unsafe { put(len, values.len(), "the place for the length") }?;
    if values.len() > capacity {
        return Err(too_small(values.len(), capacity));
    }
    if !values.is_empty() {
        check_array(buffer, capacity, "the buffer")?;
        // SAFETY: the buffer is not null and aligned, has room for the values by the caller's promise, and
        // cannot overlap them, which the library owns.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), buffer, values.len()) };
    }
    Ok(ExsaStatus::Ok)
}

pub(crate) fn too_small(needed: usize, capacity: usize) -> Failure {
    let problem = format!("the buffer has room for {capacity} elements, but {needed} are needed");
    Failure::new(ExsaStatus::BufferTooSmall, problem)
}

/// Stores a new handle in `place`.
///
/// # Safety
///
/// `place` is null or points to a pointer that no other thread uses.
pub(crate) unsafe fn give<T>(value: T, place: *mut *mut T) -> Result<ExsaStatus> {
    // SAFETY: the caller's promise.
    unsafe { put(place, Box::into_raw(Box::new(value)), "the place for the handle") }?;
    Ok(ExsaStatus::Ok)
}

/// Sets the location of a new handle to null, for the case that the call fails.
///
/// # Safety
///
/// As [`give`].
pub(crate) unsafe fn clear<T>(place: *mut *mut T) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { put(place, std::ptr::null_mut(), "the place for the handle") }
}

/// Frees a handle; null is allowed.
///
/// # Safety
///
/// `handle` is null or was made by [`give`] or [`Box::into_raw`], was not freed, and is used by no other
/// thread.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // A panicking destructor must not unwind into C.
        crate::error::guard(|| {
            // SAFETY: the caller's promise: the box was made for this pointer and is taken back once.
            drop(unsafe { Box::from_raw(handle) });
            Ok(ExsaStatus::Ok)
        });
    }
}
