//! NVRTC's library: the compiler, loaded at run time. Own bindings of ten functions: those of cudarc panic
//! where the library is missing, and find no later version than their own.

use crate::driver;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) type Program = *mut c_void;
type Code = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;

/// The functions of NVRTC. All return 0 for success.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions {
    pub version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    pub archs: unsafe extern "C" fn(*mut c_int) -> c_int,
    pub arch_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    pub create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    pub destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    pub compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    pub log: (Size, Code),
    pub machine_code: (Size, Code),
    pub text: (Size, Code),
    error: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// The loaded library.
#[derive(Debug)]
pub(crate) struct NvrtcLibrary {
    pub functions: Functions,
    /// Version, `(12, 9)`.
    pub version: (u32, u32),
    /// Numbers of the targets that it supports.
    pub targets: Vec<u32>,
    _library: Library,
}

impl NvrtcLibrary {
    /// The library, loaded once for the process; after a failure the next call tries again.
    ///
    /// # Errors
    ///
    /// The reason in words.
    pub fn get() -> Result<Arc<Self>, String> {
        static LOADED: Mutex<Option<Arc<NvrtcLibrary>>> = Mutex::new(None);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.is_none() {
            *loaded = Some(Arc::new(Self::load(&names(driver::version().map(|(major, _)| major)))?));
        }
        loaded.clone().ok_or_else(|| "NVRTC is not loaded".to_owned())
    }

    /// Loads the first library that is there.
    pub(crate) fn load(names: &[String]) -> Result<Self, String> {
        // SAFETY: loading NVRTC runs its initializers, which have no preconditions.
        let library = names.iter().find_map(|name| unsafe { Library::new(name) }.ok());
        let Some(library) = library else {
            return Err(format!(
                "NVRTC, which compiles the kernels, is not installed ({} not found): it is in the CUDA toolkit and in \
                 the Python package nvidia-cuda-nvrtc-cu12",
                names.join(", ")
            ));
        };
        let missing = |error: libloading::Error| format!("NVRTC is too old: {error}");
        macro_rules! get {
            ($name:literal) => {
                // SAFETY: the function has this type in every version of NVRTC since 11.2.
                *unsafe { library.get($name) }.map_err(missing)?
            };
        }
        let functions = Functions {
            version: get!("nvrtcVersion"),
            archs: get!("nvrtcGetSupportedArchs"),
            arch_count: get!("nvrtcGetNumSupportedArchs"),
            create: get!("nvrtcCreateProgram"),
            destroy: get!("nvrtcDestroyProgram"),
            compile: get!("nvrtcCompileProgram"),
            log: (get!("nvrtcGetProgramLogSize"), get!("nvrtcGetProgramLog")),
            machine_code: (get!("nvrtcGetCUBINSize"), get!("nvrtcGetCUBIN")),
            text: (get!("nvrtcGetPTXSize"), get!("nvrtcGetPTX")),
            error: get!("nvrtcGetErrorString"),
        };
        let (version, targets) = functions.facts()?;
        Ok(Self { functions, version, targets, _library: library })
    }
}

impl Functions {
    /// An error of NVRTC in words.
    pub fn check(&self, result: c_int) -> Result<(), String> {
        if result == 0 {
            return Ok(());
        }
        // SAFETY: any number may be asked for.
        let text = unsafe { (self.error)(result) };
        if text.is_null() {
            return Err(format!("NVRTC error {result}"));
        }
        // SAFETY: the strings are static and end in a zero.
        Err(format!("{} ({result})", unsafe { CStr::from_ptr(text) }.to_string_lossy()))
    }

    /// Version and targets.
    fn facts(&self) -> Result<((u32, u32), Vec<u32>), String> {
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the numbers outlive the calls.
        self.check(unsafe { (self.version)(&mut major, &mut minor) })?;
        // SAFETY: as above.
        self.check(unsafe { (self.arch_count)(&mut count) })?;
        let mut archs = vec![0; usize::try_from(count).unwrap_or(0).min(1000)];
        if !archs.is_empty() {
            // SAFETY: there are as many numbers as NVRTC said.
            self.check(unsafe { (self.archs)(archs.as_mut_ptr()) })?;
        }
        let unsigned = |n: c_int| u32::try_from(n).unwrap_or(0);
        Ok(((unsigned(major), unsigned(minor)), archs.into_iter().map(unsigned).collect()))
    }
}

/// Names of the library, best first: of the driver's CUDA version, since older drivers refuse later machine
/// code, then of older versions, then of later ones.
fn names(driver: Option<u32>) -> Vec<String> {
    let driver = driver.unwrap_or(12);
    let mut majors = [13, 12, 11];
    majors.sort_by_key(|major| (*major > driver, driver.abs_diff(*major)));
    let mut names: Vec<String> = majors.into_iter().map(versioned).collect();
    if cfg!(not(windows)) {
        names.extend(["libnvrtc.so", "/usr/local/cuda/lib64/libnvrtc.so"].map(str::to_owned));
    }
    names
}

fn versioned(major: u32) -> String {
    match (cfg!(windows), major) {
        (true, 11) => "nvrtc64_112_0.dll".to_owned(),
        (true, _) => format!("nvrtc64_{major}0_0.dll"),
        // NVRTC 11.2 to 11.8 call themselves so.
        (false, 11) => "libnvrtc.so.11.2".to_owned(),
        (false, _) => format!("libnvrtc.so.{major}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_version_comes_first() {
        let place = |driver, major| names(driver).iter().position(|name| *name == versioned(major));
        assert!(place(Some(12), 12) < place(Some(12), 11) && place(Some(12), 11) < place(Some(12), 13));
        assert!(place(Some(13), 13) < place(Some(13), 12));
        assert!(place(Some(14), 13) < place(Some(14), 12));
        assert_eq!(place(None, 12), Some(0));
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = NvrtcLibrary::load(&["libexsa-no-such-library.so".to_owned()]).err();
        assert!(error.is_some_and(|text| text.contains("libexsa-no-such-library.so not found")));
    }
}
