//! The C API of Exsa: `libexsa`, declared by `include/exsa.h`.
//!
//! Functions take and return opaque handles, report an [`ExsaStatus`], and keep the message of a failure for
//! the calling thread. No panic crosses the boundary. `README.md` has the rules for callers; the
//! documentation of a function becomes its comment in the header, which cbindgen generates
//! (`scripts/make-header`).

#![warn(missing_debug_implementations)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

mod answer;
mod args;
mod engine;
mod error;
mod options;
mod request;
mod text;
mod version;

#[cfg(test)]
mod tests;

pub use answer::{ExsaAnswer, ExsaFinish, ExsaUsage};
pub use engine::ExsaEngine;
pub use error::ExsaStatus;
pub use options::{ExsaOptions, ExsaProgress};
pub use request::ExsaRequest;
