//! Several engines behind one queue.
//!
//! A [`Pool`] is a [`Generator`](exsa_core::Generator) over other generators: in-process engines, worker
//! processes, remote engines, other pools. It owns the queue, with priority classes and fair shares per user,
//! and places requests by cached prefix, else by load. An answer whose engine is lost continues on another
//! one, from the tokens that the consumer already has.
//!
//! ```
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions, Generator, Request};
//! use exsa_pool::{Member, Pool, PoolOptions};
//! use std::sync::Arc;
//!
//! let engine = || Engine::start(ScriptedModel::echo("Hello, world.").shared(), EngineOptions::default());
//! let pool = Pool::new(PoolOptions::new())?;
//! pool.add(Member::new("first", Arc::new(engine()?)).in_flight_max(16));
//! pool.add(Member::new("second", Arc::new(engine()?)).in_flight_max(16));
//! let answer = pool.submit(Request::text("Say it: "))?.complete()?;
//! assert_eq!(answer.text, "Hello, world.");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations)]

mod affinity;
mod attempt;
mod breaker;
mod dispatch;
mod embed;
mod failure;
mod job;
#[cfg(feature = "registry")]
mod managed;
mod member;
mod options;
mod place;
mod pool;
mod progress;
mod queue;
mod search;
mod shared;

pub use breaker::BreakerOptions;
pub use member::{Member, MemberStatus};
pub use options::PoolOptions;
pub use pool::Pool;
