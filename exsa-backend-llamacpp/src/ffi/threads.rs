//! Threads of the CPU backend that belong to one session.

use super::device::{Kind, devices};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type Free = unsafe extern "C" fn(*mut sys::ggml_threadpool);

/// A thread pool. Without one, llama.cpp would start and end threads in every pass.
pub(super) struct Threads {
    pool: NonNull<sys::ggml_threadpool>,
    free: Free,
}

impl Threads {
    /// A pool of `threads` threads, the caller's included; `None` if the CPU backend has no pools.
    pub fn new(threads: c_int) -> Option<Self> {
        // SAFETY: these are the signatures of the two names in ggml-cpu.h, and a null pointer becomes `None`.
        // They are looked up because the backend may be a library that was loaded at run time.
        let (new, free) = unsafe {
            (
                std::mem::transmute::<*mut std::ffi::c_void, Option<New>>(function(c"ggml_threadpool_new"))?,
                std::mem::transmute::<*mut std::ffi::c_void, Option<Free>>(function(
                    c"ggml_threadpool_free",
                ))?,
            )
        };
        // SAFETY: the parameters outlive the call, which copies them.
        let pool = unsafe {
            let mut params = sys::ggml_threadpool_params_default(threads);
            new(&mut params)
        };
        NonNull::new(pool).map(|pool| Self { pool, free })
    }

    pub fn as_ptr(&self) -> *mut sys::ggml_threadpool {
        self.pool.as_ptr()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: the pool came from the function's counterpart, and the context that used it is freed.
        unsafe { (self.free)(self.pool.as_ptr()) };
    }
}

/// The CPU backend's function of this name; null if there is none.
fn function(name: &CStr) -> *mut std::ffi::c_void {
    let Some(cpu) = devices().into_iter().find(|device| device.kind == Kind::Cpu) else {
        return std::ptr::null_mut();
    };
    // SAFETY: the device exists, and the name ends with a NUL.
    unsafe {
        sys::ggml_backend_reg_get_proc_address(sys::ggml_backend_dev_backend_reg(cpu.ptr), name.as_ptr())
    }
}
