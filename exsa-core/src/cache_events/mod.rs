//! Events of the prefix cache: which KV blocks an engine holds, for routers that send requests to the engine
//! that has their prefix cached.
//!
//! [`Engine::watch_cache`](crate::Engine::watch_cache) returns a [`CacheEvents`], which a host reads on a
//! separate thread. Without one, nothing is recorded.
//!
//! ```
//! use exsa_core::cache_events::CacheEvent;
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions, Request};
//! use std::time::Duration;
//!
//! let engine = Engine::start(ScriptedModel::echo("Hello.").shared(), EngineOptions::default())?;
//! let mut events = engine.watch_cache(1 << 20);
//! let prompt = "A prompt of several blocks, each of which has sixteen tokens.";
//! engine.submit(Request::text(prompt).max_tokens(1))?.complete()?;
//! let mut stored = 0;
//! while stored == 0 {
//!     for event in events.wait(Duration::from_secs(1)).unwrap_or_default() {
//!         if let CacheEvent::Stored(blocks) = event {
//!             stored += blocks.hashes.len();
//!         }
//!     }
//! }
//! assert_eq!(stored, prompt.len() / 16);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod event;
mod log;

pub use event::{BlockHash, CacheEvent, StoredBlocks};
pub use log::CacheEvents;
pub(crate) use log::LogWriter;
