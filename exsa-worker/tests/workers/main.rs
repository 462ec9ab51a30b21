//! Tests of worker processes. This program is its own worker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[cfg(feature = "candle")]
mod candle;
mod ends;
mod engines;
mod faults;
mod flow;
mod harness;
mod hostile;
mod killing;
#[cfg(feature = "candle")]
mod packed;
mod pools;
mod sandbox;
mod signals;
mod streams;
mod survive;

fn main() {
    // Before the worker's call: a hostile worker does not keep to it.
    let role = std::env::var("EXSA_TEST_ROLE").unwrap_or_default();
    if let Some(mode) = role.strip_prefix("hostile ") {
        return hostile::worker(mode);
    }
    if role == "keeps its connection" {
        hostile::keep_connection();
    }
    exsa_worker::run_if_worker(engines::build);
    if let Some(backend) = role.strip_prefix("host ") {
        return ends::host(backend);
    }
    let tests = [
        streams::TESTS,
        flow::TESTS,
        faults::TESTS,
        ends::TESTS,
        hostile::TESTS,
        sandbox::TESTS,
        pools::TESTS,
        killing::TESTS,
        #[cfg(feature = "candle")]
        candle::TESTS,
        #[cfg(feature = "candle")]
        packed::TESTS,
    ];
    harness::run(&tests.concat());
}
