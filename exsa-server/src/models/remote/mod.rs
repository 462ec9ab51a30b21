//! Models that remote engines serve: their tables, and their loader.

mod entry;
mod loader;

pub use entry::{RemoteDialect, RemoteEntry};
pub(super) use loader::RemoteLoader;
