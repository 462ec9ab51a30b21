//! Models.

use super::adapter::Adapter;
use super::device::Device;
use super::file::MemoryFile;
use crate::log;
use crate::options::{ModelOptions, SplitMode};
use exsa_core::backend::{LoadProgress, Pooling};
use exsa_core::error::LoadError;
use llama_cpp_sys_2 as sys;
use std::any::Any;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the weights are. They were checked.
pub(crate) enum Weights<'a> {
    /// One file, or the parts of a split one in order.
    Files(&'a [PathBuf]),
    /// Bytes in memory. They are read while the model is loaded, and not after.
    Memory(&'a [u8]),
}

/// How a model is loaded.
pub(crate) struct ModelSettings<'a> {
    pub options: &'a ModelOptions,
    /// Devices for the weights; `None` is all of them, an empty list the CPU alone.
    pub devices: Option<&'a [Device]>,
    /// Bytes of all weights, the measure of progress.
    pub bytes: u64,
}

/// A loaded model.
pub(crate) struct Model {
    pub(super) ptr: NonNull<sys::llama_model>,
    pub(super) adapters: Vec<Adapter>,
    contexts: Mutex<()>,
    on_cpu: bool,
}

// SAFETY: after loading, llama.cpp only reads a model, but for the making and freeing of contexts, which `lock` serializes.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

struct Progress<'a, 'b> {
    progress: &'a mut LoadProgress<'b>,
    total: u64,
    cancelled: bool,
    panic: Option<Box<dyn Any + Send>>,
}

