//! Configuration tables of remote engines.

use crate::models::units;
use exsa_backend_remote::{Dialect, RemoteOptions};
use exsa_core::backend::{Fingerprint, ModelSource};
use serde::{Deserialize, Serialize};
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// A remote engine: a table in `remote` of a model's table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RemoteEntry {
    /// Base URL, without the paths of the API: `http://10.0.0.7:8000`.
    pub url: String,
    /// Protocol of the engine; detected by default.
    #[serde(skip_serializing_if = "RemoteDialect::is_default")]
    pub dialect: RemoteDialect,
    /// The engine's name of the model; by default the first listed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A file with the API key, sent as `Authorization: Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    /// A GGUF file of the same model, for local tokenization; its weights are not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Context length, if the engine does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<NonZeroUsize>,
    /// Maximum concurrent requests; 64 by default. The rest wait here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<NonZeroUsize>,
    /// Identity of weights and quantization. An interrupted answer continues only on an engine with the same
    /// identity. By default, engines of one dialect with the same model name are identical.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Whether the engine draws the same tokens for a continued answer.
    pub positional_seeds: bool,
    /// Whether settings that the engine can only approximate are accepted.
    pub approximate: bool,
    /// Whether priorities are sent.
    pub priorities: bool,
    /// Whether a cache salt is dropped instead of refused if the engine has no field for it.
    pub ignore_cache_salt: bool,
    /// Connect timeout; 5 s by default.
    #[serde(with = "units::duration", skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// Timeout without a byte within a response; 120 s by default.
    #[serde(with = "units::duration", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
}

/// Protocol names in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RemoteDialect {
    /// Detected.
    #[default]
    Auto,
    /// vLLM.
    Vllm,
    /// `trtllm-serve`.
    Trtllm,
    /// Triton with TensorRT-LLM.
    Triton,
    /// SGLang.
    Sglang,
    /// llama-server.
    LlamaServer,
    /// Another Exsa server.
    Exsa,
    /// Any server with OpenAI's API.
    Openai,
}

impl RemoteDialect {
    fn is_default(&self) -> bool {
        *self == Self::Auto
    }

    fn dialect(self) -> Dialect {
        match self {
            Self::Auto => Dialect::Auto,
            Self::Vllm => Dialect::Vllm,
            Self::Trtllm => Dialect::TensorRtLlm,
            Self::Triton => Dialect::Triton,
            Self::Sglang => Dialect::Sglang,
            Self::LlamaServer => Dialect::LlamaServer,
            Self::Exsa => Dialect::Exsa,
            Self::Openai => Dialect::OpenAi,
        }
    }
}

impl RemoteEntry {
    /// Returns the connection options.
    ///
    /// # Errors
    ///
    /// The invalid setting and its problem.
    pub(super) fn options(&self) -> Result<RemoteOptions, (&'static str, String)> {
        if self.url.is_empty() {
            return Err((
                "url",
                "it is missing; the base URL of an engine, such as http://10.0.0.7:8000".into(),
            ));
        }
        let secure = self.url.starts_with("https://");
        if !secure && !self.url.starts_with("http://") {
            return Err(("url", format!("'{}' begins with neither http:// nor https://", self.url)));
        }
        if secure && !cfg!(feature = "tls") {
            return Err(("url", "https needs an exsa-server that was built with --features tls".into()));
        }
        let mut options = RemoteOptions::new(&self.url).dialect(self.dialect.dialect());
        options.model.clone_from(&self.model);
        if let Some(path) = &self.api_key_file {
            let failed = |problem: String| ("api_key_file", format!("{}: {problem}", path.display()));
            let key = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            match key.trim() {
                "" => return Err(failed("the file is empty".into())),
                key => options = options.api_key(key),
            }
        }
        if let Some(path) = &self.tokenizer {
            if !path.is_file() {
                return Err(("tokenizer", format!("{} is not a file", path.display())));
            }
            options = options.tokenizer(ModelSource::file(path));
        }
        let mut identity = Fingerprint::default();
        match &self.weights {
            Some(weights) => identity.update(weights.as_bytes()),
            None => {
                identity.update(options.dialect.name().as_bytes());
                identity.update(self.model.as_deref().unwrap_or_default().as_bytes());
            }
        }
        options.fingerprint = Some(identity);
        options.context_tokens = self.context.map(NonZeroUsize::get);
        options.in_flight_max = self.in_flight.map_or(options.in_flight_max, NonZeroUsize::get);
        options.connect_timeout = self.connect_timeout.unwrap_or(options.connect_timeout);
        options.idle_timeout = self.idle_timeout.unwrap_or(options.idle_timeout);
        (options.approximate, options.priorities) = (self.approximate, self.priorities);
        options.ignore_cache_salt = self.ignore_cache_salt;
        options.positional_seeds = self.positional_seeds;
        Ok(options)
    }
}
