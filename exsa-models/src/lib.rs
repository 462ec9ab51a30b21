//! Descriptions of the models that [Exsa](https://docs.rs/exsa)'s executors run: from the metadata and the
//! tensor table of a GGUF file to checked hyperparameters and tensors, without a tensor library and without
//! weights in memory.
//!
//! - [`Architecture`]: the characteristics of a family of models, as data.
//! - [`Config`]: the hyperparameters of one model, each within its limits.
//! - [`ModelDescription`]: the tensors of one model by their place in the network, each of the right shape.
//! - [`encoder`]: the same for encoders, which give vectors and scores and no text.
//!
//! ```no_run
//! use exsa_core::gguf::Gguf;
//! use exsa_models::ModelDescription;
//! use exsa_models::tensors::MixerTensors;
//!
//! let file = std::fs::File::open("model.gguf")?;
//! let gguf = Gguf::read(&mut std::io::BufReader::new(file))?;
//! let model = ModelDescription::read(&gguf, 0)?;
//! let config = &model.config;
//! println!("{}: {} layers of width {}", config.architecture.name, config.n_layer, config.n_embd);
//! for layer in &model.layers {
//!     if let MixerTensors::Attention(attention) = &layer.mixer {
//!         let weight = attention.output.weight;
//!         println!("{}: {} by {}", weight.tensor.name, weight.rows, weight.columns);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A matrix of `rows` rows and `columns` columns maps vectors of `columns` values to vectors of `rows`; GGUF
//! gives its shape as `[columns, rows]`, and its rows lie one after another.

#![forbid(unsafe_code)]

pub mod architecture;
mod config;
pub mod encoder;
mod experts;
mod heads;
mod keys;
mod rope;
pub mod tensors;

pub use architecture::Architecture;
pub use config::{Config, DeltaNetConfig};
pub use encoder::{EncoderConfig, EncoderDescription};
pub use experts::{ExpertConfig, Routing};
pub use heads::Heads;
pub use rope::{
    FreqFactors, LayerRope, RopeConfig, RopeFreqFactors, RopeFrequencies, RopePairs, RopeScaling,
};
pub use tensors::ModelDescription;
