//! Downloads of models: from Hugging Face's hub, from any `https` address, into a cache that other programs
//! share.
//!
//! A [`Hub`] fetches a [`Source`] and gives the paths of its files:
//!
//! ```no_run
//! use exsa_hub::{Cancel, Hub, HubOptions, Source};
//!
//! let hub = Hub::new(HubOptions::from_env()?)?;
//! let source: Source = "hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M".parse()?;
//! let pulled = hub.pull(&source, &Cancel::new(), &mut |progress| {
//!     eprintln!("{} {}/{:?}", progress.file, progress.bytes, progress.total);
//! })?;
//! println!("{}", pulled.model.display());
//! # Ok::<(), exsa_hub::HubError>(())
//! ```
//!
//! Files of the hub lie where `huggingface_hub` keeps them (`models--OWNER--REPO/blobs`, `refs`,
//! `snapshots`), so that either finds the files of the other. A download goes to a file that ends in `.part`,
//! in several parts at a time where the server allows it; it is resumed by `Range` and `If-Range`, compared
//! with its SHA-256 where the server states one, and renamed. Processes that fetch the same file wait for
//! each other by a lock file.
//!
//! Everything that a server says is checked before it is used: names become no paths outside of the cache, a
//! token is sent to the hub alone and to no host that it redirects to, listings and headers have a limit.
//!
//! All calls block; none starts a thread that outlives it. `https` needs the feature `tls`.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

mod cache;
mod cancel;
mod digest;
mod download;
mod error;
mod hub;
mod listing;
mod name;
mod options;
mod progress;
mod quant;
mod source;
mod space;
mod token;
mod transport;

pub use cache::{CachedModel, Removed};
pub use cancel::Cancel;
pub use error::HubError;
pub use hub::{Hub, Pulled};
pub use options::HubOptions;
pub use progress::{Phase, Progress, Rate};
pub use quant::quantization;
pub use source::{Pick, Repo, Source};
pub use token::Token;
