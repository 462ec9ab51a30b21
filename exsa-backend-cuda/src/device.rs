//! An opened NVIDIA GPU.

use crate::buffer::CudaBuffer;
use crate::cache::KernelCache;
use crate::compile::{self, MachineCode};
use crate::context::Context;
use crate::stream::CudaStream;
use crate::target::Capability;
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction, CUfunction_attribute, CUmodule};
use exsa_core::backend::{DeviceInfo, DeviceKind};
use exsa_gpu::device::{Device, DeviceError, HostBytes, Limits, MemoryInfo, Stream};
use exsa_gpu::kernel::{KernelSpec, Module};
use std::collections::HashMap;
use std::ffi::CString;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

/// Threadgroups of a launch.
pub(crate) const GRID_MAX: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

/// Threadgroups that are wanted for each multiprocessor. A guess, not measured.
const GROUPS_PER_PROCESSOR: u32 = 4;

/// An NVIDIA GPU, with a context of its own.
#[derive(Debug)]
pub struct CudaDevice {
    /// Modules by name, before the context that they belong to.
    modules: Mutex<HashMap<String, Arc<LoadedModule>>>,
    /// Two streams for weights: while one copies, the other's staging memory is filled.
    uploads: Mutex<[CudaStream; 2]>,
    context: Arc<Context>,
    name: String,
    model: String,
    capability: Capability,
    limits: Limits,
    cache: KernelCache,
}

/// A module that the driver has loaded.
#[derive(Debug)]
struct LoadedModule {
    context: Arc<Context>,
    raw: CUmodule,
}

// SAFETY: modules may be used from any thread, by several at once.
unsafe impl Send for LoadedModule {}
// SAFETY: as above.
unsafe impl Sync for LoadedModule {}

/// A compiled kernel on an NVIDIA GPU.
#[derive(Clone, Debug)]
pub struct CudaKernel {
    module: Arc<LoadedModule>,
    function: CUfunction,
    name: Arc<str>,
    threads: u32,
}

// SAFETY: functions may be used from any thread, by several at once.
unsafe impl Send for CudaKernel {}
// SAFETY: as above.
unsafe impl Sync for CudaKernel {}

impl CudaDevice {
    /// Opens the device with this index.
    pub(crate) fn open(
        index: i32,
        name: String,
        model: String,
        cache: KernelCache,
    ) -> Result<Self, DeviceError> {
        let context = Arc::new(Context::new(index)?);
        let (major, minor) = context.capability()?;
        let processors = context.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let limits = Limits {
            grid_max: GRID_MAX,
            buffer_max: context.memory()?.1,
            groups_wanted: processors.saturating_mul(GROUPS_PER_PROCESSOR).max(1),
        };
        let uploads = Mutex::new([CudaStream::new(&context)?, CudaStream::new(&context)?]);
        let capability = Capability { major, minor };
        Ok(Self { modules: Mutex::default(), uploads, context, name, model, capability, limits, cache })
    }

    /// The product's name and compute capability: `NVIDIA H200, sm_90`.
    #[must_use]
    pub fn description(&self) -> String {
        format!("{}, sm_{}", self.model, self.capability.number())
    }

    /// The loaded module, compiled or read from the cache first.
    fn module(&self, module: Module) -> Result<Arc<LoadedModule>, DeviceError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = modules.get(&module.name()) {
            return Ok(Arc::clone(loaded));
        }
        let code = compile::machine_code(module, self.capability, &self.cache)?;
        let loaded = match self.load(&code) {
            // A cached file that the driver refuses is compiled again.
            Err(DeviceError::Driver(text)) if code.is_cached() => {
                log::warn!("cached kernels '{}' are refused: {text}", module.name());
                self.load(&compile::compile(module, self.capability, &self.cache)?)?
            }
            other => other?,
        };
        modules.insert(module.name(), Arc::clone(&loaded));
        Ok(loaded)
    }

    fn load(&self, code: &MachineCode) -> Result<Arc<LoadedModule>, DeviceError> {
        let _current = self.context.current()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the context is current. The image is machine code of a checked length, or text that ends in
        // a zero; the driver reads no more than its headers say.
        let result = unsafe { sys::cuModuleLoadData(&mut raw, code.image().as_ptr().cast()) };
        self.context.check(result, "loading kernels")?;
        Ok(Arc::new(LoadedModule { context: Arc::clone(&self.context), raw }))
    }
}

