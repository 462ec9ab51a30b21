//! Exsa's backend on [candle](https://github.com/huggingface/candle): GGUF models on the CPU, on CUDA
//! (feature `cuda`) and on Metal (feature `metal`).
//!
//! ```no_run
//! use exsa_backend_candle::CandleBackend;
//! use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource, SessionOptions};
//! use exsa_core::batch::{Batch, Span};
//! use exsa_core::SeqId;
//!
//! let source = ModelSource::file("model.gguf");
//! let model = CandleBackend::new().load(&source, &LoadOptions::default(), &mut LoadProgress::none())?;
//! let mut session = model.session(&SessionOptions::default())?;
//! let mut batch = Batch::new();
//! batch.push(Span::tokens(SeqId(0), 0, &[1]).rows(1));
//! let output = session.forward(&batch)?;
//! println!("{:?}", output.row(0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Models
//!
//! Architectures: `llama` (Llama 1 to 3, Mistral, SmolLM2), `qwen2`, `qwen3`, `gemma2`, `gemma3` (text),
//! `phi3`, `granite`, `smollm3`, `olmo2` (OLMo 2 and 3), `glm4` (GLM-4-0414), `exaone4`, `command-r` (below
//! 64 layers), `cohere2`, `starcoder2`. On the CPU alone: the mixtures of experts `llama` (Mixtral),
//! `qwen3moe`, `qwen2moe`, `olmoe`, `granitemoe`, `gpt-oss`, `glm4moe` (GLM-4.5) and `ernie4_5-moe`, in files
//! with all experts of a layer in one tensor; the hybrids `lfm2`, `lfm2moe`, `qwen35` and `qwen35moe`
//! (Qwen3.5; its layers that predict more tokens are left out). Others are refused with a list; the llama.cpp
//! backend runs more.
//!
//! Encoders, on the CPU: `bert` (BGE, E5, MiniLM, RoBERTa and rerankers of that shape), `nomic-bert`,
//! `jina-bert-v2`, `modern-bert`, `gemma-embedding` (EmbeddingGemma). They compute embeddings, and with a
//! classification head scores; a text is in one batch, and generation is refused. Embeddings of decoders such
//! as Qwen3-Embedding are pooled as the file says.
//!
//! On the CPU, weights of every type that GGUF files have, mixed at will; over tensors on a device F32, F16,
//! BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K.
//!
//! A model is a GGUF file, a split one by any of its parts, or a Hugging Face folder (`config.json`,
//! `tokenizer.json`, `*.safetensors`) of the families llama, mistral, qwen2, qwen3, gemma2 and gemma3:
//! `docs/model-files.md`. With [`LoadOptions::quantize`](exsa_core::backend::LoadOptions::quantize), matrices
//! of floats are quantized while they are loaded.
//!
//! On the CPU, weights of most types are packed into memory of their own when a model is loaded; embeddings,
//! and weights of the types that `docs/kernels.md` calls slow, stay in the mapped file: **the file must not
//! change while its model is loaded**.
//!
//! With [`LoadOptions::packed_cache`](exsa_core::backend::LoadOptions::packed_cache) the packed weights of a
//! model are kept in a file, which later loads map and other processes share: `docs/packed-cache.md`.
//!
//! # Processors
//!
//! There are kernels for AMX, AVX-512 VNNI, AVX-VNNI, AVX2 (with FMA and F16C), NEON with and without
//! DotProd, and plain Rust for the rest; the best that the processor has is chosen when a model is loaded.
//! Products of packed weights are the same on all of them, to the bit.
//!
//! # KV cache
//!
//! [`SessionOptions::kv_type`](exsa_core::backend::SessionOptions::kv_type) is the element type of keys and
//! values alike: `f32` (exact), `f16` (the default: half the memory, rounded to 11 significant bits), or on
//! the CPU `q8_0` (8 bits, with an f32 scale for every 32 values of a head: 9/32 of f32's memory).
//!
//! # Hybrid models
//!
//! Layers of these models without attention keep a state of fixed size for each sequence, in f32, beside the
//! KV cache. Sessions of these models cannot fork or truncate; they save and restore, so that the prompt
//! store works with checkpoints (`docs/prompt-cache.md`). A pass that fails empties the sequences of its
//! batch.
//!
//! # Embeddings
//!
//! Vectors are made of the normalized hidden states behind the last layer, by the pooling of the session's
//! options, else by that of the file (`pooling_type`), else as their mean.
//!
//! # Adapters
//!
//! On the CPU, every span can have adapters of its own: LoRA as GGUF in llama.cpp's form, or as the folder
//! that PEFT saves, of any linear layer and of an output with weights of its own. Their matrices stay in the
//! type of the file (Q8_0 becomes f32). Rows of a batch are grouped by adapters: the model's own products are
//! computed once for all rows. In layers with experts, the projections of the attention alone take them.
//!
//! # Calibration
//!
//! On the CPU, for models without experts, [`CandleBackend::calibration`] sums up the squared inputs of a
//! model's projections over texts, as importance matrices hold them.
//!
//! # Threads
//!
//! [`ThreadOptions`](exsa_core::backend::ThreadOptions) decide how many threads a session computes with: it
//! owns them, or lends them from a [`ThreadTeam`](exsa_core::backend::ThreadTeam) for one pass at a time.
//! They spin for a moment between two steps, and park when nothing comes. No product runs on a pool of the
//! process, and no environment variable decides anything.

#![deny(clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)]

mod adapters;
mod backend;
#[doc(hidden)]
pub mod bench_hooks;
mod calibration;
mod compute;
mod converted;
mod device;
mod encoder;
mod error;
mod estimate;
mod executor;
#[cfg(test)]
mod executors_agree;
mod input_sums;
mod kernels;
mod kv;
mod layers;
mod load;
mod load_steps;
mod mapped_weights;
mod mapping;
mod model_files;
mod packed_cache;
mod packed_tensor;
mod plan;
mod pooling;
mod session;
mod shape;
mod tensor_values;
mod transformer;
mod weights;

pub use backend::CandleBackend;
pub use calibration::{Calibration, ProjectionInputs};
