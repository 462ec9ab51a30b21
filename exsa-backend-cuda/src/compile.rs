//! Machine code of the kernels: from the cache, or by NVRTC. Not part of the public interface.

pub use crate::cache::KernelCache;
use crate::nvrtc::{self, CompileFailure, OPTIONS};
use crate::nvrtc_library::NvrtcLibrary;
pub use crate::target::Capability;
use crate::target::Target;
use exsa_core::backend::Fingerprint;
use exsa_gpu::device::DeviceError;
use exsa_gpu::kernel::{Language, Module};

/// Compiled module that the driver loads.
#[derive(Debug)]
pub struct MachineCode {
    image: Vec<u8>,
    is_cached: bool,
    log: String,
}

impl MachineCode {
    /// Machine code, or text that ends in a zero.
    #[must_use]
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// Whether it was read from the cache.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.is_cached
    }

    /// The compiler's messages: empty without warnings.
    #[must_use]
    pub fn log(&self) -> &str {
        &self.log
    }
}

/// Version of NVRTC.
///
/// # Errors
///
/// The reason why there is none.
pub fn nvrtc_version() -> Result<(u32, u32), String> {
    NvrtcLibrary::get().map(|library| library.version)
}

/// Machine code of `module`, out of the cache if it is there. Without NVRTC, a cached file of any of its
/// versions serves.
///
/// # Errors
///
/// Those of [`compile`].
pub fn machine_code(
    module: Module,
    device: Capability,
    cache: &KernelCache,
) -> Result<MachineCode, DeviceError> {
    let image = match NvrtcLibrary::get() {
        Ok(library) => {
            let prefix = prefix(module, target(device, &library)?);
            cache.read(&key(&prefix, library.version))
        }
        Err(_) => cache.read_any(&prefix(module, Target::Machine(device.number()))),
    };
    match image {
        Some(image) => Ok(MachineCode { image, is_cached: true, log: String::new() }),
        None => compile(module, device, cache),
    }
}

/// Compiles `module` and puts it into the cache.
///
/// # Errors
///
/// [`DeviceError::Unavailable`] without NVRTC, or for a device that is too old for it;
/// [`DeviceError::Compile`] with the compiler's messages.
pub fn compile(module: Module, device: Capability, cache: &KernelCache) -> Result<MachineCode, DeviceError> {
    let library = NvrtcLibrary::get().map_err(DeviceError::Unavailable)?;
    let target = target(device, &library)?;
    let source = module.source(Language::Cuda);
    let compiled = compile_source(&library, module, &source, target)?;
    if !compiled.log.is_empty() {
        log::warn!("kernels '{}': {}", module.name(), compiled.log);
    }
    cache.write(&key(&prefix(module, target), library.version), &compiled.code);
    Ok(MachineCode { image: compiled.code, is_cached: false, log: compiled.log })
}

fn compile_source(
    library: &NvrtcLibrary,
    module: Module,
    source: &str,
    target: Target,
) -> Result<nvrtc::Compiled, DeviceError> {
    nvrtc::compile(library, source, &module.name(), target).map_err(|failure| match failure {
        CompileFailure::Source(log) => DeviceError::Compile { module, log },
        CompileFailure::Nvrtc(text) => DeviceError::Driver(format!("compiling '{}': {text}", module.name())),
    })
}

fn target(device: Capability, library: &NvrtcLibrary) -> Result<Target, DeviceError> {
    Target::choose(device, &library.targets).ok_or_else(|| {
        let (major, minor) = library.version;
        let oldest = library.targets.iter().min().copied().unwrap_or(0);
        DeviceError::Unavailable(format!(
            "the GPU is sm_{}, and NVRTC {major}.{minor} compiles for sm_{oldest} and later",
            device.number()
        ))
    })
}

/// Name of the module's files in the cache, up to NVRTC's version.
fn prefix(module: Module, target: Target) -> String {
    let mut hash = Fingerprint::default();
    hash.update(module.source(Language::Cuda).as_bytes());
    OPTIONS.iter().for_each(|option| hash.update(option.as_bytes()));
    format!("{}-{:016x}-{}-nvrtc", module.name(), hash.0, target.name())
}

fn key(prefix: &str, (major, minor): (u32, u32)) -> String {
    format!("{prefix}{major}.{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_module_target_and_version() {
        let module = Module::Combine;
        let of = |module, target, version| key(&prefix(module, target), version);
        let one = of(module, Target::Machine(90), (12, 9));
        assert!(one.starts_with("combine-") && one.ends_with("-sm_90-nvrtc12.9"), "{one}");
        assert_ne!(one, of(Module::Rows, Target::Machine(90), (12, 9)));
        assert_ne!(one, of(module, Target::Machine(80), (12, 9)));
        assert_ne!(one, of(module, Target::Text(90), (12, 9)));
        assert_ne!(one, of(module, Target::Machine(90), (12, 8)));
    }

    #[test]
    fn a_kernel_that_does_not_compile_has_a_log() {
        let library = match NvrtcLibrary::get() {
            Ok(library) => library,
            Err(reason) => return println!("skipped: {reason}"),
        };
        let source = Module::Combine.source(Language::Cuda)
            + "\n#line 7 \"planted.inl\"\nFUNC u32 f() { return x; }\n";
        let target = target(Capability::of(90), &library).unwrap_or(Target::Machine(90));
        let error = compile_source(&library, Module::Combine, &source, target).err();
        assert!(
            matches!(&error, Some(DeviceError::Compile { module: Module::Combine, log }) if log.contains("planted.inl(7)")),
            "{error:?}"
        );
        let tail = source.find("#line 7").unwrap_or_default();
        assert!(compile_source(&library, Module::Combine, &source[..tail], target).is_ok());
    }
}
