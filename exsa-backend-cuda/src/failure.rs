//! Results of the driver as errors.

use cudarc::driver::sys::{self, CUresult};
use std::ffi::CStr;
use std::ptr;

/// The driver's words for a failure; `None` for success. The driver is loaded.
pub(crate) fn text(result: CUresult) -> Option<String> {
    if result == CUresult::CUDA_SUCCESS {
        return None;
    }
    let mut text = ptr::null();
    // SAFETY: the pointer outlives the call.
    let named = unsafe { sys::cuGetErrorString(result, &mut text) };
    let known = named == CUresult::CUDA_SUCCESS && !text.is_null();
    // SAFETY: the driver's strings are static and end in a zero.
    let words =
        if known { unsafe { CStr::from_ptr(text) }.to_string_lossy() } else { "unknown error".into() };
    let mut name = ptr::null();
    // SAFETY: as above.
    let named = unsafe { sys::cuGetErrorName(result, &mut name) };
    let known = named == CUresult::CUDA_SUCCESS && !name.is_null();
    // SAFETY: as above.
    let name = if known { unsafe { CStr::from_ptr(name) }.to_string_lossy() } else { "CUDA error".into() };
    Some(format!("{words} ({name}, {})", result as u32))
}

/// Whether the context is unusable after this result.
pub(crate) fn is_loss(result: CUresult) -> bool {
    matches!(
        result,
        CUresult::CUDA_ERROR_DEINITIALIZED
            | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUresult::CUDA_ERROR_INVALID_CONTEXT
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUresult::CUDA_ERROR_CONTAINED
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_EXTERNAL_DEVICE
            | CUresult::CUDA_ERROR_UNKNOWN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_contexts_are_told_from_refusals() {
        assert!(is_loss(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
        assert!(is_loss(CUresult::CUDA_ERROR_LAUNCH_FAILED));
        for usable in
            [CUresult::CUDA_SUCCESS, CUresult::CUDA_ERROR_OUT_OF_MEMORY, CUresult::CUDA_ERROR_INVALID_VALUE]
        {
            assert!(!is_loss(usable), "{usable:?}");
        }
    }
}
