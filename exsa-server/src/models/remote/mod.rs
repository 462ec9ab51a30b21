//! Models served by remote engines: configuration tables and loader.

mod entry;
mod loader;

pub use entry::{RemoteDialect, RemoteEntry};
pub(super) use loader::RemoteLoader;
