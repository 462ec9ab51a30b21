//! HTTP client: one connection per request in flight, which any thread can close.

mod body;
mod retry_after;
mod timers;

pub(crate) use body::error_message;
pub(crate) use timers::Timers;

use crate::dialect::WireRequest;
use crate::error::{ConnectError, RemoteError};
use crate::options::RemoteOptions;
use parking_lot::Mutex;
use serde_json::Value;
use std::io::{self, Read};
use std::time::Duration;
use ureq::http::{HeaderName, HeaderValue, Request, Response};
use ureq::{Agent, Body};

/// Maximum bytes read of an error body.
const ERROR_BYTES_MAX: u64 = 64 << 10;

/// Sends requests to one engine.
///
/// An [`Agent`] serves one request at a time, so [`Agent::shutdown`] ends only that request, wherever it
/// blocks. Agents of completed requests are kept with their connection.
pub(crate) struct Client {
    base: String,
    config: ureq::config::Config,
    headers: Vec<(HeaderName, HeaderValue)>,
    idle: Mutex<Vec<Agent>>,
    idle_max: usize,
    first_byte_timeout: Duration,
    body_bytes_max: u64,
}

impl Client {
    pub(crate) fn new(options: &RemoteOptions) -> Result<Self, ConnectError> {
        let refused = |option, problem: String| ConnectError::Option { option, problem };
        let mut headers = Vec::new();
        if let Some(key) = &options.api_key {
            let value = HeaderValue::try_from(format!("Bearer {}", key.0));
            let mut value =
                value.map_err(|_| refused("api_key", "it has characters that no header may have".into()))?;
            value.set_sensitive(true);
            headers.push((ureq::http::header::AUTHORIZATION, value));
        }
        for (name, value) in &options.headers {
            let problem = |part| refused("header", format!("'{name}': not a legal {part} of a header"));
            let header = HeaderName::try_from(name.as_str()).map_err(|_| problem("name"))?;
            let mut value = HeaderValue::try_from(value.0.as_str()).map_err(|_| problem("value"))?;
            value.set_sensitive(true);
            headers.push((header, value));
        }
        let proxy = options.proxy.as_ref().map(|proxy| ureq::Proxy::new(&proxy.0)).transpose();
        let proxy = proxy.map_err(|_| refused("proxy", "no URL of a proxy".to_owned()))?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy)
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.first_byte_timeout))
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(Duration::from_secs(4))
            .user_agent(concat!("exsa/", env!("CARGO_PKG_VERSION")))
            .accept("text/event-stream, application/json")
            .build();
        Ok(Self {
            base: base_url(&options.url)?,
            config,
            headers,
            idle: Mutex::default(),
            idle_max: options.in_flight_max,
            first_byte_timeout: options.first_byte_timeout,
            body_bytes_max: options.response_bytes_max as u64,
        })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Returns an agent for one request.
    pub(crate) fn agent(&self) -> Agent {
        self.idle.lock().pop().unwrap_or_else(|| Agent::new_with_config(self.config.clone()))
    }

    /// Keeps an agent with its connection after its request has completed.
    pub(crate) fn keep(&self, agent: Agent) {
        let mut idle = self.idle.lock();
        if idle.len() < self.idle_max {
            idle.push(agent);
        }
    }

    /// Sends a request with a body, and reads the response head.
    pub(crate) fn post(&self, agent: &Agent, wire: &WireRequest) -> Result<Response<Body>, RemoteError> {
        let mut request = Request::post(format!("{}{}", self.base, wire.path));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        for (name, value) in &wire.headers {
            request = request.header(*name, value);
        }
        let request = request.header("content-type", "application/json").body(wire.body.to_string());
        let request = request.map_err(|error| RemoteError::Protocol(error.to_string()))?;
        self.checked(agent.run(request))
    }

    fn checked(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, RemoteError> {
        let mut response = response.map_err(|error| self.error(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(|value| retry_after::delay(value, header("date")));
        let body = response.body_mut().with_config().limit(ERROR_BYTES_MAX).lossy_utf8(true).read_to_string();
        Err(RemoteError::Status {
            status: status.as_u16(),
            message: error_message(&body.unwrap_or_default()),
            retry_after,
        })
    }

    fn error(&self, error: &ureq::Error) -> RemoteError {
        match error {
            ureq::Error::Timeout(ureq::Timeout::RecvResponse) => {
                RemoteError::FirstByteTimeout(self.first_byte_timeout)
            }
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                RemoteError::Unreachable(error.to_string())
            }
            ureq::Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused => {
                RemoteError::Unreachable(io.to_string())
            }
            other => RemoteError::Connection(other.to_string()),
        }
    }

    /// Sends a request and reads the complete response.
    pub(crate) fn call_with(&self, agent: &Agent, wire: &WireRequest) -> Result<Value, RemoteError> {
        let mut response = self.post(agent, wire)?;
        self.read_json(&mut response)
    }

    fn read_json(&self, response: &mut Response<Body>) -> Result<Value, RemoteError> {
        let mut bytes = Vec::new();
        let mut reader = response.body_mut().with_config().limit(self.body_bytes_max).reader();
        reader.read_to_end(&mut bytes).map_err(|error| RemoteError::Connection(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| RemoteError::Protocol(format!("no JSON: {error}")))
    }

    /// Like [`call_with`](Self::call_with), with a separate agent.
    pub(crate) fn call(&self, wire: &WireRequest) -> Result<Value, RemoteError> {
        let agent = self.agent();
        let value = self.call_with(&agent, wire)?;
        self.keep(agent);
        Ok(value)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Response<Body>, RemoteError> {
        let mut request = Request::get(format!("{}{path}", self.base));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(()).map_err(|error| RemoteError::Protocol(error.to_string()))?;
        self.checked(self.agent().run(request))
    }

    pub(crate) fn get_json(&self, path: &str) -> Result<Value, RemoteError> {
        let mut response = self.get(path)?;
        self.read_json(&mut response)
    }
}

/// The base of all URLs: without a slash or `/v1` at the end.
fn base_url(url: &str) -> Result<String, ConnectError> {
    let refused = |problem: &str| ConnectError::Option { option: "url", problem: problem.to_owned() };
    let (scheme, rest) = url.split_once("://").ok_or_else(|| refused("it does not begin with http://"))?;
    match scheme {
        "http" => {}
        "https" if cfg!(feature = "tls") => {}
        "https" => {
            return Err(refused("https needs the feature 'tls' of exsa-backend-remote"));
        }
        _ => return Err(refused("it does not begin with http:// or https://")),
    }
    if rest.contains(['@', '?', '#']) {
        return Err(refused("it may have no user, query or fragment; see RemoteOptions::api_key and header"));
    }
    if rest.starts_with('/') || rest.is_empty() {
        return Err(refused("it is no URL of a host"));
    }
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix("/v1").unwrap_or(base);
    match base.parse::<ureq::http::Uri>() {
        Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(base.to_owned()),
        _ => Err(refused("it is no URL of a host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        for (url, base) in [
            ("http://a:1", Some("http://a:1")),
            ("http://a/", Some("http://a")),
            ("http://a/v1/", Some("http://a")),
            ("http://a/x/v1", Some("http://a/x")),
            ("http://[::1]:80", Some("http://[::1]:80")),
            ("a:1", None),
            ("ftp://a", None),
            ("http://", None),
            ("http://user:word@a", None),
            ("http://a?b", None),
            ("http://a b", None),
        ] {
            assert_eq!(base_url(url).ok().as_deref(), base, "{url}");
        }
        assert_eq!(base_url("https://a").is_ok(), cfg!(feature = "tls"));
    }
}
