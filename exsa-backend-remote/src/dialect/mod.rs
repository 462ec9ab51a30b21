//! Protocols of remote engines.

mod call;
mod llama_server;
mod openai;
mod probe;
pub(crate) mod settings;
mod sglang;
mod trtllm;
mod triton;
mod update;
mod vllm;

pub(crate) use call::{Call, WirePrompt, check_common};
pub(crate) use probe::{Served, probe};
pub(crate) use update::{Draft, Reader, RemoteEnd, RemoteUsage, Update};

use crate::capabilities::Capabilities;
use exsa_core::SubmitError;
use serde_json::Value;

/// The protocol that an engine speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Asks the engine once, when it is connected.
    #[default]
    Auto,
    /// vLLM: `/inference/v1/generate` where the engine has it, else `/v1/completions` with token ids.
    Vllm,
    /// TensorRT-LLM's `trtllm-serve`: `/v1/completions` with token ids.
    TensorRtLlm,
    /// Triton with TensorRT-LLM's ensemble: `/v2/models/{model}/generate_stream`.
    Triton,
    /// SGLang: `/generate`.
    Sglang,
    /// llama.cpp's llama-server: `/completion`.
    LlamaServer,
    /// Any other server with OpenAI's `/v1/chat/completions` and `/v1/completions`, with text.
    OpenAi,
}

impl Dialect {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "unknown engine",
            Self::Vllm => "vLLM",
            Self::TensorRtLlm => "TensorRT-LLM",
            Self::Triton => "Triton",
            Self::Sglang => "SGLang",
            Self::LlamaServer => "llama-server",
            Self::OpenAi => "the OpenAI-compatible engine",
        }
    }
}

/// A request as it is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct WireRequest {
    pub(crate) path: String,
    pub(crate) body: Value,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl WireRequest {
    pub(crate) fn new(path: impl Into<String>, body: Value) -> Self {
        Self { path: path.into(), body, headers: Vec::new() }
    }
}

/// The protocol of an engine.
pub(crate) trait Protocol: Send + Sync {
    /// Abilities and the effect of a continuation.
    fn capabilities(&self) -> Capabilities;

    /// The request for an answer.
    fn request(&self, call: &Call<'_>) -> Result<WireRequest, SubmitError>;

    /// The reader of the answer's events.
    fn reader(&self, call: &Call<'_>) -> Box<dyn Reader>;

    /// The request that ends the answer to the request of this id, beside closing its connection.
    fn abort(&self, id: &str) -> Option<WireRequest> {
        let _ = id;
        None
    }
}

/// The protocol of a dialect.
pub(crate) fn protocol(dialect: Dialect, served: &Served) -> Box<dyn Protocol> {
    match dialect {
        Dialect::Vllm => Box::new(vllm::Vllm::new(served)),
        Dialect::TensorRtLlm => Box::new(trtllm::TensorRtLlm),
        Dialect::Triton => Box::new(triton::Triton::new(served)),
        Dialect::Sglang => Box::new(sglang::Sglang),
        Dialect::LlamaServer => Box::new(llama_server::LlamaServer),
        Dialect::OpenAi | Dialect::Auto => Box::new(openai::OpenAi),
    }
}

/// Refuses a setting that the engine cannot honour.
pub(crate) fn unsupported(operation: &'static str, reason: impl Into<String>) -> SubmitError {
    SubmitError::Unsupported { operation, reason: reason.into() }
}
