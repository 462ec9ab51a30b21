//! HTTP requests. Redirects are followed manually, so that the token stays with the hub; faults say whether a
//! retry may help.

mod retry;
mod url;

pub(crate) use retry::{Fault, Retries};
pub(crate) use url::{Origin, shown};

use crate::cancel::{Attached, Cancel};
use crate::error::HubError;
use crate::name;
use crate::options::{HubOptions, Proxy};
use std::io::Read;
use std::time::Duration;
use ureq::http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

/// Maximum redirects of a request.
const REDIRECTS_MAX: usize = 10;
/// Maximum bytes read of an error body.
const ERROR_BYTES_MAX: u64 = 16 << 10;
/// Maximum characters shown of a server's message.
const MESSAGE_CHARS_MAX: usize = 300;

/// Sends the requests of one operation.
pub(crate) struct Transport {
    agent: Agent,
    endpoint: Origin,
    token: Option<HeaderValue>,
    token_advice: Option<String>,
    allow_http: bool,
    pub(crate) cancel: Cancel,
    pub(crate) retries: Retries,
    _attached: Attached,
}

/// A response, and the information that the hub gave on the way.
pub(crate) struct Reply {
    pub(crate) response: Response<Body>,
    /// The original address, without its query.
    pub(crate) url: String,
    /// SHA-256 of the file from the hub's header `X-Linked-ETag`.
    pub(crate) linked_sha256: Option<String>,
}

/// Header fields of a range request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    /// First and last byte.
    pub(crate) range: Option<(u64, u64)>,
    /// Validator for `If-Range`.
    pub(crate) if_range: Option<String>,
}

impl Transport {
    /// # Errors
    ///
    /// An option is invalid, or the operation was cancelled.
    pub(crate) fn new(options: &HubOptions, cancel: &Cancel) -> Result<Self, HubError> {
        let refused = |option, problem: &str| HubError::Option { option, problem: problem.to_owned() };
        let endpoint: Uri = options.endpoint.parse().map_err(|_| refused("endpoint", "it is no address"))?;
        let endpoint =
            Origin::of(&endpoint).ok_or_else(|| refused("endpoint", "it is no http or https address"))?;
        let token = match &options.token {
            Some(token) => {
                let value = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
                let mut value =
                    value.map_err(|_| refused("token", "it has characters that no header may have"))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.read_timeout))
            .timeout_per_read(Some(options.read_timeout))
            .max_idle_connections(options.parallel)
            .max_idle_connections_per_host(options.parallel)
            .max_idle_age(Duration::from_secs(10))
            .max_response_header_size(64 << 10)
            .user_agent(concat!("exsa/", env!("CARGO_PKG_VERSION")))
            // A compressed body would not match ranges and digests.
            .accept_encoding("identity");
        config = match &options.proxy {
            Proxy::None => config.proxy(None),
            // The client's default uses the environment.
            Proxy::Environment => config,
            Proxy::Url(url) => {
                let proxy =
                    ureq::Proxy::new(url).map_err(|_| refused("proxy", "it is no address of a proxy"))?;
                config.proxy(Some(proxy))
            }
        };
        let agent = Agent::new_with_config(config.build());
        let attached = cancel.attach(&agent)?;
        Ok(Self {
            agent,
            endpoint,
            token,
            token_advice: options.token_advice.clone(),
            allow_http: options.allow_http,
            cancel: cancel.clone(),
            retries: Retries::new(options),
            _attached: attached,
        })
    }

