//! Tests of the log: a disk that fails and loses what was not synced, and each kind of mutation.

mod disk;
mod durability;
mod failures;
mod mutations;
#[cfg(unix)]
mod syslog;
