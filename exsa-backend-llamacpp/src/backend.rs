//! The backend and its models, as core sees them.

use crate::adapter::Lora;
use crate::device;
use crate::ffi;
use crate::fingerprint::Fingerprint;
use crate::load;
use crate::options::{
    ContextOptions, FlashAttention, KvLayout, KvType, ModelOptions, RopeOptions, SplitMode,
};
use crate::pooling::PoolingFacts;
use crate::session::LlamaCppSession;
use crate::source;
use exsa_core::backend::{
    DeviceInfo, InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::tokenizer::Tokenizer;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

/// Runs GGUF models on llama.cpp.
///
/// The options are for the models that are loaded, and for their sessions.
#[derive(Clone, Debug, Default)]
pub struct LlamaCppBackend {
    model: ModelOptions,
    context: ContextOptions,
    adapters: Vec<Lora>,
}

impl LlamaCppBackend {
    /// The backend with its defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Layers that go to GPUs, the last ones first; all by default. Without GPUs, or with
    /// [`LoadOptions::device`] `cpu`, none do.
    pub fn gpu_layers(mut self, layers: u32) -> Self {
        self.model.gpu_layers = Some(layers);
        self
    }

    /// How the model is divided among several GPUs.
    pub fn split_mode(mut self, mode: SplitMode) -> Self {
        self.model.split_mode = mode;
        self
    }

    /// Index of the GPU that takes all, with [`SplitMode::None`].
    pub fn main_gpu(mut self, index: u32) -> Self {
        self.model.main_gpu = index;
        self
    }

    /// Shares of the GPUs, in any unit; by default, by their free memory.
    pub fn tensor_split(mut self, shares: impl Into<Vec<f32>>) -> Self {
        self.model.tensor_split = shares.into();
        self
    }

    /// Whether files are mapped into memory (the default) or read. A mapped file must not change while its model is loaded.
    pub fn mmap(mut self, on: bool) -> Self {
        self.model.mmap = on;
        self
    }

    /// Whether weights are locked into memory, so that they are never swapped out; not by default.
    pub fn mlock(mut self, on: bool) -> Self {
        self.model.mlock = on;
        self
    }

    /// Whether the values of all weights are checked while they are loaded, which takes time; not by default.
    pub fn check_tensors(mut self, on: bool) -> Self {
        self.model.check_tensors = on;
        self
    }

    /// Whether weights are rearranged for the processor where llama.cpp knows a faster order (the default). Those are copied
    /// into memory, mapped file or not.
    pub fn repack(mut self, on: bool) -> Self {
        self.model.repack = on;
        self
    }

    /// How the KV of sessions is laid out.
    pub fn kv_layout(mut self, layout: KvLayout) -> Self {
        self.context.kv_layout = layout;
        self
    }

    /// Types that sessions hold keys and values in; f16 both by default. A quantized type of values needs flash attention.
    pub fn kv_types(mut self, keys: KvType, values: KvType) -> Self {
        (self.context.key_type, self.context.value_type) = (keys, values);
        self
    }

    /// Whether KV lies with its layers on the GPU (the default) or in the host's memory.
    pub fn kv_on_device(mut self, on: bool) -> Self {
        self.context.kv_on_device = on;
        self
    }

    /// Whether layers with a sliding window hold KV of the whole context (the default) or of their window only. The latter takes
    /// less memory, but such sequences can be neither cut nor shared.
    pub fn swa_full(mut self, on: bool) -> Self {
        self.context.swa_full = on;
        self
    }

    /// Whether attention is computed by the fused kernel.
    pub fn flash_attention(mut self, mode: FlashAttention) -> Self {
        self.context.flash_attention = mode;
        self
    }

    /// Parameters of RoPE that take the place of the file's.
    pub fn rope(mut self, options: RopeOptions) -> Self {
        self.context.rope = options;
        self
    }

    /// Adds a LoRA adapter (Hu et al., arXiv:2106.09685), a GGUF as llama.cpp's converter writes it, to the models that are
    /// loaded. A weight `W` that it has matrices `A` and `B` of rank `r` for then is `W + scale * alpha / r * B * A`, with the
    /// `alpha` of the file; if it has none, `W + scale * B * A`. Several adapters add up, and a scale of 0 is as none.
    ///
    /// It takes the adapter's memory beside the model's, and two small products more for each weight and pass.
    ///
    /// Loading fails with [`LoadError::Io`] if the file is not there, and with [`LoadError::Option`] if it is damaged, no
    /// adapter, or one of another architecture or of weights that the model does not have. Adapters of norms, and those
    /// that begin at certain tokens (aLoRA), are refused.
    pub fn lora(mut self, path: impl Into<PathBuf>, scale: f32) -> Self {
        self.adapters.push(Lora { path: path.into(), scale });
        self
    }

    /// Threads for passes of more than one token for some sequence; by default, those of
    /// [`SessionOptions::threads`], which decodes always have.
    pub fn prefill_threads(mut self, threads: NonZeroUsize) -> Self {
        self.context.prefill_threads = Some(threads);
        self
    }

    /// Tokens that are computed at a time: a larger batch is cut into several passes. 512 by default, which sizes the
    /// memory that passes work in.
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
        let checked = source::open(source)?;
        let tokenizer = exsa_core::tokenizer::load(checked.gguf.metadata())?;
        let pooling = PoolingFacts::of(&checked.gguf)?;
        let mut fingerprint = Fingerprint::of(&checked)?;
        for adapter in &self.adapters {
            adapter.check(&checked)?;
            fingerprint.add(adapter)?;
        }
        let mut model = load::load(&checked, &self.model, options, progress)?;
        for adapter in &self.adapters {
            model.add_adapter(&adapter.path, adapter.scale).map_err(|problem| adapter.refuse(problem))?;
        }
        Ok(Arc::new(LlamaCppModel {
            info: ModelInfo { n_vocab: model.n_vocab(), ..checked.info },
            tokenizer,
            pooling,
            fingerprint,
            model: Arc::new(model),
            context: self.context.clone(),
        }))
    }
}

struct LlamaCppModel {
    info: ModelInfo,
    tokenizer: Arc<dyn Tokenizer>,
    pooling: PoolingFacts,
    fingerprint: Fingerprint,
    model: Arc<ffi::Model>,
    context: ContextOptions,
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
}