impl CudaKernel {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn threads(&self) -> u32 {
        self.threads
    }

    pub(crate) fn function(&self) -> CUfunction {
        self.function
    }

    pub(crate) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.module.context, context)
    }
}

impl Drop for LoadedModule {
    fn drop(&mut self) {
        if let Ok(current) = self.context.push() {
            // Commands may still run its kernels.
            let _ = self.context.synchronize(&current);
            // SAFETY: the context is current; every kernel of the module keeps it alive, so that none is
            // left.
            let _ = unsafe { sys::cuModuleUnload(self.raw) };
        }
    }
}

impl Device for CudaDevice {
    type Buffer = CudaBuffer;
    type Kernel = CudaKernel;
    type Stream = CudaStream;

    fn info(&self) -> DeviceInfo {
        let memory = self.context.memory().ok();
        let info = DeviceInfo::new(self.name.clone(), DeviceKind::Gpu);
        info.memory(memory.map(|(_, total)| total), memory.map(|(free, _)| free))
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn memory(&self) -> Result<MemoryInfo, DeviceError> {
        let (free, total) = self.context.memory()?;
        Ok(MemoryInfo { total, free })
    }

    fn allocate(&self, bytes: u64) -> Result<CudaBuffer, DeviceError> {
        let buffer = CudaBuffer::new(&self.context, bytes)?;
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads[0].clear(&buffer)?;
        Ok(buffer)
    }

    fn place(&self, memory: &HostBytes, range: Range<usize>) -> Result<CudaBuffer, DeviceError> {
        let bytes = (**memory).as_ref();
        let Some(bytes) = bytes.get(range.clone()) else {
            return Err(DeviceError::Range(format!("bytes {range:?} of {}", bytes.len())));
        };
        let buffer = CudaBuffer::new(&self.context, bytes.len() as u64)?;
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let part = 8 << 20;
        let mut address = buffer.address();
        let mut result = Ok(());
        for (i, bytes) in bytes.chunks(part).enumerate() {
            // SAFETY: the range is inside the buffer, which lives until both streams have been waited for.
            result = result.and_then(|()| unsafe { uploads[i % 2].upload(address, bytes) });
            address += bytes.len() as u64;
        }
        let waited = [uploads[0].synchronize(), uploads[1].synchronize()];
        waited.into_iter().fold(result, Result::and)?;
        Ok(buffer)
    }

    fn kernel(&self, spec: &KernelSpec) -> Result<CudaKernel, DeviceError> {
        let problem = |problem: String| DeviceError::Kernel { name: spec.name.clone(), problem };
        let module = self.module(spec.module)?;
        let name = CString::new(spec.name.as_str()).map_err(|error| problem(error.to_string()))?;
        let _current = self.context.current()?;
        let mut function = ptr::null_mut();
        // SAFETY: the context is current, the module is loaded, the name ends in a zero.
        let result = unsafe { sys::cuModuleGetFunction(&mut function, module.raw, name.as_ptr()) };
        if result == sys::CUresult::CUDA_ERROR_NOT_FOUND {
            return Err(problem(format!("module '{}' does not have it", spec.module.name())));
        }
        self.context.check(result, "looking up a kernel")?;
        let mut threads_max = 0;
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        // SAFETY: the context is current, the function is valid, the number outlives the call.
        let result = unsafe { sys::cuFuncGetAttribute(&mut threads_max, attribute, function) };
        self.context.check(result, "asking for a kernel's limits")?;
        if u32::try_from(threads_max).unwrap_or(0) < spec.threads {
            return Err(problem(format!("{} threads needed, at most {threads_max} can run", spec.threads)));
        }
        Ok(CudaKernel { module, function, name: spec.name.as_str().into(), threads: spec.threads })
    }

    fn stream(&self) -> Result<CudaStream, DeviceError> {
        CudaStream::new(&self.context)
    }
}
