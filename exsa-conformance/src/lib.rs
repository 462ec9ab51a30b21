//! The tests that every backend of Exsa passes, and a backend that fails on purpose.
//!
//! The contract between [`exsa_core`] and its backends stands in the documentation of [`exsa_core::backend`]. Here it is as
//! functions, [`cases`], that take a [`Fixture`]: a backend, a model to run on it, and how exact it is. A backend, whoever
//! wrote it, mounts them in a file of its tests, and each case is a test of its own there:
//!
//! ```
//! // tests/conformance.rs
//! use exsa_conformance::Fixture;
//! use exsa_core::backend::ModelSource;
//! # use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
//! # struct MyBackend;
//! # impl MyBackend { fn new() -> ScriptedBackend { ScriptedBackend::new(ScriptedModel::ngram(1)) } }
//!
//! fn micro(name: &str) -> Fixture {
//!     Fixture::new(MyBackend::new(), ModelSource::file(format!("tests/data/{name}.gguf"))).tolerance(1e-4)
//! }
//!
//! exsa_conformance::mount! {
//!     llama: micro("llama-f32"),
//!     qwen2: micro("qwen2-f32"),
//! }
//! # fn main() {}
//! ```
//!
//! With `exsa-conformance` among the `dev-dependencies`, `cargo test` then runs some sixty tests for each fixture. A failing
//! one says which clause of the contract does not hold, what was done, what was expected and what came. All at once, without
//! a test harness:
//!
//! ```
//! use exsa_conformance::{Fixture, run_all};
//! use exsa_core::backend::ModelSource;
//! use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
//!
//! let backend = ScriptedBackend::new(ScriptedModel::ngram(1).order(usize::MAX).context(96));
//! // This backend computes without a file; a real one gets `ModelSource::file("model.gguf")`.
//! let fixture = Fixture::new(backend, ModelSource::Embedded(b"")).reads_no_files().bitwise();
//! let report = run_all(&fixture);
//! for (case, failure) in &report.failed {
//!     println!("{case}: {failure}");
//! }
//! assert!(report.failed.is_empty() && report.passed.len() > 40);
//! ```
//!
//! The cases compare a backend with itself: a sequence that was cut, batched, forked, rolled back or saved, with the same
//! tokens alone in a session. Whether the logits are those of the model is another question, for a reference implementation.
//! A small model does: what its layers compute does not matter here, only that another token changes the logits.
#![forbid(unsafe_code)]

pub mod cases;
mod check;
mod clause;
mod failure;
pub mod faulty;
mod fixture;
mod logits;
mod parts;
mod random;
pub mod real_model;
mod run;
mod suite;

pub use failure::{CaseResult, Clause, Failure, Outcome};
pub use fixture::{Fixture, IntoFixture};
#[doc(hidden)]
pub use suite::run_mounted;
pub use suite::{CASES, Case, Report, run_all};
