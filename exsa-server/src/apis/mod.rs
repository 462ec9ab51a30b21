//! The supported APIs. Each converts to the engine's requests and back.

pub(crate) mod anthropic;
pub(crate) mod llama;
pub(crate) mod ollama;
pub(crate) mod openai;
pub(crate) mod openapi;
pub(crate) mod tokens;
