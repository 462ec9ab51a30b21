//! The configuration file: its errors, its example, and changes while a server runs.
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(feature = "tls")]
mod certificates;
mod errors;
mod example;
mod http;
#[cfg(feature = "tls")]
mod http2;
mod listeners;
mod reload;
mod robust;
mod served;
mod telemetry;
#[cfg(feature = "tls")]
mod tls;
