//! Tests of worker processes. This program is its own worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod engines;
mod faults;
mod flow;
mod harness;
mod hostile;
mod killing;
mod sandbox;
mod signals;
mod streams;

fn main() {
    // Before the worker's call: a hostile worker does not keep to it.
    let role = std::env::var("EXSA_TEST_ROLE").unwrap_or_default();
    if let Some(mode) = role.strip_prefix("hostile ") {
        return hostile::worker(mode);
    }
    exsa_worker::run_if_worker(engines::build);
    if role == "host" {
        return faults::host();
    }
    let tests = [streams::TESTS, flow::TESTS, faults::TESTS, hostile::TESTS, sandbox::TESTS, killing::TESTS];
    harness::run(&tests.concat());
}
