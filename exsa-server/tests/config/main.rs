//! The configuration file: its errors, its example, and changes while a server runs.
#![allow(clippy::unwrap_used, clippy::panic)]

mod errors;
mod example;
mod listeners;
mod reload;
mod robust;
#[cfg(feature = "tls")]
mod tls;
