//! OpenAI's API: chat completions, completions, responses, embeddings, models; and Jina's rerank.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod fingerprint;
mod finish;
pub(crate) mod logprobs;
pub(crate) mod models;
mod prompt_logprobs;
pub(crate) mod request;
pub(crate) mod rerank;
pub(crate) mod responses;
mod usage;
