//! The model registry: scenarios of its lifecycle with fake time, one per file, and its threads on scripted
//! models.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod active;
mod adapters;
mod budget;
mod cancel;
mod drain;
mod failures;
mod idle;
mod join;
mod names;
mod random;
mod reload;
mod requests;
mod sim;
mod threads;
