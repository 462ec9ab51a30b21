//! Tests of worker processes. This program is its own worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod engines;
mod harness;
mod sandbox;
mod signals;
mod streams;

fn main() {
    exsa_worker::run_if_worker(engines::build);
    let tests = [streams::TESTS, sandbox::TESTS];
    harness::run(&tests.concat());
}
