//! Checks an NVIDIA GPU: every kernel against plain arithmetic, models against the candle backend,
//! conformance, speed. One JSON report, written anew after each part, so that a run that is cut off leaves
//! what it has. `scripts/gpu-check` prepares and runs it on machines that have nothing else installed.
#![forbid(unsafe_code)]

mod compare;
mod conformance;
mod kernels;
mod options;
mod report;
mod speed;

use clap::Parser;
use exsa_backend_cuda::CudaDevices;
use exsa_backend_cuda::compile::{self, Capability, KernelCache};
use exsa_benches::progress::say;
use exsa_core::backend::{DeviceInfo, ModelSource};
use exsa_gpu::device::Devices;
use exsa_gpu::kernel::Module;
use options::Options;
use report::Report;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
            return if error.print().is_ok() { code } else { ExitCode::FAILURE };
        }
    };
    let done = match options.compile.is_empty() {
        true => check(&options),
        false => compile_all(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Compiles all kernels for the given targets into the cache, without a GPU.
fn compile_all(options: &Options) -> Result<bool, String> {
    let cache = KernelCache::new(options.kernels.clone());
    let (major, minor) = compile::nvrtc_version()?;
    say(format_args!("NVRTC {major}.{minor}"));
    let mut is_clean = true;
    for number in &options.compile {
        for module in Module::all() {
            let code =
                compile::compile(module, Capability::of(*number), &cache).map_err(|e| e.to_string())?;
            say(format_args!("sm_{number} {}: {} bytes", module.name(), code.image().len()));
            if !code.log().is_empty() {
                say(code.log());
                is_clean = false;
            }
        }
    }
    Ok(is_clean)
}

fn check(options: &Options) -> Result<bool, String> {
    #[cfg(feature = "emulated")]
    if options.emulated {
        return check_on(exsa_gpu_emulated::EmulatedDevices::new(), options, json!("emulated"));
    }
    let mut devices = CudaDevices::new();
    if options.kernels.is_some() {
        devices = devices.cache(options.kernels.clone());
    }
    let nvrtc = match compile::nvrtc_version() {
        Ok((major, minor)) => json!(format!("{major}.{minor}")),
        Err(reason) => json!({ "missing": reason }),
    };
    let about = match (devices.unavailable(), devices.open(None)) {
        (None, Ok(device)) => json!({
            "device": device.description(),
            "driver": CudaDevices::driver_version().map(|(major, minor)| format!("{major}.{minor}")),
            "nvrtc": nvrtc,
        }),
        (Some(reason), _) => json!({ "missing": reason, "nvrtc": nvrtc }),
        (None, Err(error)) => json!({ "missing": error.to_string(), "nvrtc": nvrtc }),
    };
    check_on(devices, options, about)
}

/// All parts on the preferred device.
fn check_on<P: Devices + Clone>(
    devices: P,
    options: &Options,
    about: serde_json::Value,
) -> Result<bool, String> {
    let mut report = Report::new(&options.folder, options.seconds)?;
    report.set("about", about)?;
    if let Some(reason) = devices.unavailable() {
        say(format_args!("no GPU: {reason}. Nothing was checked."));
        report.set("result", json!("no GPU"))?;
        return Ok(false);
    }
    let listed: Vec<_> = devices.list().iter().map(listed).collect();
    report.set("devices", json!(listed))?;
    let models = models(options)?;
    let part = |name: &str| options.parts.is_empty() || options.parts.iter().any(|part| part == name);
    if part("kernels") {
        report.part("kernels", |_| kernels::check(&devices))?;
    }
    if part("models") {
        report.part("models", |_| compare::check(&devices, &models))?;
    }
    if part("speed") {
        report.part("speed", |time| speed::measure(&devices, options, time))?;
    }
    if part("conformance") {
        report.part("conformance", |time| conformance::check(&devices, &models, time))?;
    }
    report.finish()
}

fn listed(device: &DeviceInfo) -> serde_json::Value {
    json!({ "name": device.name, "memory": device.memory_total })
}

/// A model to check, and its name.
type Named = (String, ModelSource);

/// The built-in model and those of the folder, by name.
fn models(options: &Options) -> Result<Vec<Named>, String> {
    let mut models = vec![("built-in".to_owned(), ModelSource::Embedded(exsa_tiny::GGUF))];
    let Some(folder) = &options.models else { return Ok(models) };
    let problem = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files: Vec<PathBuf> =
        folder.read_dir().map_err(problem)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "gguf")) {
        models.push((name_of(&path), ModelSource::file(path)));
    }
    Ok(models)
}

fn name_of(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
