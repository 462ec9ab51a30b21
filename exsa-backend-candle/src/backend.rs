//! The backend and its models, as core sees them.

use crate::adapters;
use crate::compute;
use crate::config::Config;
use crate::device;
use crate::estimate;
use crate::kernels::quantized::Isa;
use crate::load::{self, LoadedModel};
use crate::mapping::Mapping;
use crate::session::CandleSession;
use crate::weights::Weights;
use candle_core::Device;
use exsa_core::AdapterId;
use exsa_core::backend::{
    AdapterInfo, AdapterLimits, DeviceInfo, Fingerprint, InferenceBackend, LoadOptions, LoadProgress,
    MemoryEstimate, Model, ModelSource, Session, SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;
use exsa_core::model_info::{self, ModelInfo};
use exsa_core::tokenizer::Tokenizer;
use std::io::Cursor;
use std::sync::Arc;

/// Runs GGUF models on candle.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CandleBackend {
    isa: Option<String>,
}

impl CandleBackend {
    /// The backend.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Multiplies weights by the kernels of this instruction set instead of the processor's best one:
    /// `scalar`, `avx2`, `avx-vnni`, `avx512-vnni`, `amx`, `neon` or `neon-dotprod`. For measurements, and
    /// for processors that slow down when they use wide vectors. Results are the same with all of them, to
    /// the bit; attention keeps the best one.
    ///
    /// Loading fails with [`LoadError::Option`] where the processor lacks it.
    #[must_use]
    pub fn isa(mut self, name: impl Into<String>) -> Self {
        self.isa = Some(name.into());
        self
    }

    /// Names of the instruction sets that this processor has kernels for, the best last: the values of
    /// [`isa`](Self::isa).
    #[must_use]
    pub fn instruction_sets() -> Vec<&'static str> {
        Isa::available().map(Isa::name).collect()
    }

    /// The instruction set to multiply by.
    fn chosen_isa(&self) -> Result<Isa, LoadError> {
        let Some(name) = self.isa.as_deref() else { return Ok(Isa::detect()) };
        Isa::named(name).ok_or_else(|| LoadError::Option {
            option: "isa",
            problem: format!("'{name}' is none of this processor's: {}", Self::instruction_sets().join(", ")),
        })
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
        let (_, gguf) = open(source)?;
        ModelInfo::from_gguf(&gguf).map_err(Into::into)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let device = device::open(options.device.as_deref())?;
        let (mapping, gguf) = open(source)?;
        if gguf.tensors().is_empty() {
            return Err(LoadError::NoWeights);
        }
        let mapping = Arc::new(mapping);
        let config = Config::from_metadata(gguf.metadata())?;
        let info = ModelInfo::from_gguf(&gguf)?;
        let tokenizer = exsa_core::tokenizer::load(gguf.metadata())?;
        let team = compute::team(&options.threads)?;
        let host = device.is_cpu();
        let isa = host.then(|| self.chosen_isa()).transpose()?;
        let weights = Weights::new(&gguf, mapping, device.clone(), isa, progress, team)?;
        let loaded = load::load(config, tokenizer.n_vocab(), weights)?;
        let device = (!host).then_some(device);
        Ok(Arc::new(CandleModel { info, tokenizer, loaded: Arc::new(loaded), device }))
    }

    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        session: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        let device = device::find(load.device.as_deref())?;
        if device != "cpu" {
            return Err(LoadError::Unsupported {
                what: format!("memory estimates on device '{device}'"),
                supported: "cpu".to_owned(),
            });
        }
        let (mapping, gguf) = open(source)?;
        if gguf.tensors().is_empty() {
            return Err(LoadError::NoWeights);
        }
        estimate::estimate(&gguf, &mapping, session)
    }
}

/// The bytes of a model file and its header.
fn open(source: &ModelSource) -> Result<(Mapping, Gguf), LoadError> {
    let mapping = Mapping::open(source)?;
    let gguf = Gguf::read(&mut Cursor::new(mapping.bytes()))?;
    model_info::check_type(&gguf)?;
    Ok((mapping, gguf))
}

struct CandleModel {
    info: ModelInfo,
    tokenizer: Arc<dyn Tokenizer>,
    loaded: Arc<LoadedModel>,
    /// `None` for the host's kernels.
    device: Option<Device>,
}

impl Model for CandleModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = self.info.fingerprint();
        fingerprint.update(&self.loaded.fingerprint.0.to_le_bytes());
        fingerprint
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let session = CandleSession::new(Arc::clone(&self.loaded), self.device.clone(), options)?;
        Ok(Box::new(session))
    }

    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        let adapter = adapters::load(&self.loaded, &self.info.architecture, source, limits)?;
        Ok(self.loaded.adapters.insert(adapter))
    }

    fn unload_adapter(&self, id: AdapterId) {
        self.loaded.adapters.remove(id);
    }
}
