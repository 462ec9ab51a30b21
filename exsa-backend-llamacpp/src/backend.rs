//! The backend and its models.

use crate::adapter::{self, Adapter, Lora, Matrices};
use crate::device;
use crate::estimate::{self, Wanted};
use crate::ffi;
use crate::fingerprint::Fingerprinter;
use crate::load;
use crate::options::{ContextOptions, FlashAttention, KvLayout, ModelOptions, RopeOptions, SplitMode};
use crate::pooling::PoolingFacts;
use crate::session::LlamaCppSession;
use crate::source;
use exsa_core::AdapterId;
use exsa_core::backend::{
    AdapterInfo, AdapterLimits, DeviceInfo, Fingerprint, InferenceBackend, LoadOptions, LoadProgress,
    MemoryEstimate, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::tokenizer::Tokenizer;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

/// Runs GGUF models on llama.cpp.
///
/// Its options apply to the models that it loads and to their sessions.
#[derive(Clone, Debug, Default)]
pub struct LlamaCppBackend {
    model: ModelOptions,
    context: ContextOptions,
    adapters: Vec<Lora>,
}

impl LlamaCppBackend {
    /// Creates the backend with default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of layers on GPUs, counted from the last one; all by default. Without GPUs, or with
    /// [`LoadOptions::device`] `cpu`, all layers are on the CPU.
    #[must_use]
    pub fn gpu_layers(mut self, layers: u32) -> Self {
        self.model.gpu_layers = Some(layers);
        self
    }

    /// Sets how the model is divided among several GPUs.
    #[must_use]
    pub fn split_mode(mut self, mode: SplitMode) -> Self {
        self.model.split_mode = mode;
        self
    }

    /// Sets the index of the only GPU to use, with [`SplitMode::None`].
    #[must_use]
    pub fn main_gpu(mut self, index: u32) -> Self {
        self.model.main_gpu = index;
        self
    }

    /// Sets the shares of the GPUs, in any unit; by default, they follow free memory.
    #[must_use]
    pub fn tensor_split(mut self, shares: impl Into<Vec<f32>>) -> Self {
        self.model.tensor_split = shares.into();
        self
    }

    /// Sets whether files are mapped into memory (the default) or read. A mapped file must not change as long
    /// as its model is loaded.
    #[must_use]
    pub fn mmap(mut self, on: bool) -> Self {
        self.model.mmap = on;
        self
    }

    /// Sets whether weights are locked into memory, so that they are never swapped out; off by default.
    #[must_use]
    pub fn mlock(mut self, on: bool) -> Self {
        self.model.mlock = on;
        self
    }

    /// Sets whether the values of all weights are validated while they are loaded, which takes time; off by
    /// default.
    #[must_use]
    pub fn check_tensors(mut self, on: bool) -> Self {
        self.model.check_tensors = on;
        self
    }

    /// Sets whether weights are repacked if llama.cpp has a faster layout for their type and the processor
    /// (the default). They are then copied into memory even from a mapped file.
    #[must_use]
    pub fn repack(mut self, on: bool) -> Self {
        self.model.repack = on;
        self
    }

    /// Sets the KV layout of sessions.
    #[must_use]
    pub fn kv_layout(mut self, layout: KvLayout) -> Self {
        self.context.kv_layout = layout;
        self
    }

    /// Sets whether KV is on the GPU of its layer (the default) or in host memory.
    #[must_use]
    pub fn kv_on_device(mut self, on: bool) -> Self {
        self.context.kv_on_device = on;
        self
    }

    /// Sets whether layers with a sliding window hold KV of the whole context (the default) or only of their
    /// window. The latter takes less memory, but such sequences can be neither truncated nor forked.
    #[must_use]
    pub fn swa_full(mut self, on: bool) -> Self {
        self.context.swa_full = on;
        self
    }

    /// Sets the use of flash attention.
    #[must_use]
    pub fn flash_attention(mut self, mode: FlashAttention) -> Self {
        self.context.flash_attention = mode;
        self
    }

    /// Overrides parameters of RoPE in the file.
    #[must_use]
    pub fn rope(mut self, options: RopeOptions) -> Self {
        self.context.rope = options;
        self
    }

    /// Adds a LoRA adapter (Hu et al., arXiv:2106.09685) to the models to load: a GGUF as written by
    /// llama.cpp's converter. A weight `W` with adapter matrices `A` and `B` of rank `r` becomes
    /// `W + scale * alpha / r * B * A`, with the `alpha` of the file, or `W + scale * B * A` if the file has
    /// none. Several adapters add up; a scale of 0 disables one.
    ///
    /// An adapter takes its own memory in addition to the model's, and two small matrix products per weight
    /// and pass.
    ///
    /// Adapters of requests are added to these ([`Model::load_adapter`]).
    ///
    /// Loading fails with [`LoadError::Io`] if the file is missing, with [`LoadError::Adapter`] if it is
    /// damaged, is not an adapter, or is for another architecture or for weights that the model does not
    /// have, and with [`LoadError::Option`] if the scale is not finite. Adapters of norms and adapters with
    /// invocation tokens (aLoRA) are refused.
    #[must_use]
    pub fn lora(mut self, path: impl Into<PathBuf>, scale: f32) -> Self {
        self.adapters.push(Lora { path: path.into(), scale });
        self
    }

    /// Sets the threads for passes with more than one token of a sequence. The default is
    /// [`SessionOptions::threads`], which decode passes always use. With a shared [`SessionOptions::team`],
    /// at most the team's.
    #[must_use]
    pub fn prefill_threads(mut self, threads: NonZeroUsize) -> Self {
        self.context.prefill_threads = Some(threads);
        self
    }

    /// Sets the maximum number of tokens computed at a time (llama.cpp's `n_ubatch`): a larger batch is split
    /// into several passes. 512 by default. It determines the size of the compute buffers.
    #[must_use]
    pub fn ubatch_tokens_max(mut self, tokens: usize) -> Self {
        self.context.ubatch_tokens_max = Some(tokens);
        self
    }
}

impl InferenceBackend for LlamaCppBackend {
    fn name(&self) -> &str {
        "llamacpp"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        device::list()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        source::open(source).map(|checked| checked.info)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let checked = source::open_with(source, options)?;
        let tokenizer = exsa_core::tokenizer::load_with(checked.gguf.metadata(), &options.tokenizer)?;
        let pooling = PoolingFacts::of(&checked.gguf)?;
        let mut fingerprint = Fingerprinter::of(&checked)?;
        let matrices = Matrices::of(&checked);
        let adapters = self.adapters.iter();
        let adapters = adapters.map(|lora| lora.open(&matrices).map(|adapter| (adapter, lora.scale)));
        let adapters = adapters.collect::<Result<Vec<_>, LoadError>>()?;
        let mut model = load::load(&checked, &self.model, options, progress)?;
        for (adapter, scale) in &adapters {
            fingerprint.add(adapter, *scale);
            model.add_adapter(&adapter.gguf, *scale).map_err(|problem| adapter.refuse(problem))?;
        }
        let mut info = checked.info;
        info.n_vocab = model.n_vocab();
        Ok(Arc::new(LlamaCppModel {
            info,
            tokenizer,
            pooling,
            fingerprint: fingerprint.0,
            model: Arc::new(model),
            context: self.context.clone(),
            matrices,
        }))
    }

    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        session: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        let Self { model, context, adapters } = self;
        let wanted = Wanted { model, context, adapters, load, session };
        estimate::estimate(&source::open_with(source, load)?, &wanted)
    }
}

struct LlamaCppModel {
    info: ModelInfo,
    tokenizer: Arc<dyn Tokenizer>,
    pooling: PoolingFacts,
    fingerprint: Fingerprint,
    model: Arc<ffi::Model>,
    context: ContextOptions,
    matrices: Matrices,
}

impl Model for LlamaCppModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let session = LlamaCppSession::new(
            Arc::clone(&self.model),
            &self.info,
            self.fingerprint,
            self.pooling.choose(options.pooling)?,
            &self.context,
            options,
        )?;
        Ok(Box::new(session))
    }

    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        let mut file = self.matrices.open(source)?;
        file.check_limits(limits, adapter::bytes(file.pairs()))?;
        let adapter = Adapter::read(&mut file)?;
        let id = self.model.load_adapter(&adapter.gguf).map_err(|problem| adapter.refuse(problem))?;
        let Adapter { rank, bytes, fingerprint, .. } = adapter;
        Ok(AdapterInfo::new(id).rank(rank).bytes(bytes).fingerprint(fingerprint))
    }

    fn unload_adapter(&self, id: AdapterId) {
        self.model.unload_adapter(id);
    }
}
