//! Exsa's backend on [llama.cpp](https://github.com/ggml-org/llama.cpp): every GGUF model that llama.cpp knows, on the CPU, on CUDA
//! (feature `cuda`), on Metal (feature `metal`) and through Vulkan (feature `vulkan`).
//!
//! ```no_run
//! use exsa_backend_llamacpp::LlamaCppBackend;
//! use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource, SessionOptions};
//! use exsa_core::batch::Batch;
//! use exsa_core::SeqId;
//!
//! let source = ModelSource::file("model.gguf");
//! let model = LlamaCppBackend::new().load(&source, &LoadOptions::default(), &mut LoadProgress::none())?;
//! let mut session = model.session(&SessionOptions::default())?;
//! let mut batch = Batch::new();
//! batch.push(SeqId(0), 0, &[1], 1);
//! let logits = session.forward(&batch)?;
//! println!("{:?}", logits.row(0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod check;
mod device;
mod ffi;
mod fingerprint;
mod kv;
mod load;
mod log;
mod options;
mod plan;
mod pooling;
mod saved;
mod session;
mod source;

pub use backend::LlamaCppBackend;
pub use options::{FlashAttention, KvLayout, KvType, RopeOptions, RopeScaling, SplitMode};
