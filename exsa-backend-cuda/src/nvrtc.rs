//! Compilation by NVRTC.

use crate::nvrtc_library::{Functions, NvrtcLibrary, Program};
use crate::target::Target;
use std::ffi::{CString, c_int};
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Options besides the target. Part of the cache's key.
pub(crate) const OPTIONS: [&str; 1] = ["--std=c++17"];

/// Failures of a compilation.
#[derive(Debug)]
pub(crate) enum CompileFailure {
    /// The compiler's messages.
    Source(String),
    /// Other errors of NVRTC.
    Nvrtc(String),
}

/// The output of a compilation.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Machine code, or text that ends in a zero.
    pub code: Vec<u8>,
    /// The compiler's messages: empty without warnings.
    pub log: String,
}

/// A program, destroyed at the end.
struct Owned<'a>(&'a Functions, Program);

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: the program was created and is not used again.
        unsafe { (self.0.destroy)(&mut self.1) };
    }
}

/// Compiles `source`, called `name` in messages.
pub(crate) fn compile(
    library: &NvrtcLibrary,
    source: &str,
    name: &str,
    target: Target,
) -> Result<Compiled, CompileFailure> {
    // One compilation at a time: how much of NVRTC may run at once depends on its version.
    static RUNNING: Mutex<()> = Mutex::new(());
    let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let functions = &library.functions;
    let text = |s: &str| CString::new(s).map_err(|error| CompileFailure::Nvrtc(error.to_string()));
    let (source, name) = (text(source)?, text(name)?);
    let target_option = format!("--gpu-architecture={}", target.name());
    let options: Vec<CString> = OPTIONS
        .iter()
        .chain([&target_option.as_str()])
        .map(|option| text(option))
        .collect::<Result<_, _>>()?;
    let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let mut program = ptr::null_mut();
    // SAFETY: the strings end in a zero and outlive the program; there are no headers.
    let created = unsafe {
        (functions.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, ptr::null(), ptr::null())
    };
    functions.check(created).map_err(CompileFailure::Nvrtc)?;
    let program = Owned(functions, program);
    let count = c_int::try_from(pointers.len()).unwrap_or(0);
    // SAFETY: the program exists, and there are as many options.
    let compiled = functions.check(unsafe { (functions.compile)(program.1, count, pointers.as_ptr()) });
    let log = read(&program, functions.log).unwrap_or_default();
    let log =
        String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).trim().to_owned();
    if let Err(text) = compiled {
        return Err(if log.is_empty() { CompileFailure::Nvrtc(text) } else { CompileFailure::Source(log) });
    }
    let code = match target {
        Target::Machine(_) => read(&program, functions.machine_code),
        Target::Text(_) => read(&program, functions.text),
    };
    let code = code.map_err(CompileFailure::Nvrtc)?;
    if code.is_empty() {
        return Err(CompileFailure::Nvrtc(format!("NVRTC gave no code for {}", target.name())));
    }
    Ok(Compiled { code, log })
}

type Parts = (
    unsafe extern "C" fn(Program, *mut usize) -> c_int,
    unsafe extern "C" fn(Program, *mut std::ffi::c_char) -> c_int,
);

/// A result of a program, by the functions for its size and bytes.
fn read(program: &Owned<'_>, (size, bytes): Parts) -> Result<Vec<u8>, String> {
    let mut length = 0;
    // SAFETY: the program exists, the number outlives the call.
    program.0.check(unsafe { size(program.1, &mut length) })?;
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut out = vec![0; length];
    // SAFETY: there are as many bytes as NVRTC said.
    program.0.check(unsafe { bytes(program.1, out.as_mut_ptr().cast()) })?;
    Ok(out)
}
