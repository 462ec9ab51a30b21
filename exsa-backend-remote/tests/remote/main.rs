//! Remote engines: mocks of each dialect, transcripts of odd streams, and Exsa's own server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod conformance;
mod dialects;
mod exsa;
mod failover;
mod fields;
mod mock;
mod openai;
mod simulated;
mod transcripts;
