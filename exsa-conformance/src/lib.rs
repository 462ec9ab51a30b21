//! Conformance tests for backends of Exsa, and a fault-injecting backend.
//!
//! The documentation of [`exsa_core::backend`] defines the contract between [`exsa_core`] and its backends.
//! The functions in [`cases`] test it on a [`Fixture`]: a backend, a model, and the required exactness. A
//! backend mounts them in one of its test files, where each case becomes a test:
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
//! With `exsa-conformance` among the `dev-dependencies`, `cargo test` then runs about sixty tests for each
//! fixture. A failing test prints the violated clause of the contract, the input, the expectation and the
//! result. To run all cases without a test harness:
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
//! The cases compare a backend with itself: a sequence that was split, batched, forked, rolled back or saved
//! must have the same logits as the same tokens alone in a session. Logits are not compared with a reference
//! implementation. A small model suffices: its layers do not matter, only that a different token changes the
//! logits. [`texts`] compares the output of small trained models with reference texts, if the models are
//! present.
//!
//! [`generators`] tests the contract of [`Generator`](exsa_core::Generator), for engines, worker processes,
//! remote engines and pools.
//!
//! For tests that only one backend needs, [`edit`] changes model files, [`harness`] drives a session, and
//! [`test_data`] finds models that cannot be shipped.
#![forbid(unsafe_code)]

pub mod cases;
mod check;
mod clause;
mod compare;
pub mod edit;
mod failure;
pub mod faulty;
mod fixture;
pub mod generators;
pub mod harness;
mod logits;
mod random;
pub mod real_model;
mod run;
mod suite;
pub mod test_data;
pub mod texts;

pub use compare::{Comparison, compare};
pub use failure::{CaseResult, Clause, Failure, Outcome};
pub use fixture::{Fixture, IntoFixture};
#[doc(hidden)]
pub use suite::run_mounted;
pub use suite::{CASES, Case, Report, run_all};
