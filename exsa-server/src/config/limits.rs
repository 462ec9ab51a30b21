//! Section `[limits]`: limits of connections and requests.

use super::{Problems, units};
use crate::listener::ConnectionLimits;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The section `[limits]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Maximum open connections; 1,024 by default.
    pub connections_max: usize,
    /// Maximum open connections per IP address; 512 by default.
    pub per_address_max: usize,
    /// Timeout of a TLS handshake; 10 s by default.
    #[serde(with = "units::duration")]
    pub handshake_timeout: Duration,
    /// Timeout for reading a request head; 10 s by default.
    #[serde(with = "units::duration")]
    pub header_timeout: Duration,
    /// Maximum bytes of a request head; 64 KiB by default.
    #[serde(with = "units::size")]
    pub header_bytes_max: usize,
    /// Maximum fields in a request head; 100 by default.
    pub headers_max: usize,
    /// Timeout of a write without progress, for clients that do not read; 60 s by default.
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
    /// Maximum concurrent requests per HTTP/2 connection; 128 by default.
    pub connection_streams_max: u32,
    /// Maximum bytes of a request body; 16 MiB by default.
    #[serde(with = "units::size")]
    pub body_bytes_max: usize,
    /// Timeout for reading a body; 60 s by default.
    #[serde(with = "units::duration")]
    pub body_timeout: Duration,
    /// Time without a completed step while requests wait, after which the server is not ready; 60 s by
    /// default. It must exceed the longest step.
    #[serde(with = "units::duration")]
    pub step_limit: Duration,
    /// Maximum prompts per completions request; 64 by default.
    pub prompts_max: usize,
    /// Maximum answers per prompt; 128 by default.
    pub n_max: usize,
    /// Maximum prompt tokens; by default the model's limit.
    pub prompt_tokens_max: Option<usize>,
    /// Maximum bytes of a schema, a grammar, or tool definitions; 1 MiB by default.
    #[serde(with = "units::size")]
    pub schema_bytes_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let (connections, options) = (ConnectionLimits::default(), crate::ServerOptions::default());
        Self {
            connections_max: connections.connections_max,
            per_address_max: connections.per_address_max,
            handshake_timeout: connections.handshake_timeout,
            header_timeout: connections.header_timeout,
            header_bytes_max: connections.header_bytes_max,
            headers_max: connections.headers_max,
            write_timeout: connections.write_timeout,
            connection_streams_max: connections.streams_max,
            body_bytes_max: options.body_bytes_max,
            body_timeout: options.body_timeout,
            step_limit: options.step_limit,
            prompts_max: options.prompts_max,
            n_max: options.n_max,
            prompt_tokens_max: options.prompt_tokens_max,
            schema_bytes_max: options.schema_bytes_max,
        }
    }
}

impl LimitsConfig {
    /// The connection limits.
    pub fn connections(&self) -> ConnectionLimits {
        ConnectionLimits::default()
            .connections_max(self.connections_max)
            .per_address_max(self.per_address_max)
            .handshake_timeout(self.handshake_timeout)
            .header_timeout(self.header_timeout)
            .header_bytes_max(self.header_bytes_max)
            .headers_max(self.headers_max)
            .write_timeout(self.write_timeout)
            .streams_max(self.connection_streams_max)
    }

    /// Reports invalid values.
    pub(super) fn validate(&self, problems: &mut Problems) {
        let least = |problems: &mut Problems, name: &str, value: usize, least: usize| {
            if value < least {
                problems.add(
                    format!("limits.{name}"),
                    format!("{value} is too small; allowed is {least} or more"),
                );
            }
        };
        least(problems, "connections_max", self.connections_max, 1);
        least(problems, "per_address_max", self.per_address_max, 1);
        least(problems, "header_bytes_max", self.header_bytes_max, 8192);
        least(problems, "headers_max", self.headers_max, 8);
        least(problems, "connection_streams_max", self.connection_streams_max as usize, 1);
        least(problems, "body_bytes_max", self.body_bytes_max, 1024);
        least(problems, "prompts_max", self.prompts_max, 1);
        least(problems, "n_max", self.n_max, 1);
        least(problems, "prompt_tokens_max", self.prompt_tokens_max.unwrap_or(1), 1);
        for (name, timeout) in [
            ("handshake_timeout", self.handshake_timeout),
            ("header_timeout", self.header_timeout),
            ("write_timeout", self.write_timeout),
            ("body_timeout", self.body_timeout),
            ("step_limit", self.step_limit),
        ] {
            if timeout.is_zero() || timeout > super::DURATION_MAX {
                let message = format!(
                    "{} is not allowed; allowed is more than \"0s\" and at most \"365days\"",
                    humantime::format_duration(timeout)
                );
                problems.add(format!("limits.{name}"), message);
            }
        }
    }
}
