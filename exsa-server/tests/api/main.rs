//! The routes, without a socket: requests go to the router, answers come from scripted models.
#![allow(clippy::unwrap_used, clippy::panic)]

mod access;
mod anthropic;
mod bad_input;
mod chat;
mod completions;
mod harness;
mod llama;
mod ollama;
mod openapi;
mod responses;
mod service;
