//! Exsa's backend on [llama.cpp](https://github.com/ggml-org/llama.cpp): every GGUF model that llama.cpp
//! supports, on the CPU, CUDA (feature `cuda`), Metal (feature `metal`) and Vulkan (feature `vulkan`).
//!
//! ```no_run
//! use exsa_backend_llamacpp::LlamaCppBackend;
//! use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource, SessionOptions};
//! use exsa_core::batch::{Batch, Span};
//! use exsa_core::SeqId;
//!
//! let source = ModelSource::file("model.gguf");
//! let model = LlamaCppBackend::new().load(&source, &LoadOptions::default(), &mut LoadProgress::none())?;
//! let mut session = model.session(&SessionOptions::default())?;
//! let mut batch = Batch::new();
//! batch.push(Span::tokens(SeqId(0), 0, &[1]).rows(1));
//! let output = session.forward(&batch)?;
//! println!("{:?}", output.row(0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Building
//!
//! llama.cpp is compiled from the source that the crate `llama-cpp-sys-2` contains. The build needs a C++
//! compiler, cmake and libclang (for the bindings), and takes minutes once. In Exsa's repository,
//! `scripts/setup` installs them. This crate uses the bindings and not the safe wrapper `llama-cpp-2`, whose
//! pointers are private: cancelling a load, the abort callback, threads owned by a session, saved states and
//! split files all need them. The version is pinned, since llama.cpp's structures change from release to
//! release.
//!
//! - `cuda`, `metal`, `vulkan`: GPUs. Each needs its vendor's tools to build. Not tested: no such machine is
//!   at hand.
//! - `openmp`: OpenMP's threads instead of the session's own. OpenMP decides their number and lifetime.
//! - `native`: the instruction set of this machine. Needs `RUSTFLAGS="-C target-cpu=native"`, since llama.cpp
//!   is compiled for the processor that Rust compiles for; without the flag the build is refused.
//! - `dynamic-backends`: llama.cpp as shared libraries, with a CPU library for each generation of processors,
//!   chosen at run time.
//!
//! On x86-64 the default build needs AVX2, FMA, F16C and BMI2 (processors from 2013 on), which is checked
//! when a model is loaded, and **does not use AVX-512, VNNI or AMX**. There are three ways to use them:
//!
//! - `native` and the flag, for a program that runs on the machine that builds it;
//! - variables for llama.cpp's cmake, for machines of one kind: `GGML_AVX512=ON GGML_AVX512_VNNI=ON
//!   GGML_AVX512_VBMI=ON GGML_AVX512_BF16=ON GGML_AMX_TILE=ON GGML_AMX_INT8=ON cargo build --release`;
//! - `dynamic-backends`, for a program that is distributed: it runs on any x86-64 or ARMv8 and uses the best
//!   library for the processor. Ship the libraries in the build's `backends` folder (`DEP_LLAMA_BACKENDS_DIR`
//!   in a build script) and `libllama`, `libggml`, `libggml-base` beside the program. They are looked for
//!   there, in the current folder, and in the build's folder.
//!
//! On processors with AMX (Sapphire Rapids and later) gcc 12 miscompiles llama.cpp's AMX code, and the
//! process crashes at random: build `native` and `dynamic-backends` with `CFLAGS` and `CXXFLAGS` set to
//! `-fno-tree-dse -fno-dse`, or with a later gcc or clang.
//!
//! # Models
//!
//! All models that this version of llama.cpp supports and that have a tokenizer in Exsa, including recurrent
//! and hybrid models, mixtures of experts, and encoders for embeddings. Not supported: encoder-decoder
//! models, diffusion models, images and sound. The parts of a split model are found beside any of them by
//! their names, `NAME-00001-of-00003.gguf`.
//!
//! Core parses and checks the header of every file. This crate then checks what would make llama.cpp end the
//! process, before llama.cpp opens the file. These checks cannot be complete for a hundred architectures:
//! load untrusted files in a process of their own. A mapped file must not change as long as its model is
//! loaded. Models in memory are read in place, without a file.
//!
//! # Memory
//!
//! [`InferenceBackend::estimate`](exsa_core::backend::InferenceBackend::estimate) computes the memory of a
//! model and a session from the file's header: llama.cpp plans weights, KV and compute buffers as for a real
//! session and allocates none of them.
//!
//! # KV types
//!
//! [`SessionOptions::kv_types`](exsa_core::backend::SessionOptions::kv_types) takes all of core's types for
//! keys and for values; f16 is the default. Quantized values need flash attention, and a quantized type needs
//! heads whose width is a multiple of 32. Flash attention rounds f32 to 16 bits nevertheless.
//!
//! # Threads
//!
//! A session has a pool of threads of its own, or shares the pool of a
//! [`ThreadTeam`](exsa_core::backend::ThreadTeam) with other sessions, also of other models. The pool stays
//! attached to each of its contexts; passes run on it one at a time, in order of arrival. The team's number
//! of threads counts for prefill and decoding alike.
//!
//! # KV layout
//!
//! On the CPU a session has one stream of cells per sequence ([`KvLayout::Streams`]) if that fits the
//! session's limits for KV. In one pool ([`KvLayout::Unified`]) each token's attention runs over the cells of
//! all sequences. llama.cpp computes adjacent streams in one pass, so sequences start in the first free
//! stream, and a sequence with a gap between itself and the others is moved to them. One pool is for sessions
//! with more or longer sequences than memory allows at full length, and for GPUs, which were not measured:
//! there, shared prefixes are not copied. Tokens per second of a SmolLM2-135M shape in Q8_0 on two cores, 16
//! sequences:
//!
//! | | streams | streams, [`FlashAttention::Off`] | one pool |
//! |---|---|---|---|
//! | decoding at 32 tokens each | 330 | 308 | 320 |
//! | decoding at 640 tokens each | 102 | 196 | 75 |
//! | prompts of 640 tokens | 651 | 540 | 668 |
//!
//! Model and layout decide the operations on a sequence, which
//! [`Capabilities`](exsa_core::backend::Capabilities) report:
//!
//! | model | layout | fork, truncate | save, restore |
//! |---|---|---|---|
//! | global attention | any | yes | yes |
//! | layers with a sliding window | [`Streams`](KvLayout::Streams) | yes | no |
//! | | [`Unified`](KvLayout::Unified), or [`swa_full(false)`](LlamaCppBackend::swa_full) | no | yes |
//! | recurrent or hybrid | any | no | yes |
//! | encoder | | embeddings only | no |
//!
//! The third column is stricter than llama.cpp's own answer. In layers with a sliding window, llama.cpp
//! reuses cells before the window whenever it looks for free ones, and it saves the window alone, so that
//! truncation would silently give wrong results.
//!
//! # LoRA adapters
//!
//! [`Model::load_adapter`](exsa_core::backend::Model::load_adapter) loads adapters that spans name: GGUFs,
//! and folders that PEFT saved. llama.cpp applies adapters to a whole context, so that all spans of a batch
//! have the same set; an engine's scheduler groups requests accordingly. Another set than in the last pass
//! makes llama.cpp plan its passes anew. [`LlamaCppBackend::lora`] adds adapters to all sequences of a
//! model's sessions, beside these.
//!
//! Core reads and checks the files, and llama.cpp gets a GGUF in memory that is made of the checked matrices.
//! The weights that an adapter can change depend on llama.cpp's support for the architecture; those that its
//! graph does not adapt are left out. Tested with llama, qwen3, gemma2 and gemma3. Architectures whose graphs
//! have a fixed size in llama.cpp, such as qwen35, take no adapters: they could exceed it.
//!
//! # Interrupts
//!
//! An [`Interrupt`](exsa_core::backend::Interrupt) ends a pass within one operation of llama.cpp on the CPU.
//! GPUs check it after the pass only.
//!
//! # Log
//!
//! llama.cpp's log goes to [`tracing`], target `llama.cpp`, and nowhere else.
//!
//! # Comparison with candle
//!
//! Mean KL divergence of next-token distributions, in nats, as printed by `tests/parity.rs`, llama.cpp with
//! KV in 32 bits:
//!
//! | models | divergence | reason |
//! |---|---|---|
//! | random weights, f32 | below 1e-11; gemma 1e-6 | order of sums; llama.cpp's GELU is a table of 16 bits |
//! | random weights, f16, bf16 | 2e-6, 2e-4 | llama.cpp rounds activations to the type of the weights |
//! | random weights, q4_k, q5_k, q6_k | below 4e-6 | both round activations alike |
//! | random weights, q4_0, q5_0, q8_0 | 7e-4 to 8e-4 | the two round activations to 8 bits in other blocks |
//! | random weights, q4_1, q5_1, q2_k, q3_k | 1.3e-3 to 1.7e-3 | llama.cpp alone rounds to 8 bits |
//! | exsa-tiny f32, f16, q8_0, q4_k_m | 2e-12, 1e-7, 1.5e-4, 2e-4 | the same |
//!
//! Greedy texts of the f32 models are identical for 64 tokens. Perplexity of exsa-tiny on held-out text with
//! default options: f32 21.0437 (candle) and 21.0438, q8_0 21.053 and 21.060, q4_k_m 21.262 and 21.265.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc, missing_debug_implementations)]

mod adapter;
mod backend;
mod cells;
mod device;
mod estimate;
#[cfg(test)]
mod estimate_tests;
mod ffi;
mod fingerprint;
mod header_check;
mod kv_type;
mod load;
mod log;
mod options;
mod pooling;
mod saved;
mod session;
mod session_plan;
mod source;
mod stream_map;
#[cfg(test)]
mod tokenizer_tests;

pub use backend::LlamaCppBackend;
pub use options::{FlashAttention, KvLayout, RopeOptions, RopeScaling, SplitMode};
