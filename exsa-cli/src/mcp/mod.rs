//! Tools of other programs by the Model Context Protocol (<https://modelcontextprotocol.io>), over their
//! standard input and output.
//!
//! A client of its own: the protocol over pipes is JSON-RPC 2.0 in lines, of which four methods are needed,
//! while the crate `rmcp` brings tokio and its macros into a program that works with threads.

mod client;
mod command;
mod process;
mod protocol;

pub(crate) use client::{Client, NoAnswer};

use std::time::Duration;

/// Maximum bytes of a line of a server, and of a line to it.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Maximum bytes of the result of a call that a model gets.
const RESULT_BYTES_MAX: usize = 64 << 10;

/// Maximum tools of a server.
const TOOLS_MAX: usize = 256;

/// Maximum characters of a tool's name.
const NAME_CHARS_MAX: usize = 64;

/// Time that a server gets to start: programs of package managers fetch themselves at first.
pub(crate) const START_TIME: Duration = Duration::from_secs(60);

/// Time that a server gets to end after its input is closed.
const END_TIME: Duration = Duration::from_secs(2);
