//! Prompt cache behind the session's KV cache: a [`PromptStore`] of the host keeps saved KV, across restarts.
//!
//! The engine offers prefixes that have become cold to the store, and asks it for the longest stored prefix
//! of a request that is about to be admitted. If reading is expected to cost less than computing, the request
//! waits in the queue while the store reads, and others go on. The KV is restored into an idle sequence of
//! the prefix cache, from which requests start as from any other. [`PromptMemory`] is a store in memory; the
//! crate `exsa-cache` has one in a folder.

mod memory;
mod options;
mod record;
mod reply;
mod store;

pub use memory::PromptMemory;
pub use options::PromptCacheOptions;
pub(crate) use record::{read_record, write_record};
pub use reply::ReadReply;
pub use store::{EntryId, PromptKey, PromptStore, SavedPrompt, StoredPrefix};

pub(crate) use reply::ReadEnd;
