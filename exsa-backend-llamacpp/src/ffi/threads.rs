//! Threads of the CPU backend: of one session, or shared by several.

use super::device::{Kind, devices};
use exsa_core::backend::ThreadTeam;
use llama_cpp_sys_2 as sys;
use std::convert::Infallible;
use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::sync::Arc;

type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type Free = unsafe extern "C" fn(*mut sys::ggml_threadpool);

/// Threads for a context's passes. They live as long as the context: llama.cpp keeps a pointer to the pool of
/// the last pass, even after the pool was detached.
pub(super) struct PassThreads {
    pool: Option<Arc<Threads>>,
    team: Option<ThreadTeam>,
}

/// Value of a team: the pool shared by the contexts of its sessions.
#[derive(Clone)]
struct SharedPool(Option<Arc<Threads>>);

impl PassThreads {
    /// Creates a pool of `threads` threads, including the caller's; with `team`, uses the team's pool.
    pub fn new(threads: c_int, team: Option<&ThreadTeam>) -> Self {
        let start = || SharedPool(Threads::new(threads).map(Arc::new));
        let SharedPool(pool) = match team {
            Some(team) => on_team(team, start, |pool| pool.clone()),
            None => start(),
        };
        Self { pool, team: team.cloned() }
    }

    /// The pool to attach to the context; `None` if the CPU backend has no pools.
    pub fn pool(&self) -> Option<*mut sys::ggml_threadpool> {
        self.pool.as_deref().map(|threads| threads.pool.as_ptr())
    }

    /// Number of threads; without a pool, llama.cpp starts as many as a pass asks for.
    pub fn count(&self) -> c_int {
        self.pool.as_deref().map_or(c_int::MAX, |threads| threads.count)
    }

    /// Runs a pass of the context. On a shared pool, waits for earlier passes, since a pool computes one
    /// graph at a time.
    pub fn run<R>(&self, pass: impl FnOnce() -> R) -> R {
        match &self.team {
            Some(team) => on_team(team, || SharedPool(self.pool.clone()), |_| pass()),
            None => pass(),
        }
    }
}

/// Calls `work` with the pool of `team`, when it is this caller's turn.
fn on_team<R>(
    team: &ThreadTeam,
    start: impl FnOnce() -> SharedPool,
    work: impl FnOnce(&mut SharedPool) -> R,
) -> R {
    match team.run(|_| Ok::<_, Infallible>(start()), work) {
        Ok(result) => result,
        Err(never) => match never {},
    }
}

/// A thread pool. Without one, llama.cpp would start and end threads in every pass.
struct Threads {
    pool: NonNull<sys::ggml_threadpool>,
    count: c_int,
    free: Free,
}

impl Threads {
    /// Creates a pool of `threads` threads, including the caller's; `None` if the CPU backend has no pools.
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
        NonNull::new(pool).map(|pool| Self { pool, count: threads, free })
    }
}

// SAFETY: a pool is tied to no thread: any thread may compute with it, one at a time, and free it.
unsafe impl Send for Threads {}
// SAFETY: the pool is reached through its pointer in passes alone, which `PassThreads::run` runs one at a
// time where contexts share it.
unsafe impl Sync for Threads {}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: the pool came from the function's counterpart, and the contexts that used it are freed.
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
