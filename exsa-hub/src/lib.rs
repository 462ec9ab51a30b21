//! Downloads of models from Hugging Face's hub and from any `https` address, into a cache that is shared with
//! other programs.
//!
//! A [`Hub`] downloads a [`Source`] and returns the paths of its files:
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
//! Files of the hub are stored in the layout of `huggingface_hub` (`models--OWNER--REPO/blobs`, `refs`,
//! `snapshots`), so both find each other's downloads. A download is written to a file that ends in `.part`,
//! in concurrent parts if the server supports ranges. It is resumed with `Range` and `If-Range`, compared
//! with its SHA-256 if the server states one, and renamed. Processes that download the same file wait for
//! each other with a lock file.
//!
//! All data from a server is validated before use: names cannot become paths outside of the cache, a token is
//! only sent to the hub and not to hosts that it redirects to, and listings and headers are bounded.
//!
//! All calls block, and no thread outlives its call. `https` needs the feature `tls`.
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