impl Model {
    /// Loads a model. `init` was called, and core has checked the GGUF.
    pub fn load(
        weights: &Weights<'_>,
        settings: &ModelSettings<'_>,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self, LoadError> {
        let mut progress = Progress { progress, total: settings.bytes, cancelled: false, panic: None };
        let options = settings.options;
        let mut devices: Vec<sys::ggml_backend_dev_t> =
            settings.devices.unwrap_or_default().iter().map(|d| d.ptr).collect();
        devices.push(std::ptr::null_mut());
        // SAFETY: gives a structure by value.
        let mut params = unsafe { sys::llama_model_default_params() };
        if settings.devices.is_some() {
            params.devices = devices.as_mut_ptr();
        }
        params.n_gpu_layers = match (settings.devices, options.gpu_layers) {
            (Some([]), _) => 0,
            (_, layers) => layers.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX)),
        };
        params.split_mode = match options.split_mode {
            SplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
            SplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
            SplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
        };
        params.main_gpu = i32::try_from(options.main_gpu).unwrap_or(i32::MAX);
        // SAFETY: gives a number.
        let devices_max = unsafe { sys::llama_max_devices() };
        let mut shares = options.tensor_split.clone();
        shares.resize(devices_max.max(shares.len()), 0.0);
        if !options.tensor_split.is_empty() {
            params.tensor_split = shares.as_ptr();
        }
        let in_memory = matches!(weights, Weights::Memory(_));
        params.load_mode = match (options.mmap && !in_memory, options.mlock) {
            (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
            (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
            (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
            (false, false) => sys::LLAMA_LOAD_MODE_NONE,
        };
        params.check_tensors = options.check_tensors;
        params.use_extra_bufts = options.repack;
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = std::ptr::from_mut(&mut progress).cast();

        let (model, errors) = log::with_errors(|| open(weights, params));
        if let Some(panic) = progress.panic {
            resume_unwind(panic);
        }
        // SAFETY: gives a truth value.
        let on_cpu = params.n_gpu_layers == 0 || !unsafe { sys::llama_supports_gpu_offload() };
        match NonNull::new(model?) {
            Some(ptr) => Ok(Self { ptr, adapters: Vec::new(), contexts: Mutex::new(()), on_cpu }),
            None if progress.cancelled => Err(LoadError::Cancelled),
            None => Err(LoadError::Backend(errors)),
        }
    }

    /// Held while a context of this model is made or freed: two at once are unsound.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no GPU takes part.
    pub fn is_on_cpu(&self) -> bool {
        self.on_cpu
    }

    /// Tokens in the vocabulary, which is the length of a row of logits.
    pub fn n_vocab(&self) -> usize {
        // SAFETY: the model lives; its vocabulary lives as long.
        let n = unsafe { sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(self.ptr.as_ptr())) };
        usize::try_from(n).unwrap_or(0)
    }

    /// Values in a vector of a text by `pooling`.
    pub fn vector_width(&self, pooling: Pooling) -> usize {
        let model = self.ptr.as_ptr();
        // SAFETY: the model lives.
        unsafe {
            match pooling {
                Pooling::Rank => sys::llama_model_n_cls_out(model) as usize,
                _ => usize::try_from(sys::llama_model_n_embd_out(model)).unwrap_or(0),
            }
        }
    }

    /// Whether sequences have a state that grows no longer and cannot be cut (Mamba, RWKV), in all or some layers.
    pub fn is_recurrent(&self) -> bool {
        let model = self.ptr.as_ptr();
        // SAFETY: the model lives.
        unsafe { sys::llama_model_is_recurrent(model) || sys::llama_model_is_hybrid(model) }
    }

    /// Tokens in the window of layers that have one, else 0.
    pub fn window(&self) -> usize {
        // SAFETY: the model lives.
        usize::try_from(unsafe { sys::llama_model_n_swa(self.ptr.as_ptr()) }).unwrap_or(0)
    }

    /// Whether the model has an encoder, and whether it has a decoder.
    pub fn parts(&self) -> (bool, bool) {
        let model = self.ptr.as_ptr();
        // SAFETY: the model lives.
        unsafe { (sys::llama_model_has_encoder(model), sys::llama_model_has_decoder(model)) }
    }

    /// Whether the model denoises a whole text at a time.
    pub fn is_diffusion(&self) -> bool {
        // SAFETY: the model lives.
        unsafe { sys::llama_model_is_diffusion(self.ptr.as_ptr()) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: this value owns the model; contexts hold it alive, so none is left. Its adapters are freed with it, and not
        // used again.
        unsafe { sys::llama_model_free(self.ptr.as_ptr()) };
    }
}

fn open(weights: &Weights<'_>, params: sys::llama_model_params) -> Result<*mut sys::llama_model, LoadError> {
    match weights {
        Weights::Files(paths) => {
            let paths = paths.iter().map(|path| c_path(path)).collect::<Result<Vec<_>, _>>()?;
            let mut pointers: Vec<_> = paths.iter().map(|path| path.as_ptr()).collect();
            // SAFETY: the paths end with a NUL; they and what `params` points to outlive the call.
            Ok(unsafe {
                match pointers.as_slice() {
                    [path] => sys::llama_model_load_from_file(*path, params),
                    _ => sys::llama_model_load_from_splits(pointers.as_mut_ptr(), pointers.len(), params),
                }
            })
        }
        Weights::Memory(bytes) => {
            let file = MemoryFile::new(bytes)?;
            // SAFETY: the file is open, and without memory mapping llama.cpp reads it during this call alone.
            Ok(unsafe { sys::llama_model_load_from_file_ptr(file.as_ptr().cast(), params) })
        }
    }
}

pub(super) fn c_path(path: &Path) -> Result<CString, LoadError> {
    let problem = |problem: &str| LoadError::Io {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, problem),
    };
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    #[cfg(not(unix))]
    let bytes = path.to_str().ok_or_else(|| problem("the path is not Unicode"))?.as_bytes();
    CString::new(bytes).map_err(|_| problem("the path contains a NUL"))
}

unsafe extern "C" fn on_progress(done: f32, data: *mut c_void) -> bool {
    // SAFETY: `data` is the `Progress` of `load`, which waits on this thread for the call that calls back.
    let state = unsafe { &mut *data.cast::<Progress<'_, '_>>() };
    if state.panic.is_some() {
        return false;
    }
    let done = (f64::from(done.clamp(0.0, 1.0)) * state.total as f64) as u64;
    match catch_unwind(AssertUnwindSafe(|| state.progress.report(done, state.total))) {
        Ok(Ok(())) => true,
        Ok(Err(_)) => {
            state.cancelled = true;
            false
        }
        Err(panic) => {
            state.panic = Some(panic);
            false
        }
    }
}
