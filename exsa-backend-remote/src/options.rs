//! Options of a connection to a remote engine.

use crate::dialect::Dialect;
use exsa_core::backend::{Fingerprint, ModelSource};
use exsa_core::tokenizer::Tokenizer;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Source of the remote model's tokenizer and chat templates.
#[derive(Clone)]
#[non_exhaustive]
pub enum TokenizerSource {
    /// A tokenizer. The model then has no chat template.
    Tokenizer(Arc<dyn Tokenizer>),
    /// A GGUF file of the same model; a vocabulary-only file is enough. Its weights are not read.
    Gguf(ModelSource),
}

impl fmt::Debug for TokenizerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokenizer(tokenizer) => f.debug_tuple("Tokenizer").field(&tokenizer.n_vocab()).finish(),
            Self::Gguf(ModelSource::File(path)) => f.debug_tuple("Gguf").field(path).finish(),
            Self::Gguf(_) => f.write_str("Gguf(..)"),
        }
    }
}

impl From<Arc<dyn Tokenizer>> for TokenizerSource {
    fn from(tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self::Tokenizer(tokenizer)
    }
}

impl From<ModelSource> for TokenizerSource {
    fn from(source: ModelSource) -> Self {
        Self::Gguf(source)
    }
}

/// A secret such as a key, which is not shown by `Debug`.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

/// Options of a [`RemoteEngine`](crate::RemoteEngine). Each field has a setter of the same name.
///
/// ```
/// use exsa_backend_remote::{Dialect, RemoteOptions};
/// use std::time::Duration;
///
/// let options = RemoteOptions::new("http://10.0.0.7:8000")
///     .dialect(Dialect::Vllm)
///     .api_key("secret")
///     .in_flight_max(32usize)
///     .idle_timeout(Duration::from_secs(30));
/// assert!(!format!("{options:?}").contains("secret"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// Base URL, without the paths of the API: `http://10.0.0.7:8000`.
    pub url: String,
    /// Protocol of the engine; [`Dialect::Auto`] by default, which asks the engine once.
    pub dialect: Dialect,
    /// The engine's name of the model. `None`, the default, takes the first listed one.
    pub model: Option<String>,
    pub(crate) api_key: Option<Secret>,
    pub(crate) headers: Vec<(String, Secret)>,
    pub(crate) proxy: Option<Secret>,
    /// Timeout for name resolution and connecting; 5 s by default.
    pub connect_timeout: Duration,
    /// Timeout from a request to its response head; 120 s by default.
    pub first_byte_timeout: Duration,
    /// Timeout without a byte within a response, comments included; 120 s by default. Time in which the
    /// consumer does not read does not count.
    pub idle_timeout: Duration,
    /// Maximum concurrent requests; 64 by default. Others wait in a queue, most urgent first.
    pub in_flight_max: usize,
    /// Maximum waiting requests; 256 by default. Further requests are refused.
    pub queue_max: usize,
    /// Unread events of a stream at which the client stops reading the connection; 64 by default.
    pub stream_events_max: usize,
    /// The model's tokenizer, which enables the exchange of token ids; `None` by default.
    pub tokenizer: Option<TokenizerSource>,
    /// Identity of weights and quantization. A pool continues answers only between engines with equal
    /// fingerprints; `None` by default.
    pub fingerprint: Option<Fingerprint>,
    /// Context length, if the engine does not report it.
    pub context_tokens: Option<usize>,
    /// Retries of a request that was temporarily refused or could not connect, before its first token; 2 by
    /// default.
    pub retries: u32,
    /// Delay before the first retry, doubled for each further one; 100 ms by default. An engine's
    /// `Retry-After` overrides it.
    pub retry_delay: Duration,
    /// Maximum delay before a retry; 10 s by default. If an engine asks for more, the request ends.
    pub retry_delay_max: Duration,
    /// Whether settings that the engine can only approximate are accepted: the penalty window, and the tokens
    /// that penalties count. `false` by default.
    pub approximate: bool,
    /// Whether priorities are sent; `false` by default, since engines refuse them unless they schedule by
    /// priority. They always order the queue of this client.
    pub priorities: bool,
    /// Whether a [cache salt](exsa_core::Request::cache_salt) is dropped if the engine has no field for it;
    /// `false` by default, which refuses such requests.
    pub ignore_cache_salt: bool,
    /// Whether the engine draws the same tokens for a continued answer, as vLLM's model runner V2 and
    /// SGLang's deterministic mode do. `false` by default.
    pub positional_seeds: bool,
    /// Maximum bytes of a stream event, or of another response; 16 MiB by default.
    pub response_bytes_max: usize,
}

impl RemoteOptions {
    /// Creates options for the engine at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            dialect: Dialect::Auto,
            model: None,
            api_key: None,
            headers: Vec::new(),
            proxy: None,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(120),
            idle_timeout: Duration::from_secs(120),
            in_flight_max: 64,
            queue_max: 256,
            stream_events_max: 64,
            tokenizer: None,
            fingerprint: None,
            context_tokens: None,
            retries: 2,
            retry_delay: Duration::from_millis(100),
            retry_delay_max: Duration::from_secs(10),
            approximate: false,
            priorities: false,
            ignore_cache_salt: false,
            positional_seeds: false,
            response_bytes_max: 16 << 20,
        }
    }

    /// Sets the key, sent as `Authorization: Bearer`. It never appears in output.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(Secret(key.into()));
        self
    }

    /// Adds a header to every request. Its value never appears in output.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), Secret(value.into())));
        self
    }

    /// Sets the URL of a proxy: `http://user:password@proxy:3128`. Environment variables are not read.
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(Secret(url.into()));
        self
    }

    /// Sets [`tokenizer`](Self::tokenizer).
    #[must_use]
    pub fn tokenizer(mut self, source: impl Into<TokenizerSource>) -> Self {
        self.tokenizer = Some(source.into());
        self
    }
}

/// Setters of fields that need no conversion.
macro_rules! setters {
    ($($name:ident: $type:ty),* $(,)?) => {
        impl RemoteOptions {
            $(
                #[doc = concat!("Sets [`", stringify!($name), "`](Self::", stringify!($name), ").")]
                #[must_use]
                pub fn $name(mut self, value: impl Into<$type>) -> Self {
                    self.$name = value.into();
                    self
                }
            )*
        }
    };
}

setters! {
    dialect: Dialect,
    model: Option<String>,
    connect_timeout: Duration,
    first_byte_timeout: Duration,
    idle_timeout: Duration,
    in_flight_max: usize,
    queue_max: usize,
    stream_events_max: usize,
    fingerprint: Option<Fingerprint>,
    context_tokens: Option<usize>,
    retries: u32,
    retry_delay: Duration,
    retry_delay_max: Duration,
    approximate: bool,
    priorities: bool,
    ignore_cache_salt: bool,
    positional_seeds: bool,
    response_bytes_max: usize,
}
