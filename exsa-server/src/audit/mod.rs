//! The audit log: one JSON line per request and security-relevant act, chained by hashes.
//!
//! `docs/audit.md` describes the format, what a verification finds and what it cannot find.

mod chain;
mod checkpoint;
pub mod command;
mod config;
mod destination;
mod folder;
mod handle;
mod hash;
mod lines;
mod log;
mod record;
mod recover;
mod units;
pub mod verify;
mod writer;

pub use checkpoint::{PublicKey, Signature, SignedCheckpoint, SigningKey};
pub use config::{AuditConfig, CheckpointConfig, OnError};
pub use handle::{AuditError, AuditLog, AuditStats, Place, Ticket};
pub use hash::Hash;
pub use log::Fsync;
pub use record::{Act, Record};

#[cfg(test)]
mod tests;
