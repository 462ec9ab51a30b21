//! Prompt cache in a folder: keeps the KV of prompts across restarts.
//!
//! A [`PromptCache`] is a [`PromptStore`](exsa_core::prompt_cache::PromptStore) for engines. Two threads
//! write and read its files, so that engines never wait for the disk:
//!
//! ```
//! use exsa_cache::{CacheOptions, PromptCache};
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions, PromptCacheOptions, Request};
//! use std::sync::Arc;
//!
//! # let folder = std::env::temp_dir().join(format!("exsa-doc-cache-{}", std::process::id()));
//! let cache = Arc::new(PromptCache::open(CacheOptions::new(&folder).bytes_max(8 << 30))?);
//! let options = EngineOptions::default().prompt_cache(PromptCacheOptions::new(cache.clone()));
//! let engine = Engine::start(ScriptedModel::echo("yes").shared(), options)?;
//! engine.submit(Request::text("A long prompt.").max_tokens(3))?.complete()?;
//! # drop(engine);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Files are written under a temporary name, synced and renamed, so that incomplete files are ignored. Each
//! block has a checksum or, with a [`CacheKey`], authenticated encryption. Several processes can share a
//! folder.
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

mod cache;
mod chain;
mod disk;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod durability;
mod error;
mod format;
mod index;
mod key;
mod notice;
mod options;
mod reader;
mod seal;
mod shared;
mod stats;
mod writer;

pub use cache::{EntryInfo, PromptCache};
pub use error::CacheError;
pub use format::{EntryFile, FormatError};
pub use key::CacheKey;
pub use notice::CacheNotice;
pub use options::CacheOptions;
pub use stats::CacheStats;
