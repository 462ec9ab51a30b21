//! Models that remote engines serve: their tables, their loader, and the engines behind one queue.

mod engines;
mod entry;
mod loader;

pub use entry::{RemoteDialect, RemoteEntry};
pub(super) use loader::RemoteLoader;
