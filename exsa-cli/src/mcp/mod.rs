//! Tools over the Model Context Protocol (<https://modelcontextprotocol.io>), with its stdio transport.
//!
//! This is a client of its own: the stdio transport is line-delimited JSON-RPC 2.0 with four methods, while
//! the crate `rmcp` would bring tokio and its macros into a program that uses threads.

mod client;
mod command;
mod process;
mod protocol;

pub(crate) use client::{Client, NoAnswer};

use std::time::Duration;

/// Maximum bytes of a line in either direction.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Maximum bytes of a tool result that is passed to the model.
const RESULT_BYTES_MAX: usize = 64 << 10;

/// Maximum tools of a server.
const TOOLS_MAX: usize = 256;

/// Maximum characters of a tool name.
const NAME_CHARS_MAX: usize = 64;

/// Startup timeout of a server: package runners download the program on first use.
pub(crate) const START_TIME: Duration = Duration::from_secs(60);

/// Time for a server to exit after its input is closed.
const END_TIME: Duration = Duration::from_secs(2);
