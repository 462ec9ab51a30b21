//! Models.

use super::adapter::Adapters;
use super::device::Device;
use super::file::MemoryFile;
use super::kv_override::kv_overrides;
use super::path::c_path;
use crate::log;
use crate::options::{ModelOptions, SplitMode};
use exsa_core::backend::{LoadProgress, Pooling};
use exsa_core::error::LoadError;
use exsa_core::model_file::MetadataOverride;
use llama_cpp_sys_2 as sys;
use std::any::Any;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// Location of the weights, which were checked.
pub(crate) enum Weights<'a> {
    /// One file, or the parts of a split one in order.
    Files(&'a [PathBuf]),
    /// Bytes in memory. They are read while the model is loaded, and not after.
    Memory(&'a [u8]),
}

/// Settings for loading a model.
pub(crate) struct ModelSettings<'a> {
    pub options: &'a ModelOptions,
    /// Devices for the weights; `None` for all devices, an empty list for the CPU alone.
    pub devices: Option<&'a [Device]>,
    /// Metadata in place of the file's, which core has checked.
    pub overrides: &'a [MetadataOverride],
    /// Bytes of all weights, the unit of progress.
    pub bytes: u64,
    /// Read the header and size the weights, but neither allocate nor read them. Contexts of such a model
    /// allocate nothing either and cannot run.
    pub dry_run: bool,
}

/// A loaded model.
pub(crate) struct Model {
    pub(super) ptr: NonNull<sys::llama_model>,
    /// Locked after `contexts`, where both are.
    pub(super) adapters: RwLock<Adapters>,
    /// The contexts of this model.
    contexts: Mutex<Vec<NonNull<sys::llama_context>>>,
    on_cpu: bool,
}

// SAFETY: llama.cpp ties a model to no thread.
unsafe impl Send for Model {}
// SAFETY: once loaded, a model is only read, except while contexts are created and freed, which `lock`
// serializes, and while adapters are loaded and freed, which excludes passes by the lock of the adapters.
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
            _ if settings.dry_run => sys::LLAMA_LOAD_MODE_NONE,
            (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
            (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
            (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
            (false, false) => sys::LLAMA_LOAD_MODE_NONE,
        };
        let overrides = kv_overrides(settings.overrides)?;
        if !settings.overrides.is_empty() {
            params.kv_overrides = overrides.as_ptr();
        }
        params.no_alloc = settings.dry_run;
        params.check_tensors = options.check_tensors;
        params.use_extra_bufts = options.repack;
        params.progress_callback = Some(on_progress);
        // A pointer to a local of this call, which outlives the loading.
        params.progress_callback_user_data = std::ptr::from_mut(&mut progress).cast();

        let (model, errors) = log::with_errors(|| open(weights, params));
        if let Some(panic) = progress.panic {
            resume_unwind(panic);
        }
        // SAFETY: gives a truth value.
        let on_cpu = params.n_gpu_layers == 0 || !unsafe { sys::llama_supports_gpu_offload() };
        match NonNull::new(model?) {
            Some(ptr) => Ok(Self { ptr, adapters: RwLock::default(), contexts: Mutex::default(), on_cpu }),
            None if progress.cancelled => Err(LoadError::Cancelled),
            None => Err(LoadError::Backend(errors)),
        }
    }

    /// Locks the adapters, for passes and while a context is created.
    pub(super) fn adapters(&self) -> RwLockReadGuard<'_, Adapters> {
        self.adapters.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the contexts of this model, while one is created or freed: two concurrent calls are unsound.
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<NonNull<sys::llama_context>>> {
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether no GPU is used.
    pub fn is_on_cpu(&self) -> bool {
        self.on_cpu
    }

    /// Tokens in the vocabulary, which is the length of a row of logits.
    pub fn n_vocab(&self) -> usize {
        // SAFETY: the model lives; its vocabulary lives as long.
        let n = unsafe { sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(self.ptr.as_ptr())) };
        usize::try_from(n).unwrap_or(0)
    }

    /// Values in the embedding of a text under `pooling`.
    pub fn embedding_width(&self, pooling: Pooling) -> usize {
        let model = self.ptr.as_ptr();
        // SAFETY: the model lives.
        unsafe {
            match pooling {
                Pooling::Rank => sys::llama_model_n_cls_out(model) as usize,
                _ => usize::try_from(sys::llama_model_n_embd_out(model)).unwrap_or(0),
            }
        }
    }

    /// Whether some layers keep a recurrent state of fixed size, which cannot be truncated (Mamba, RWKV).
    pub fn is_recurrent(&self) -> bool {
        let model = self.ptr.as_ptr();
        // SAFETY: the model lives.
        unsafe { sys::llama_model_is_recurrent(model) || sys::llama_model_is_hybrid(model) }
    }

    /// Values of a head of keys, and of a head of values.
    pub fn head_widths(&self) -> [usize; 2] {
        let model = self.ptr.as_ptr();
        // SAFETY: the model lives.
        let (embedding, heads) = unsafe { (sys::llama_model_n_embd(model), sys::llama_model_n_head(model)) };
        let even = usize::try_from(embedding / heads.max(1)).unwrap_or(0);
        let architecture = self.metadata("general.architecture").unwrap_or_default();
        ["key_length", "value_length"].map(|name| {
            let value = self.metadata(&format!("{architecture}.attention.{name}"));
            value.and_then(|width| width.parse().ok()).unwrap_or(even)
        })
    }

    /// Value of a key of the file's metadata as text; `None` if it is missing or long.
    fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut text = [0u8; 128];
        // SAFETY: the model lives, the key ends with a NUL, and `text` is as long as is said.
        let len = unsafe {
            let (model, text) = (self.ptr.as_ptr(), text.as_mut_ptr().cast());
            sys::llama_model_meta_val_str(model, key.as_ptr(), text, 128)
        };
        let text = text.get(..usize::try_from(len).ok()?)?;
        String::from_utf8(text.to_vec()).ok()
    }

    /// Tokens in the sliding window of the layers that have one; 0 if none has.
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
        // SAFETY: this value owns the model. Contexts keep it alive, so none is left. Its adapters are freed
        // with it and not used again.
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

/// Reports progress; `false` ends the loading. Never unwinds.
///
/// # Safety
///
/// `data` points to a [`Progress`] that is alive and used by nothing else during the call.
unsafe extern "C" fn on_progress(done: f32, data: *mut c_void) -> bool {
    // SAFETY: by this function's contract.
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
