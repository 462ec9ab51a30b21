//! Downloads from a server of this machine, which does all that servers do wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "failures of helpers are failures of tests")]

mod addresses;
mod cache;
mod cuts;
mod repository;
mod server;
mod statuses;
mod token;
