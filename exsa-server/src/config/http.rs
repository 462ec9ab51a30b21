//! Section `[http]`: hosts and origins.

use super::{Problems, units};
use axum::http::Uri;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The section `[http]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Host names accepted in requests, in addition to loopback names.
    pub allowed_hosts: Vec<String>,
    /// Whether any `Host` is accepted; for servers behind a proxy that checks it. `false` by default.
    pub any_host: bool,
    /// Origins, such as `https://app.example.org`, whose pages may send requests.
    pub allowed_origins: Vec<String>,
    /// Whether pages of `allowed_origins` may read answers (CORS); `false` by default.
    pub cors: bool,
    /// Whether responses have llama-server's `timings` by default; `false` by default.
    pub timings: bool,
    /// Whether reasoning is also sent as `reasoning_content` by default; `false` by default.
    pub reasoning_content: bool,
    /// Interval of keep-alive comments in streams; 15 s by default.
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        let options = crate::ServerOptions::default();
        Self {
            allowed_hosts: options.allowed_hosts,
            any_host: options.any_host,
            allowed_origins: options.allowed_origins,
            cors: options.cors,
            timings: options.timings,
            reasoning_content: options.reasoning_content,
            keep_alive: options.keep_alive,
        }
    }
}

impl HttpConfig {
    /// Reports invalid values.
    pub(super) fn validate(&self, problems: &mut Problems) {
        for (i, host) in self.allowed_hosts.iter().enumerate() {
            if host.is_empty() || host.contains(['/', '@', ' ']) || has_port(host) {
                let message = format!(
                    "'{host}' is no host name; allowed are names without scheme and port, such as \"models.example.org\""
                );
                problems.add(format!("http.allowed_hosts.{i}"), message);
            }
        }
        for (i, origin) in self.allowed_origins.iter().enumerate() {
            if !is_origin(origin) {
                let message = format!(
                    "'{origin}' is no origin; allowed are scheme, host and port, such as \"https://app.example.org\""
                );
                problems.add(format!("http.allowed_origins.{i}"), message);
            }
        }
        if self.cors && self.allowed_origins.is_empty() {
            problems.add("http.cors", "true needs 'allowed_origins', the origins that it is for");
        }
        if self.keep_alive.is_zero() || self.keep_alive > super::DURATION_MAX {
            problems.add("http.keep_alive", "allowed is more than \"0s\" and at most \"365days\"");
        }
    }
}

/// Returns whether a host name ends in a port; IPv6 addresses contain colons themselves.
fn has_port(host: &str) -> bool {
    host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err()
}

/// Returns whether a text has the form sent by browsers: a lower-case scheme, a host, and no path.
fn is_origin(origin: &str) -> bool {
    let Ok(uri) = origin.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    let written = format!("{scheme}://{authority}");
    matches!(scheme, "http" | "https")
        && written == origin
        && origin.to_lowercase() == origin
        && !origin.contains('@')
}
