//! Exsa's backend on [llama.cpp](https://github.com/ggml-org/llama.cpp): every GGUF model that llama.cpp knows, on the CPU, on CUDA
//! (feature `cuda`), on Metal (feature `metal`) and through Vulkan (feature `vulkan`).
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
//! llama.cpp is compiled from source, which the crate `llama-cpp-sys-2` brings along: that takes a C++ compiler, cmake and libclang
//! (for its bindings), and minutes once. In Exsa's repository, `scripts/setup` installs them. This crate uses the bindings and not the
//! safe wrapper `llama-cpp-2` on top of them, whose pointers are private: loading with cancellation, the abort callback, threads that
//! belong to a session, state and split files all need them, and little would be left for it to do. The version is pinned, for
//! llama.cpp's structures change from one release to the next.
//!
//! | feature | |
//! |---|---|
//! | `cuda`, `metal`, `vulkan` | GPUs; each needs its vendor's tools to build. We have none to test them on |
//! | `openmp` | OpenMP's threads in place of the session's own; it decides about their number and life |
//! | `native` | this machine's instruction set; it refuses to build without `RUSTFLAGS="-C target-cpu=native"`, for llama.cpp is compiled for the processor that Rust compiles for |
//! | `dynamic-backends` | llama.cpp as shared libraries, with a CPU library for each generation of processors, the best of which is chosen at run time |
//!
//! On x86-64 the default build needs AVX2, FMA, F16C and BMI2 (a processor of 2013 or later), which is checked when a model is loaded,
//! and **does not use AVX-512, VNNI or AMX**. For these there are three ways:
//!
//! - `native` and the flag, for a program that runs where it is built;
//! - variables that the build passes on to llama.cpp's cmake, for a fleet of one kind: `GGML_AVX512=ON GGML_AVX512_VNNI=ON
//!   GGML_AVX512_VBMI=ON GGML_AVX512_BF16=ON GGML_AMX_TILE=ON GGML_AMX_INT8=ON cargo build --release`;
//! - `dynamic-backends`, for a program that is sent to others: it runs on any x86-64 or ARMv8 and uses what it finds. The libraries in
//!   the build's `backends` folder (`DEP_LLAMA_BACKENDS_DIR` in a build script) and `libllama`, `libggml`, `libggml-base` must be shipped
//!   beside the program; they are looked for there, in the current folder, and where they were built.
//!
//! On processors with AMX (Sapphire Rapids and later) gcc 12 compiles llama.cpp's AMX code wrongly, and the process dies at random: then
//! build `native` and `dynamic-backends` with `CFLAGS` and `CXXFLAGS` set to `-fno-tree-dse -fno-dse`, or with a later gcc or clang.
//!
//! # Models
//!
//! Whatever this version of llama.cpp knows and Exsa has a tokenizer for (kinds `llama`, `gpt2` and `bert`): recurrent and hybrid
//! models, mixtures of experts, encoders for vectors. Not: models of an encoder and a decoder, diffusion models, vocabularies of
//! kinds `t5` and `rwkv`, images and sound. The parts of a split model are found beside the first by their names,
//! `NAME-00001-of-00003.gguf`.
//!
//! Core reads and checks the header of every file, and this crate what llama.cpp would end the process over, before llama.cpp opens
//! it. That cannot be complete for a hundred architectures: load files of strangers in a process of their own.
//! A mapped file must not change while its model is loaded. Models in memory are read from there, without a file.
//!
//! On the CPU a session has a stream of cells for each sequence ([`KvLayout::Streams`]) where that fits what its options allow for KV:
//! in one pool ([`KvLayout::Unified`]) each token looks at the cells of all. llama.cpp computes in one pass the streams that follow each
//! other, so sequences begin in the first free stream, and one that others have left alone is moved to them. One pool is for sessions
//! with more or longer sequences than there is memory for at full length, and for GPUs, where none of this was measured: shared
//! prefixes are not copied there. Tokens per second of a SmolLM2-135M shape in Q8_0 on two cores, 16 sequences:
//!
//! | | streams | streams, [`FlashAttention::Off`] | one pool |
//! |---|---|---|---|
//! | decoding at 32 tokens each | 330 | 308 | 320 |
//! | decoding at 640 tokens each | 102 | 196 | 75 |
//! | prompts of 640 tokens | 651 | 540 | 668 |
//!
//! What a sequence can do depends on model and layout, and [`Capabilities`](exsa_core::backend::Capabilities) say it:
//!
//! | model | layout | fork, truncate | save, restore |
//! |---|---|---|---|
//! | attention over everything | any | yes | yes |
//! | layers with a sliding window | [`Streams`](KvLayout::Streams) | yes | no |
//! | | [`Unified`](KvLayout::Unified), or [`swa_full(false)`](LlamaCppBackend::swa_full) | no | yes |
//! | recurrent or hybrid | any | no | yes |
//! | encoder | | vectors only | no |
//!
//! The third column is not llama.cpp's word but the truth: with layers of a window it gives cells before the window to other tokens
//! whenever it looks for room, and what it saves of them is the window, so that cutting back would silently go wrong.
//!
//! # LoRA adapters
//!
//! [`LlamaCppBackend::lora`] adds adapters to a model, with a scale each. They are for all sequences of all its sessions: llama.cpp
//! applies adapters to a whole context, so that requests cannot choose among them. Which weights an adapter reaches is up to what
//! llama.cpp does for the architecture: all that it multiplies with as they are. Tried on llama. For several choices, load the model several times;
//! a mapped file is in memory once, unless its weights are [rearranged](LlamaCppBackend::repack).
//!
//! # Interrupts
//!
//! An [`Interrupt`](exsa_core::backend::Interrupt) ends a pass within one operation of llama.cpp on the CPU. GPUs do not look at it until
//! the pass is over.
//!
//! # Log
//!
//! llama.cpp's log goes to [`tracing`], target `llama.cpp`, and nowhere else.
//!
//! # Against candle
//!
//! Mean KL divergence of next-token distributions, in nats, as the tests print it (`tests/parity.rs`), llama.cpp with KV in 32 bits:
//!
//! | models | divergence | why |
//! |---|---|---|
//! | random weights, f32 | below 1e-11; gemma 1e-6 | order of sums; llama.cpp looks GELU up in a table of 16 bits |
//! | random weights, f16, bf16 | 2e-6, 2e-4 | llama.cpp rounds activations to the type of the weights |
//! | random weights, q4_k, q5_k, q6_k | below 4e-6 | both round activations alike |
//! | random weights, q4_0, q5_0, q8_0 | 7e-4 to 8e-4 | the two round activations to 8 bits in other blocks |
//! | random weights, q4_1, q5_1, q2_k, q3_k | 1.3e-3 to 1.7e-3 | llama.cpp rounds activations to 8 bits, candle does not |
//! | exsa-tiny f32, f16, q8_0, q4_k_m | 2e-12, 1e-7, 1.5e-4, 2e-4 | the same |
//!
//! Greedy texts of the f32 models are the same for 64 tokens. Perplexity of exsa-tiny on held-out text with default options: f32 21.0437
//! (candle) and 21.0438, q8_0 21.053 and 21.060, q4_k_m 21.262 and 21.265.

mod adapter;
mod backend;
mod check;
mod device;
mod ffi;
mod fingerprint;
mod kv;
mod load;
mod log;
mod options;
mod places;
mod plan;
mod pooling;
mod saved;
mod session;
mod source;
#[cfg(test)]
mod tokenizer_tests;

pub use backend::LlamaCppBackend;
pub use options::{FlashAttention, KvLayout, KvType, RopeOptions, RopeScaling, SplitMode};
