//! Protocols of remote engines.

mod call;
mod llama_server;
mod logprobs;
mod openai;
mod probe;
pub(crate) mod settings;
mod sglang;
mod triton;
mod trtllm;
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
    /// Detected once when connecting.
    #[default]
    Auto,
    /// vLLM: `/inference/v1/generate` if the engine has it, else `/v1/completions` with token ids.
    Vllm,
    /// TensorRT-LLM's `trtllm-serve`: `/v1/completions` with token ids.
    TensorRtLlm,
    /// Triton with TensorRT-LLM's ensemble: `/v2/models/{model}/generate_stream`.
    Triton,
    /// SGLang: `/generate`.
    Sglang,
    /// llama.cpp's llama-server: `/completion`.
    LlamaServer,
    /// Exsa's own server: `/completion`, with the id of every token.
    Exsa,
    /// Any other server with OpenAI's `/v1/chat/completions` and `/v1/completions`, with text.
    OpenAi,
}

impl Dialect {
    /// Display name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "unknown engine",
            Self::Vllm => "vLLM",
            Self::TensorRtLlm => "TensorRT-LLM",
            Self::Triton => "Triton",
            Self::Sglang => "SGLang",
            Self::LlamaServer => "llama-server",
            Self::Exsa => "Exsa",
            Self::OpenAi => "the OpenAI-compatible engine",
        }
    }
}

/// An HTTP request to send.
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
    /// Capabilities of the engine.
    fn capabilities(&self) -> Capabilities;

    /// Builds the request for an answer.
    fn request(&self, call: &Call<'_>) -> Result<WireRequest, SubmitError>;

    /// Creates the reader of the answer's events.
    fn reader(&self, call: &Call<'_>) -> Box<dyn Reader>;

    /// Builds the request that aborts the request with this id, besides closing its connection.
    fn abort(&self, id: &str) -> Option<WireRequest> {
        let _ = id;
        None
    }
}

/// Returns the protocol of a dialect.
pub(crate) fn protocol(dialect: Dialect, served: &Served) -> Box<dyn Protocol> {
    match dialect {
        Dialect::Vllm => Box::new(vllm::Vllm::new(served)),
        Dialect::TensorRtLlm => Box::new(trtllm::TensorRtLlm),
        Dialect::Triton => Box::new(triton::Triton::new(served)),
        Dialect::Sglang => Box::new(sglang::Sglang),
        Dialect::LlamaServer | Dialect::Exsa => {
            Box::new(llama_server::LlamaServer { is_exsa: dialect == Dialect::Exsa })
        }
        Dialect::OpenAi | Dialect::Auto => {
            let text_grammar = openai::TextGrammar::of_owner(&served.owned_by);
            Box::new(openai::OpenAi { text_grammar })
        }
    }
}

/// Refuses a setting that the engine does not support.
pub(crate) fn unsupported(operation: &'static str, reason: impl Into<String>) -> SubmitError {
    SubmitError::Unsupported { operation, reason: reason.into() }
}

/// Reads an event's data twice with the reader of every dialect, for fuzzing: readers have state.
#[doc(hidden)]
pub fn read_event(data: &str) {
    let Ok(value) = serde_json::from_str::<Value>(data) else { return };
    let readers: [Box<dyn Reader>; 6] = [
        Box::new(openai::CompletionReader { top: 2 }),
        Box::new(openai::ChatReader { top: 2 }),
        Box::new(vllm::GenerateReader { top: 2 }),
        Box::new(sglang::GenerateReader::new(2)),
        Box::new(llama_server::CompletionReader { top: 2 }),
        Box::new(triton::StreamReader),
    ];
    for mut reader in readers {
        let _ = (reader.read(&value), reader.read(&value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// JSON with the names that readers look for, and arbitrary values.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            prop_oneof![any::<i64>(), -2..9_i64].prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop_oneof!["[a-zä🙂]{0,4}", Just("stop".to_owned()), Just("length".to_owned())]
                .prop_map(Value::from),
        ];
        let names = "choices|text|token_ids|logprobs|token_logprobs|top_logprobs|finish_reason|stop_reason|usage|delta|\
                     content|reasoning|tool_calls|index|function|arguments|output_ids|meta_info|type|matched|\
                     completion_tokens|output_token_logprobs|output_top_logprobs|tokens|stop|stop_type|timings|\
                     completion_probabilities|text_output|logprob|token|id";
        leaf.prop_recursive(5, 40, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::hash_map(names, inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn hostile_events_never_panic(value in json()) {
            read_event(&value.to_string());
        }
    }
}
