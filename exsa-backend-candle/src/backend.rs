//! The backend and its models, as core sees them.

use crate::adapters;
use crate::calibration::Calibration;
use crate::compute;
use crate::device;
use crate::encoder::{self, EncoderModel, EncoderSession};
use crate::estimate;
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::Isa;
use crate::load::{self, LoadedModel};
use crate::load_steps::LoadSteps;
use crate::model_files::ModelFiles;
use crate::packed_cache::{self, BackgroundCheck, CachedMatrices, PackedFile};
use crate::session::CandleSession;
use crate::weights::Weights;
use candle_core::Device;
use exsa_core::AdapterId;
use exsa_core::backend::{
    AdapterInfo, AdapterLimits, DeviceInfo, Fingerprint, InferenceBackend, LoadOptions, LoadProgress,
    MemoryEstimate, Model, ModelSource, PackedCache, PackedCheck, Session, SessionOptions, WeightPages,
};
use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;
use exsa_core::model_info::ModelInfo;
use exsa_core::tokenizer::Tokenizer;
use exsa_models::{Config, EncoderConfig, EncoderDescription, ModelDescription};
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

    /// Loads a model on the CPU to sum up the inputs of its projections: `options` as for
    /// [`Model::session`], of which sequences and adapters are not used.
    ///
    /// # Errors
    ///
    /// Those of loading a model and of making a session; [`LoadError::Unsupported`] for a device other than
    /// the CPU.
    pub fn calibration(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        options: &SessionOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Calibration, LoadError> {
        let device = device::find(load.device.as_deref())?;
        if device != "cpu" {
            return Err(LoadError::Unsupported {
                what: format!("calibration on device '{device}'"),
                supported: "cpu".to_owned(),
            });
        }
        let CandleModel { info, tokenizer, loaded, .. } = self.load_model(source, load, progress)?;
        match loaded {
            Loaded::Decoder(loaded) if loaded.config.experts.is_some() => Err(LoadError::Unsupported {
                what: format!("calibration of a mixture of experts ({})", info.architecture),
                supported: "models without experts".to_owned(),
            }),
            Loaded::Decoder(loaded) => Calibration::new((info, tokenizer), loaded, options),
            Loaded::Encoder(_) => Err(LoadError::Unsupported {
                what: format!("calibration of architecture '{}'", info.architecture),
                supported: "models that generate".to_owned(),
            }),
        }
    }

    fn load_model(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<CandleModel, LoadError> {
        let device = device::open(options.device.as_deref())?;
        let files = ModelFiles::open_with(source, options)?;
        let gguf = files.gguf();
        if gguf.tensors().is_empty() {
            return Err(LoadError::NoWeights);
        }
        let info = ModelInfo::from_gguf(gguf)?;
        let tokenizer = exsa_core::tokenizer::load_with(gguf.metadata(), &options.tokenizer)?;
        let tokens = tokenizer.n_vocab();
        let model = match EncoderConfig::from_metadata(gguf.metadata())? {
            Some(config) => Description::Encoder(EncoderDescription::read(gguf, config, tokens)?),
            None => Description::Decoder(ModelDescription::read(gguf, tokens)?),
        };
        let mut team = compute::team(&options.threads)?;
        let host = device.is_cpu();
        if let (Description::Encoder(_), false) = (&model, host) {
            return Err(LoadError::Unsupported {
                what: format!("architecture '{}' on this device", info.architecture),
                supported: "device 'cpu'".to_owned(),
            });
        }
        let isa = host.then(|| self.chosen_isa()).transpose()?;
        let mut steps = LoadSteps::new(progress, tensor_bytes(gguf))?;
        let cache = options.packed_cache.as_ref().filter(|_| host);
        let packed = packed_file(cache, source, &files, &mut team, &mut steps)?;
        let weights = Weights::new(&files, device.clone(), isa, steps, team);
        let cached = cache.zip(packed.clone()).map(|(cache, file)| CachedMatrices::new(file, cache.pages));
        let weights = weights.cached(cached);
        let loaded = match model {
            Description::Encoder(model) => Loaded::Encoder(Arc::new(encoder::load(model, weights)?)),
            Description::Decoder(model) => {
                let mut loaded = load::load(model, weights)?;
                if let Some(file) = packed
                    && cache.is_some_and(|cache| cache.check == PackedCheck::Background)
                {
                    let thread = |e| LoadError::Backend(format!("cannot start a thread: {e}"));
                    loaded.check = Some(BackgroundCheck::start(file).map_err(thread)?);
                }
                // Another base of RoPE gives other answers of the same weights.
                for item in &options.metadata_overrides {
                    loaded.fingerprint.update(item.to_string().as_bytes());
                }
                Loaded::Decoder(Arc::new(loaded))
            }
        };
        let device = (!host).then_some(device);
        Ok(CandleModel { info, tokenizer, loaded, device })
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
        ModelInfo::from_gguf(ModelFiles::open(source)?.gguf()).map_err(Into::into)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        Ok(Arc::new(self.load_model(source, options, progress)?))
    }

    fn prepare(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<(), LoadError> {
        let device = device::find(options.device.as_deref())?;
        if device != "cpu" || options.packed_cache.is_none() {
            return Ok(());
        }
        let files = ModelFiles::open_with(source, options)?;
        if EncoderConfig::from_metadata(files.gguf().metadata())?.is_none() {
            Config::from_metadata(files.gguf().metadata())?;
        }
        let mut team = compute::team(&options.threads)?;
        let mut steps = LoadSteps::new(progress, 0)?;
        let cache = options.packed_cache.as_ref();
        packed_file(cache, source, &files, &mut team, &mut steps).map(drop)
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
        let files = ModelFiles::open_with(source, load)?;
        if files.gguf().tensors().is_empty() {
            return Err(LoadError::NoWeights);
        }
        let cache = load.packed_cache.as_ref().filter(|cache| cache.pages == WeightPages::Shared);
        let packed_mapped = cache.is_some() && source.path().is_some();
        estimate::estimate(&files, packed_mapped, session)
    }
}

/// The packed file of a model, if `cache` asks for one and it can be had.
fn packed_file(
    cache: Option<&PackedCache>,
    source: &ModelSource,
    model: &ModelFiles,
    team: &mut Team,
    steps: &mut LoadSteps<'_, '_>,
) -> Result<Option<PackedFile>, LoadError> {
    match (cache, source.path()) {
        (Some(cache), Some(path)) => packed_cache::obtain(cache, path, model, team, steps),
        _ => Ok(None),
    }
}

/// Bytes of all tensors.
fn tensor_bytes(gguf: &Gguf) -> u64 {
    gguf.tensors().iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add)
}

struct CandleModel {
    info: ModelInfo,
    tokenizer: Arc<dyn Tokenizer>,
    loaded: Loaded,
    /// `None` for the host's kernels.
    device: Option<Device>,
}

/// A model's description.
enum Description<'g> {
    Decoder(ModelDescription<'g>),
    Encoder(EncoderDescription<'g>),
}

/// A model's weights.
enum Loaded {
    Decoder(Arc<LoadedModel>),
    Encoder(Arc<EncoderModel>),
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
        let weights = match &self.loaded {
            Loaded::Decoder(model) => model.fingerprint,
            Loaded::Encoder(model) => model.fingerprint,
        };
        fingerprint.update(&weights.0.to_le_bytes());
        fingerprint
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        match &self.loaded {
            Loaded::Decoder(model) => {
                Ok(Box::new(CandleSession::new(Arc::clone(model), self.device.clone(), options)?))
            }
            Loaded::Encoder(model) => Ok(Box::new(EncoderSession::new(Arc::clone(model), options)?)),
        }
    }

    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        let Loaded::Decoder(loaded) = &self.loaded else {
            return Err(LoadError::Unsupported {
                what: format!("adapters of architecture '{}'", self.info.architecture),
                supported: "the model's own weights".to_owned(),
            });
        };
        let adapter = adapters::load(loaded, &self.info.architecture, source, limits)?;
        Ok(loaded.adapters.insert(adapter))
    }

    fn unload_adapter(&self, id: AdapterId) {
        if let Loaded::Decoder(loaded) = &self.loaded {
            loaded.adapters.remove(id);
        }
    }
}
