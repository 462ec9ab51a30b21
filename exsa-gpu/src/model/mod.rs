//! A model on a device.

mod layer;
mod weights;

pub(crate) use layer::{Attention, GateUp, HeadNorm, Input, Layer, Mlp, Qkv};
pub(crate) use weights::{Linear, Matrix, NormWeights, check_matrix, check_vector};

use crate::device::{Device, HostBytes};
use crate::kernel::launch::Kernels;
use crate::session::GpuSession;
use exsa_core::backend::{Fingerprint, LoadProgress, Model, Session, SessionOptions};
use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;
use exsa_core::model_info::ModelInfo;
use exsa_core::tokenizer::Tokenizer;
use exsa_models::{Config, ModelDescription, RopeFreqFactors};
use std::fmt;
use std::sync::Arc;
use weights::Loader;

/// A model whose weights are on a device.
pub struct GpuModel<D: Device> {
    info: ModelInfo,
    tokenizer: Arc<dyn Tokenizer>,
    loaded: Arc<Loaded<D>>,
}

/// The part that sessions share.
#[derive(Debug)]
pub(crate) struct Loaded<D: Device> {
    pub device: Arc<D>,
    pub backend: &'static str,
    pub config: Config,
    pub n_vocab: usize,
    pub embedding: Arc<Matrix<D>>,
    pub layers: Vec<Layer<D>>,
    pub norm: NormWeights<D>,
    pub output: Linear<D>,
    pub freq_factors: RopeFreqFactors,
    pub kernels: Kernels<D>,
    pub fingerprint: Fingerprint,
}

impl<D: Device> GpuModel<D> {
    /// Loads the model of `gguf`, whose bytes are `file`, for the backend called `backend`.
    pub(crate) fn load(
        device: Arc<D>,
        backend: &'static str,
        (gguf, file): (&Gguf, &HostBytes),
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self, LoadError> {
        let info = ModelInfo::from_gguf(gguf)?;
        let tokenizer = exsa_core::tokenizer::load(gguf.metadata())?;
        let model = ModelDescription::read(gguf, tokenizer.n_vocab())?;
        check(&model)?;
        let mut loader = Loader::new(&*device, gguf, file, progress)?;
        let embedding = loader.matrix(model.embedding)?;
        let mut values = |vector: Option<_>| vector.map(|vector| loader.values(vector)).transpose();
        let factors = model.rope_factors;
        let freq_factors = RopeFreqFactors {
            all: values(factors.all)?,
            short: values(factors.short)?,
            long: values(factors.long)?,
        };
        freq_factors.check()?;
        let mut layers = Vec::new();
        for layer in model.layers {
            layers.push(Layer::load(layer, &mut loader)?);
        }
        let norm = loader.norm(model.output_norm)?;
        let output = loader.linear(model.output)?;
        let fingerprint = loader.fingerprint();
        let types = gguf.tensors().iter().filter(|tensor| tensor.shape.len() == 2);
        let kernels = Kernels::new(&*device, types.filter_map(|tensor| check_matrix(tensor).ok()))?;
        let loaded = Loaded {
            device,
            backend,
            config: model.config,
            n_vocab: model.n_vocab,
            embedding,
            layers,
            norm,
            output,
            freq_factors,
            kernels,
            fingerprint,
        };
        Ok(Self { info, tokenizer, loaded: Arc::new(loaded) })
    }
}

/// Refuses what the kernels cannot do, before anything is put on the device.
pub(crate) fn check(model: &ModelDescription<'_>) -> Result<(), LoadError> {
    let head_dim = model.config.head_dim;
    if !head_dim.is_multiple_of(4) || head_dim > 256 {
        return Err(LoadError::Unsupported {
            what: format!("heads of {head_dim} dimensions on a GPU"),
            supported: "multiples of 4 up to 256".to_owned(),
        });
    }
    Ok(())
}

impl<D: Device> Model for GpuModel<D> {
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
        Ok(Box::new(GpuSession::new(Arc::clone(&self.loaded), options)?))
    }
}

impl<D: Device> fmt::Debug for GpuModel<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GpuModel").field("info", &self.info).finish_non_exhaustive()
    }
}