    /// Sends a request and follows redirects. The response is a success, or says that a range cannot be
    /// satisfied.
    ///
    /// # Errors
    ///
    /// A fault, which says whether a retry may help.
    pub(crate) fn get(&self, url: &str, part: &Part) -> Result<Reply, Fault> {
        let mut uri: Uri = url.parse().map_err(|_| protocol(url, "it is no address"))?;
        let mut linked_sha256 = None;
        for _ in 0..=REDIRECTS_MAX {
            let at_hub = self.check(&uri)?;
            let response = self.send(&uri, at_hub, part)?;
            if at_hub {
                linked_sha256 = digest(&response).or(linked_sha256);
            }
            let status = response.status();
            if status.is_redirection() {
                uri = self.target(&uri, &response)?;
                continue;
            }
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                let encoding = response.headers().get(header::CONTENT_ENCODING);
                if encoding.is_some_and(|encoding| encoding != "identity") {
                    return Err(protocol(url, "the server compresses the file although it must not").into());
                }
                return Ok(Reply { response, url: shown(url), linked_sha256 });
            }
            return Err(self.failed(url, at_hub, response));
        }
        Err(protocol(url, "it redirects more than ten times").into())
    }

    /// Returns the complete body of a response, with a size limit.
    ///
    /// # Errors
    ///
    /// Those of [`get`](Self::get), after the allowed retries.
    pub(crate) fn get_bytes(&self, url: &str, bytes_max: u64) -> Result<Vec<u8>, HubError> {
        let mut failures = 0;
        loop {
            let fault =
                match self.get(url, &Part::default()).and_then(|reply| self.body(reply, url, bytes_max)) {
                    Ok(bytes) => return Ok(bytes),
                    Err(fault) => fault,
                };
            failures += 1;
            self.retries.wait(&self.cancel, fault, failures)?;
        }
    }

    fn body(&self, mut reply: Reply, url: &str, bytes_max: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let reader = reply.response.body_mut().with_config().limit(u64::MAX).reader();
        reader
            .take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| self.broken(url, &error))?;
        if bytes.len() as u64 > bytes_max {
            return Err(protocol(url, &format!("the answer has more than {bytes_max} bytes")).into());
        }
        Ok(bytes)
    }

    /// Creates a fault for a lost connection.
    pub(crate) fn broken(&self, url: &str, error: &dyn std::fmt::Display) -> Fault {
        if self.cancel.is_cancelled() {
            return HubError::Cancelled.into();
        }
        Fault::again(HubError::Connection { url: shown(url), problem: error.to_string() })
    }

    /// Validates the scheme. Returns whether the address belongs to the hub.
    fn check(&self, uri: &Uri) -> Result<bool, HubError> {
        let url = uri.to_string();
        let origin = Origin::of(uri).ok_or_else(|| protocol(&url, "it is no http or https address"))?;
        if !origin.is_https() && !self.allow_http {
            return Err(HubError::PlainHttp(shown(&url)));
        }
        if origin.is_https() && !cfg!(feature = "tls") {
            return Err(HubError::NoTls(shown(&url)));
        }
        Ok(origin == self.endpoint)
    }

    fn send(&self, uri: &Uri, at_hub: bool, part: &Part) -> Result<Response<Body>, Fault> {
        self.cancel.check()?;
        let mut request = Request::get(uri.clone());
        if let Some((first, last)) = part.range {
            request = request.header(header::RANGE, format!("bytes={first}-{last}"));
        }
        if let Some(validator) = &part.if_range {
            request = request.header(header::IF_RANGE, validator);
        }
        if let (true, Some(token)) = (at_hub, &self.token) {
            request = request.header(header::AUTHORIZATION, token);
        }
        let url = uri.to_string();
        let request = request.body(()).map_err(|error| protocol(&url, &error.to_string()))?;
        self.agent.run(request).map_err(|error| match error {
            ureq::Error::TlsRequired => HubError::NoTls(shown(&url)).into(),
            // A retry does not make an invalid certificate valid.
            ureq::Error::Tls(_) | ureq::Error::BadUri(_) | ureq::Error::LargeResponseHeader(..) => {
                protocol(&url, &error.to_string()).into()
            }
            error => self.broken(&url, &error),
        })
    }

    /// Returns the target of a redirect.
    fn target(&self, from: &Uri, response: &Response<Body>) -> Result<Uri, HubError> {
        let refused = |problem: &str| protocol(&from.to_string(), problem);
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| refused("a redirect without a target"))?;
        let target = url::joined(from, location).ok_or_else(|| refused("a redirect to no address"))?;
        let secure = |uri: &Uri| Origin::of(uri).is_some_and(|origin| origin.is_https());
        if secure(from) && !secure(&target) && !self.allow_http {
            return Err(refused("a redirect from https to http"));
        }
        Ok(target)
    }

    fn failed(&self, url: &str, at_hub: bool, mut response: Response<Body>) -> Fault {
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let after = header("retry-after").and_then(|value| retry::delay(value, header("date")));
        // Hugging Face states the reason in a header, while its error pages are HTML.
        let reason = header("x-error-message").map(str::to_owned);
        let code = header("x-error-code").map(str::to_owned);
        match status {
            401 | 403 => {
                HubError::Refused { url: shown(url), status, advice: self.advice(at_hub, status, code) }
                    .into()
            }
            404 | 410 => HubError::NotFound { url: shown(url), hub: at_hub }.into(),
            _ => {
                let body = response
                    .body_mut()
                    .with_config()
                    .limit(ERROR_BYTES_MAX)
                    .lossy_utf8(true)
                    .read_to_string();
                let message = reason.unwrap_or_else(|| message(&body.unwrap_or_default()));
                let error = HubError::Status { url: shown(url), status, message };
                match status {
                    408 | 425 | 429 | 500..=599 => Fault::Again { error, after, status: Some(status) },
                    _ => error.into(),
                }
            }
        }
    }

    fn advice(&self, at_hub: bool, status: u16, code: Option<String>) -> String {
        if !at_hub {
            return "the server wants a login that this program does not have".to_owned();
        }
        if code.as_deref() == Some("GatedRepo") || (status == 403 && self.token.is_some()) {
            return "the repository is gated; accept its terms on its page, with the account of the token"
                .to_owned();
        }
        match (&self.token, &self.token_advice) {
            (Some(_), _) => "the token is not valid, or not for this repository".to_owned(),
            (None, Some(problem)) => format!("a token is needed; {problem}"),
            (None, None) => "there is no such repository, or it needs a token: set HF_TOKEN to one of \
                             https://huggingface.co/settings/tokens"
                .to_owned(),
        }
    }
}

fn protocol(url: &str, problem: &str) -> HubError {
    HubError::Protocol { url: shown(url), problem: problem.to_owned() }
}

/// Returns the digest in `X-Linked-ETag`.
fn digest(response: &Response<Body>) -> Option<String> {
    let tag = response.headers().get("x-linked-etag")?.to_str().ok()?;
    let tag = tag.trim_start_matches("W/").trim_matches('"');
    name::is_hex(tag, 64).then(|| tag.to_ascii_lowercase())
}

/// Returns the message of an error body.
fn message(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let text = value["error"].as_str().or(value["message"].as_str()).map(str::to_owned);
    let text = text.unwrap_or_else(|| {
        if body.trim_start().starts_with('<') { String::new() } else { body.trim().into() }
    });
    text.chars().take(MESSAGE_CHARS_MAX).flat_map(char::escape_debug).collect()
}
