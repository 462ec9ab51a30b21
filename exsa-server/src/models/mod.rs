//! Models of a server: their configuration, their files, and the lifecycle routes.
//!
//! [`Models`] is a registry with the configuration from which its models are created; `docs/lifecycle.md`
//! lists the routes and their JSON.

pub(crate) mod adapters;
mod catalog;
mod config;
mod draft;
mod error;
mod events;
mod folders;
mod guarded;
pub(crate) mod name;
mod packed_place;
mod pulled;
mod ready;
mod remote;
pub(crate) mod routes;
mod units;
mod view;
mod warm_up;
mod worker;

pub use catalog::Models;
pub use config::{ModelEntry, ModelsConfig};
pub use draft::DraftEntry;
pub use error::ModelsError;
pub use packed_place::PackedPlace;
pub(crate) use pulled::{Pulls, name_of};
pub use remote::{RemoteDialect, RemoteEntry};
pub use worker::run_if_worker;
