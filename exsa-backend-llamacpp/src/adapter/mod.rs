//! LoRA adapters, applied to all sessions of a model or named by single requests. Core checks their files.

mod convert;
mod matrices;

pub(crate) use convert::{Adapter, bytes};
pub(crate) use matrices::Matrices;

use exsa_core::adapter::AdapterPair;
use exsa_core::backend::ModelSource;
use exsa_core::error::LoadError;
use std::path::PathBuf;

/// The output matrix, if it is not tied to the token embedding.
const OUTPUT: &str = "output.weight";

/// An adapter that all sessions of a model apply, and its scale.
#[derive(Clone, Debug)]
pub(crate) struct Lora {
    pub path: PathBuf,
    pub scale: f32,
}

/// Memory that an adapter adds to a model and its passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdapterSize {
    /// Bytes of its matrices.
    pub bytes: u64,
    /// Values per token of its largest pair of products in the layers.
    pub layer_values: u64,
    /// Values per token of its pair of products at the output.
    pub output_values: u64,
}

impl Lora {
    /// Reads this adapter, if it fits the model.
    pub fn open(&self, matrices: &Matrices) -> Result<Adapter, LoadError> {
        self.check_scale()?;
        Adapter::read(&mut matrices.open(&self.source())?)
    }

    /// Returns the size of this adapter, if its header fits the model.
    pub fn size(&self, matrices: &Matrices) -> Result<AdapterSize, LoadError> {
        self.check_scale()?;
        let file = matrices.open(&self.source())?;
        let mut size = AdapterSize { bytes: bytes(file.pairs()), ..AdapterSize::default() };
        if self.scale == 0.0 {
            // llama.cpp loads the adapter, but does not apply it.
            return Ok(size);
        }
        for pair in file.pairs() {
            let most = if pair.weight == OUTPUT { &mut size.output_values } else { &mut size.layer_values };
            *most = values(pair).max(*most);
        }
        Ok(size)
    }

    fn source(&self) -> ModelSource {
        ModelSource::file(&self.path)
    }

    fn check_scale(&self) -> Result<(), LoadError> {
        if self.scale.is_finite() {
            return Ok(());
        }
        let problem =
            format!("{}: its scale is {}, but finite ones are allowed", self.path.display(), self.scale);
        Err(LoadError::Option { option: "lora", problem })
    }
}

/// Values per token of the products of a pair.
fn values(pair: &AdapterPair) -> u64 {
    let width = if pair.base.lookup { pair.columns } else { pair.rows };
    pair.rank as u64 + width as u64
}
