//! Options of the routes.

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
    /// Maximum bytes of a request's body; 16 MiB by default.
    pub body_bytes_max: usize,
    /// Maximum time in which a body must be read; 60 s by default.
    pub body_timeout: Duration,
    /// Maximum prompts of one request for completions; 64 by default.
    pub prompts_max: usize,
    /// Interval of keep-alive comments in streams; 15 s by default.
    pub keep_alive: Duration,
    /// Time without a completed step, while work waits, after which the server is not ready; 60 s by default. It must be
    /// longer than the longest step.
    pub step_limit: Duration,
    /// Host names beside loopback addresses that requests may be addressed to, without a port. An empty list and
    /// [`any_host`](Self::any_host) unset allow loopback names alone, which stops DNS rebinding.
    pub allowed_hosts: Vec<String>,
    /// Whether any `Host` is accepted; for servers behind a proxy that checks it.
    pub any_host: bool,
    /// Origins, such as `https://app.example.org`, whose pages may send requests. Others are refused; none by default.
    pub allowed_origins: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            body_timeout: Duration::from_secs(60),
            prompts_max: 64,
            keep_alive: Duration::from_secs(15),
            step_limit: Duration::from_secs(60),
            allowed_hosts: Vec::new(),
            any_host: false,
            allowed_origins: Vec::new(),
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

    /// Sets the maximum time in which a body must be read.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Sets the maximum prompts of one request for completions.
    #[must_use]
    pub fn prompts_max(mut self, prompts: usize) -> Self {
        self.prompts_max = prompts;
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

    /// Adds a host name that requests may be addressed to.
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
}
