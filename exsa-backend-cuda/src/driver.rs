//! NVIDIA's driver library: whether it is there, and has all that is called of it.
//!
//! cudarc loads the library at the first call and panics if it or a function is missing, so nothing of cudarc
//! is called before [`load`] has succeeded.

use crate::failure;
use cudarc::driver::sys;
use libloading::Library;
use std::panic::catch_unwind;
use std::sync::OnceLock;

/// Names of the library, in cudarc's order.
#[cfg(windows)]
const NAMES: [&str; 1] = ["nvcuda.dll"];
#[cfg(not(windows))]
const NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// The functions that this crate calls.
const FUNCTIONS: [&str; 32] = [
    "cuCtxCreate_v2",
    "cuCtxDestroy_v2",
    "cuCtxPopCurrent_v2",
    "cuCtxPushCurrent_v2",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuFuncGetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamQuery",
    "cuStreamSynchronize",
];

/// Loads and initializes the driver, once for the process; after a failure the next call tries again.
///
/// # Errors
///
/// The reason in words.
pub(crate) fn load() -> Result<(), String> {
    static LOADED: OnceLock<()> = OnceLock::new();
    if LOADED.get().is_some() {
        return Ok(());
    }
    check_library()?;
    // The library and its functions are there; should cudarc still not find them, its panic ends here.
    let result = catch_unwind(|| {
        // SAFETY: cuInit has no preconditions.
        let result = unsafe { sys::cuInit(0) };
        failure::text(result).map_or(Ok(()), Err)
    });
    match result {
        Ok(result) => result?,
        Err(_) => return Err("NVIDIA's driver library could not be loaded".to_owned()),
    }
    LOADED.get_or_init(|| ());
    Ok(())
}

/// Checks that the library can be loaded and has the functions.
fn check_library() -> Result<(), String> {
    // SAFETY: loading NVIDIA's driver runs its initializers, which have no preconditions.
    let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
    let Some(library) = library else {
        return Err(format!("NVIDIA's driver is not installed ({} not found)", NAMES.join(", ")));
    };
    for name in FUNCTIONS {
        // SAFETY: the symbol is only looked up, never called or read through this type.
        if unsafe { library.get::<unsafe extern "C" fn()>(name) }.is_err() {
            return Err(format!("NVIDIA's driver is too old: it has no {name}"));
        }
    }
    // The library stays loaded: unloading a driver is not safe.
    std::mem::forget(library);
    Ok(())
}

/// Version of CUDA that the driver supports, `(12, 4)`.
pub(crate) fn version() -> Option<(u32, u32)> {
    load().ok()?;
    let mut version = 0;
    // SAFETY: the driver is loaded, and the number outlives the call.
    let result = unsafe { sys::cuDriverGetVersion(&mut version) };
    let version = u32::try_from(version).ok()?;
    failure::text(result).is_none().then_some((version / 1000, version % 1000 / 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A function that is called but not looked up first would be a panic of cudarc on an old driver.
    #[test]
    fn all_functions_that_are_called_are_looked_up() {
        let sources = [
            include_str!("buffer.rs"),
            include_str!("context.rs"),
            include_str!("device.rs"),
            include_str!("devices.rs"),
            include_str!("driver.rs"),
            include_str!("failure.rs"),
            include_str!("staging.rs"),
            include_str!("stream.rs"),
        ];
        let prefix = concat!("sys::", "cu");
        let called: BTreeSet<String> = sources
            .iter()
            .flat_map(|source| source.split(prefix).skip(1))
            .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
            .map(|rest| format!("cu{rest}"))
            .collect();
        let listed: BTreeSet<String> = FUNCTIONS.into_iter().map(str::to_owned).collect();
        assert_eq!(called, listed);
    }

    #[test]
    fn a_missing_driver_has_a_reason() {
        match load() {
            Ok(()) => assert!(version().is_some_and(|(major, _)| major >= 11)),
            Err(reason) => assert!(reason.contains("driver") || reason.contains("CUDA"), "{reason}"),
        }
    }
}
