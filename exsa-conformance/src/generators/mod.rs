//! The contract of [`Generator`](exsa_core::Generator): cases that every generator passes, whether it is an
//! engine, a worker process, a remote engine or a pool.
//!
//! ```
//! // tests/generator.rs
//! use exsa_conformance::generators::GeneratorFixture;
//! use exsa_core::scripted::ScriptedModel;
//! use exsa_core::{Engine, EngineOptions};
//!
//! fn engine() -> GeneratorFixture {
//!     let model = ScriptedModel::ngram(1).order(usize::MAX).context(512).shared();
//!     GeneratorFixture::new(Engine::start(model, EngineOptions::default()).unwrap()).identical()
//! }
//!
//! exsa_conformance::mount_generator! {
//!     scripted: engine(),
//! }
//! # fn main() {}
//! ```
//!
//! The model should generate long answers from any prompt; a context of 300 tokens suffices. Cases for
//! options that a generator refuses as unsupported are skipped.

mod answers;
mod endings;
mod fixture;
mod load;
mod refusals;
mod resume;
mod suite;

pub use answers::{
    answers_are_reproducible, greedy_answers_do_not_change, limits_of_tokens_hold, several_answers_end_once,
    stop_strings_are_no_part_of_the_text, usage_counts_the_tokens,
};
pub use endings::{
    a_cancelled_request_ends, a_dropped_stream_ends_its_request, every_request_ends_once,
    time_limits_end_requests,
};
pub use fixture::GeneratorFixture;
pub use load::{a_consumer_that_does_not_read_delays_no_other, many_requests_at_once_are_those_alone};
pub use refusals::{check_agrees_with_submit, the_models_are_named, wrong_requests_are_refused};
pub use resume::an_answer_resumes_after_any_token;
#[doc(hidden)]
pub use suite::run_mounted;
pub use suite::{GENERATOR_CASES, GeneratorCase, run_all};
