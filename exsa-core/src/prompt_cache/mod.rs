//! Prompt cache behind the session's KV cache: a [`PromptStore`] supplied by the host keeps saved KV, also
//! across restarts.
//!
//! The engine offers prefixes that have become cold to the store, and looks up the longest stored prefix of a
//! request that is about to be admitted. If reading is expected to cost less than prefilling, the request
//! waits while the store reads, and other requests proceed. The KV is restored into an idle sequence of the
//! prefix cache, which requests then use like any cached prefix. [`PromptMemory`] is a store in memory; the
//! crate `exsa-cache` has a store in a folder.

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
