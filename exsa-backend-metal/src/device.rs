//! An opened Apple GPU.

use crate::buffer::MetalBuffer;
use crate::failure;
use crate::stream::MetalStream;
use exsa_core::backend::DeviceInfo;
use exsa_gpu::device::{Device, DeviceError, HostBytes, Limits, MemoryInfo};
use exsa_gpu::kernel::{KernelSpec, Language, Module};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSString;
use objc2_metal::{MTLCompileOptions, MTLComputePipelineState, MTLDevice, MTLLanguageVersion, MTLLibrary};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Lanes of a SIMD group that the kernels are written for.
const SIMD_WIDTH: usize = 32;

/// Threadgroups that are wanted at once. Metal does not tell the number of cores; a guess, not measured.
const GROUPS_WANTED: u32 = 128;

type RawLibrary = Retained<ProtocolObject<dyn MTLLibrary>>;

/// An Apple GPU.
#[derive(Debug)]
pub struct MetalDevice {
    raw: Retained<ProtocolObject<dyn MTLDevice>>,
    info: DeviceInfo,
    libraries: Mutex<HashMap<String, Shared<RawLibrary>>>,
    lost: Arc<OnceLock<String>>,
}

/// A value of Metal that may be used from any thread.
#[derive(Clone, Debug)]
struct Shared<T>(T);

// SAFETY: libraries and pipeline states do not change once they are made; Metal allows their use from any
// thread.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// A compiled kernel on an Apple GPU.
#[derive(Clone, Debug)]
pub struct MetalKernel {
    state: Shared<Retained<ProtocolObject<dyn MTLComputePipelineState>>>,
    name: Arc<str>,
    threads: u32,
}

impl MetalKernel {
    pub(crate) fn state(&self) -> &ProtocolObject<dyn MTLComputePipelineState> {
        &self.state.0
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn threads(&self) -> u32 {
        self.threads
    }
}

/// The budget that the system recommends, and what of it is left.
pub(crate) fn memory(device: &ProtocolObject<dyn MTLDevice>) -> MemoryInfo {
    let total = device.recommendedMaxWorkingSetSize();
    MemoryInfo { total, free: total.saturating_sub(device.currentAllocatedSize() as u64) }
}

impl MetalDevice {
    pub(crate) fn new(
        raw: Retained<ProtocolObject<dyn MTLDevice>>,
        info: DeviceInfo,
    ) -> Result<Self, DeviceError> {
        if !raw.hasUnifiedMemory() {
            let text = format!("{} has memory of its own; only Apple's GPUs are supported", raw.name());
            return Err(DeviceError::Unavailable(text));
        }
        Ok(Self { raw, info, libraries: Mutex::default(), lost: Arc::default() })
    }

    /// The product's name.
    #[must_use]
    pub fn description(&self) -> String {
        self.raw.name().to_string()
    }

    fn check(&self) -> Result<(), DeviceError> {
        self.lost.get().map_or(Ok(()), |reason| Err(DeviceError::Lost(reason.clone())))
    }

    /// The compiled module.
    fn library(&self, module: Module) -> Result<RawLibrary, DeviceError> {
        let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Shared(library)) = libraries.get(&module.name()) {
            return Ok(library.clone());
        }
        let source = NSString::from_str(&module.source(Language::Metal));
        let options = MTLCompileOptions::new();
        // The later property, setMathMode, exists from macOS 15 on.
        #[allow(deprecated)]
        options.setFastMathEnabled(false);
        options.setLanguageVersion(MTLLanguageVersion::Version2_4);
        let library = self
            .raw
            .newLibraryWithSource_options_error(&source, Some(&options))
            .map_err(|error| DeviceError::Compile { module, log: failure::text(&error) })?;
        libraries.insert(module.name(), Shared(library.clone()));
        Ok(library)
    }

    /// Bytes of a new buffer, if there is room for it.
    fn room(&self, bytes: u64) -> Result<usize, DeviceError> {
        self.check()?;
        if bytes == 0 {
            return Err(DeviceError::Range("a buffer of 0 bytes".to_owned()));
        }
        let free = memory(&self.raw).free;
        let size = usize::try_from(bytes).ok().filter(|size| *size <= self.raw.maxBufferLength());
        size.filter(|_| bytes <= free).ok_or(DeviceError::OutOfMemory { needed: bytes, free: Some(free) })
    }
}

impl Device for MetalDevice {
    type Buffer = MetalBuffer;
    type Kernel = MetalKernel;
    type Stream = MetalStream;

    fn info(&self) -> DeviceInfo {
        let memory = memory(&self.raw);
        self.info.clone().memory(Some(memory.total), Some(memory.free))
    }

    fn limits(&self) -> Limits {
        Limits {
            grid_max: [i32::MAX as u32, 65_535, 65_535],
            buffer_max: self.raw.maxBufferLength() as u64,
            groups_wanted: GROUPS_WANTED,
        }
    }

    fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        self.check()?;
        Ok(memory(&self.raw))
    }

    fn allocate(&self, bytes: u64) -> Result<MetalBuffer, DeviceError> {
        let size = self.room(bytes)?;
        let full = || DeviceError::OutOfMemory { needed: bytes, free: Some(memory(&self.raw).free) };
        autoreleasepool(|_| MetalBuffer::zeroed(&self.raw, size)).ok_or_else(full)
    }

    fn place(&self, host: &HostBytes, range: Range<usize>) -> Result<MetalBuffer, DeviceError> {
        let all = (**host).as_ref();
        let Some(bytes) = all.get(range.clone()) else {
            return Err(DeviceError::Range(format!("bytes {range:?} of {}", all.len())));
        };
        let needed = bytes.len() as u64;
        self.room(needed)?;
        let full = || DeviceError::OutOfMemory { needed, free: Some(memory(&self.raw).free) };
        autoreleasepool(|_| {
            MetalBuffer::in_place(&self.raw, host, range)
                .or_else(|| MetalBuffer::copied(&self.raw, bytes))
                .ok_or_else(full)
        })
    }

    fn kernel(&self, spec: &KernelSpec) -> Result<MetalKernel, DeviceError> {
        self.check()?;
        autoreleasepool(|_| {
            let problem = |problem: String| DeviceError::Kernel { name: spec.name.clone(), problem };
            let library = self.library(spec.module)?;
            let function = library
                .newFunctionWithName(&NSString::from_str(&spec.name))
                .ok_or_else(|| problem(format!("module '{}' does not have it", spec.module.name())))?;
            let state = self
                .raw
                .newComputePipelineStateWithFunction_error(&function)
                .map_err(|error| problem(failure::text(&error)))?;
            if state.threadExecutionWidth() != SIMD_WIDTH {
                let width = state.threadExecutionWidth();
                return Err(problem(format!("SIMD groups of {width} lanes, {SIMD_WIDTH} needed")));
            }
            let threads_max = state.maxTotalThreadsPerThreadgroup();
            if threads_max < spec.threads as usize {
                return Err(problem(format!(
                    "{} threads needed, at most {threads_max} can run",
                    spec.threads
                )));
            }
            let name = spec.name.as_str().into();
            Ok(MetalKernel { state: Shared(state), name, threads: spec.threads })
        })
    }

    fn stream(&self) -> Result<MetalStream, DeviceError> {
        self.check()?;
        let queue = autoreleasepool(|_| self.raw.newCommandQueue());
        let queue =
            queue.ok_or_else(|| DeviceError::Driver("Metal makes no more command queues".to_owned()))?;
        Ok(MetalStream::new(self.raw.clone(), queue, Arc::clone(&self.lost)))
    }
}
