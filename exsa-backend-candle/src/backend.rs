//! The backend and its models, as core sees them.

use crate::compute;
use crate::config::Config;
use crate::device;
use crate::kernels::float::kv_layout::Format;
use crate::load::{self, LoadedModel};
use crate::mapping::Mapping;
use crate::session::CandleSession;
use crate::weights::Weights;
use candle_core::Device;
use exsa_core::backend::{
    DeviceInfo, InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;
use exsa_core::model_info::{self, ModelInfo};
use exsa_core::tokenizer::Tokenizer;
use std::io::Cursor;
use std::sync::Arc;

/// Runs GGUF models on candle.
#[derive(Clone, Debug, Default)]
pub struct CandleBackend {
    kv_type: KvType,
}

/// Type that keys and values are held in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvType {
    /// 32 bits: exact.
    F32,
    /// 16 bits: half the memory, and half of it to read for every token; keys and values are rounded to 11 significant bits.
    #[default]
    F16,
    /// 8 bits, with an f32 scale for every 32 values of a head, on the CPU only: a quarter of the memory and a bit more.
    Q8_0,
}

impl CandleBackend {
    /// The backend with keys and values in f16.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the type that sessions hold keys and values in.
    pub fn kv_type(mut self, kv_type: KvType) -> Self {
        self.kv_type = kv_type;
        self
    }
}

impl InferenceBackend for CandleBackend {
    fn name(&self) -> &str {
        "candle"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        device::list()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        let mapping = Mapping::open(source)?;
        let gguf = Gguf::read(&mut Cursor::new(mapping.bytes()))?;
        model_info::check_type(&gguf)?;
        ModelInfo::from_gguf(&gguf).map_err(Into::into)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let device = device::open(options.device.as_deref())?;
        let mapping = Arc::new(Mapping::open(source)?);
        let gguf = Gguf::read(&mut Cursor::new(mapping.bytes()))?;
        model_info::check_type(&gguf)?;
        if gguf.tensors().is_empty() {
            return Err(LoadError::NoWeights);
        }
        let config = Config::from_metadata(gguf.metadata())?;
        let info = ModelInfo::from_gguf(&gguf)?;
        let tokenizer = exsa_core::tokenizer::load(gguf.metadata())?;
        let team = compute::team(&options.threads)?;
        let host = device.is_cpu();
        let weights = Weights::new(&gguf, mapping, device.clone(), host, progress, team)?;
        let loaded = load::load(config, tokenizer.n_vocab(), weights)?;
        let format = match self.kv_type {
            KvType::F32 => Format::F32,
            KvType::F16 => Format::F16,
            KvType::Q8_0 => Format::Q8,
        };
        let device = (!host).then_some(device);
        Ok(Arc::new(CandleModel { info, tokenizer, loaded: Arc::new(loaded), device, format }))
    }
}

struct CandleModel {
    info: ModelInfo,
    tokenizer: Arc<dyn Tokenizer>,
    loaded: Arc<LoadedModel>,
    /// `None` for the host's kernels.
    device: Option<Device>,
    format: Format,
}

impl Model for CandleModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let session =
            CandleSession::new(Arc::clone(&self.loaded), self.device.clone(), self.format, options)?;
        Ok(Box::new(session))
    }
}
