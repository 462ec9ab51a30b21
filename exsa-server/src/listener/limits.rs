//! Limits of connections.

use std::time::Duration;

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Maximum open connections; further clients wait in the system's queue. 1,024 by default.
    pub connections_max: usize,
    /// Maximum open connections per IP address; further connections are closed. 512 by default.
    pub per_address_max: usize,
    /// Timeout of a TLS handshake; 10 s by default.
    pub handshake_timeout: Duration,
    /// Timeout for reading a request head; 10 s by default. It also limits how long an idle connection is
    /// kept.
    pub header_timeout: Duration,
    /// Maximum bytes of a request head, at least 8,192; 64 KiB by default.
    pub header_bytes_max: usize,
    /// Maximum fields in a request head; 100 by default.
    pub headers_max: usize,
    /// Timeout of a write without progress, for clients that do not read; 60 s by default.
    pub write_timeout: Duration,
    /// Maximum concurrent requests per HTTP/2 connection; 128 by default.
    pub streams_max: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            per_address_max: 512,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            header_bytes_max: 64 << 10,
            headers_max: 100,
            write_timeout: Duration::from_secs(60),
            streams_max: 128,
        }
    }
}

impl ConnectionLimits {
    /// Sets the maximum open connections.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// Sets the maximum open connections per address.
    #[must_use]
    pub fn per_address_max(mut self, connections: usize) -> Self {
        self.per_address_max = connections;
        self
    }

    /// Sets the timeout of a TLS handshake.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets the timeout for reading a request head.
    #[must_use]
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Sets the maximum bytes of a request head.
    #[must_use]
    pub fn header_bytes_max(mut self, bytes: usize) -> Self {
        self.header_bytes_max = bytes;
        self
    }

    /// Sets the maximum fields in a request head.
    #[must_use]
    pub fn headers_max(mut self, fields: usize) -> Self {
        self.headers_max = fields;
        self
    }

    /// Sets the timeout of a write without progress.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets the maximum concurrent requests per HTTP/2 connection.
    #[must_use]
    pub fn streams_max(mut self, streams: u32) -> Self {
        self.streams_max = streams;
        self
    }
}
