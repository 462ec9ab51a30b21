//! The core of Exsa, an LLM inference engine that lives inside a Rust program.
#![forbid(unsafe_code)]

pub mod backend;
pub mod batch;
pub mod chat;
pub mod detokenizer;
pub mod error;
pub mod gguf;
pub mod model_info;
pub mod sampler;
pub mod stop;
pub mod token;
pub mod tokenizer;

pub use token::{SeqId, TokenId};
