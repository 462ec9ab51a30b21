//! Options of the routes.

use crate::apis::openai::responses::store::StoredResponses;
use std::time::Duration;

/// Limits and policies of the routes.
///
/// ```
/// use exsa_server::ServerOptions;
///
/// let options = ServerOptions::default().body_bytes_max(1 << 20).allowed_host("models.example.org");
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Maximum bytes of a request body; 16 MiB by default.
    pub body_bytes_max: usize,
    /// Timeout for reading a body; 60 s by default.
    pub body_timeout: Duration,
    /// Maximum prompts per completions request; 64 by default.
    pub prompts_max: usize,
    /// Maximum answers per prompt (`n`, `best_of`); 128 by default.
    pub n_max: usize,
    /// Maximum prompt tokens; `None`, the default, is the model's limit. With a limit, prompts are tokenized
    /// twice.
    pub prompt_tokens_max: Option<usize>,
    /// Maximum bytes of a schema, a grammar, or tool definitions, as JSON; 1 MiB by default.
    pub schema_bytes_max: usize,
    /// Whether chat completions and completions include llama-server's `timings` by default; `false` by
    /// default.
    pub timings: bool,
    /// Whether reasoning is also sent as `reasoning_content` by default; `false` by default.
    pub reasoning_content: bool,
    /// Number of concurrent sequences reported by `/props`; 1 by default.
    pub slots: usize,
    /// Limits of stored responses (`/v1/responses`).
    pub stored_responses: StoredResponses,
    /// Interval of keep-alive comments in streams; 15 s by default.
    pub keep_alive: Duration,
    /// Time without a completed step while requests wait, after which the server is not ready; 60 s by
    /// default. It must exceed the longest step.
    pub step_limit: Duration,
    /// Host names, without a port, accepted in requests in addition to loopback addresses. If the list is
    /// empty and [`any_host`](Self::any_host) is unset, only loopback names are accepted, which prevents DNS
    /// rebinding.
    pub allowed_hosts: Vec<String>,
    /// Whether any `Host` is accepted; for servers behind a proxy that checks it.
    pub any_host: bool,
    /// Origins, such as `https://app.example.org`, whose pages may send requests. Others are refused; none by
    /// default.
    pub allowed_origins: Vec<String>,
    /// Whether pages of the allowed origins may read answers (CORS); `false` by default.
    pub cors: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            body_timeout: Duration::from_secs(60),
            prompts_max: 64,
            n_max: exsa_core::request::ANSWERS_MAX,
            prompt_tokens_max: None,
            schema_bytes_max: 1 << 20,
            timings: false,
            reasoning_content: false,
            slots: 1,
            stored_responses: StoredResponses::default(),
            keep_alive: Duration::from_secs(15),
            step_limit: Duration::from_secs(60),
            allowed_hosts: Vec::new(),
            any_host: false,
            allowed_origins: Vec::new(),
            cors: false,
        }
    }
}

impl ServerOptions {
    /// Sets the maximum bytes of a body.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// Sets the timeout for reading a body.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Sets the maximum prompts per completions request.
    #[must_use]
    pub fn prompts_max(mut self, prompts: usize) -> Self {
        self.prompts_max = prompts;
        self
    }

    /// Sets the maximum answers per prompt.
    #[must_use]
    pub fn n_max(mut self, answers: usize) -> Self {
        self.n_max = answers;
        self
    }

    /// Sets the maximum prompt tokens.
    #[must_use]
    pub fn prompt_tokens_max(mut self, tokens: impl Into<Option<usize>>) -> Self {
        self.prompt_tokens_max = tokens.into();
        self
    }

    /// Sets the maximum bytes of a schema, a grammar, or tool definitions.
    #[must_use]
    pub fn schema_bytes_max(mut self, bytes: usize) -> Self {
        self.schema_bytes_max = bytes;
        self
    }

    /// Sets whether responses include `timings` by default.
    #[must_use]
    pub fn timings(mut self, timings: bool) -> Self {
        self.timings = timings;
        self
    }

    /// Sets whether reasoning is also sent as `reasoning_content` by default.
    #[must_use]
    pub fn reasoning_content(mut self, send: bool) -> Self {
        self.reasoning_content = send;
        self
    }

    /// Sets the number of concurrent sequences reported by `/props`.
    #[must_use]
    pub fn slots(mut self, sequences: usize) -> Self {
        self.slots = sequences;
        self
    }

    /// Sets the limits of stored responses.
    #[must_use]
    pub fn stored_responses(mut self, limits: StoredResponses) -> Self {
        self.stored_responses = limits;
        self
    }

    /// Sets the interval of keep-alive comments.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval;
        self
    }

    /// Sets the time without a completed step after which the server is not ready.
    #[must_use]
    pub fn step_limit(mut self, limit: Duration) -> Self {
        self.step_limit = limit;
        self
    }

    /// Adds a host name that is accepted in requests.
    #[must_use]
    pub fn allowed_host(mut self, host: impl Into<String>) -> Self {
        self.allowed_hosts.push(host.into());
        self
    }

    /// Sets whether any `Host` is accepted.
    #[must_use]
    pub fn any_host(mut self, any: bool) -> Self {
        self.any_host = any;
        self
    }

    /// Adds an origin whose pages may send requests.
    #[must_use]
    pub fn allowed_origin(mut self, origin: impl Into<String>) -> Self {
        self.allowed_origins.push(origin.into());
        self
    }

    /// Sets whether pages of the allowed origins may read answers.
    #[must_use]
    pub fn cors(mut self, cors: bool) -> Self {
        self.cors = cors;
        self
    }
}
