//! The routes, without a socket: requests go to the router, answers come from scripted models.
#![allow(clippy::unwrap_used, clippy::panic)]

mod access;
mod access_reload;
mod adapters;
mod anthropic;
mod bad_input;
mod books;
mod chat;
mod completions;
mod draft;
mod folders;
mod gated;
#[cfg(feature = "grpc")]
mod grpc;
mod harness;
mod health;
mod keep_alive;
mod lifecycle;
mod llama;
mod metrics;
mod ollama;
mod openapi;
mod operations;
mod page;
mod prompt_cache;
mod pull;
mod queue;
mod responses;
mod service;
#[cfg(feature = "otel")]
mod telemetry;
