//! A panic of the host inside a callback of llama.cpp ends the pass with an error; process and session live
//! on.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_llamacpp::LlamaCppBackend;
use exsa_conformance::harness::tokens;
use exsa_core::backend::ModelSource;
use exsa_core::clock::{Clock, SystemClock};
use exsa_core::queue::Fcfs;
use exsa_core::sampler::SamplingParams;
use exsa_core::{EngineLoop, EngineOptions, PrefixCacheOptions, Request, RequestError, TokenStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::load_with;

/// A clock that counts its readings and panics at one of them.
#[derive(Debug)]
struct PanickingClock {
    time: SystemClock,
    readings: AtomicU64,
    panics_at: AtomicU64,
}

impl Clock for PanickingClock {
    fn now(&self) -> Duration {
        let reading = self.readings.fetch_add(1, Ordering::Relaxed);
        assert!(reading != self.panics_at.load(Ordering::Relaxed), "the host's clock stopped");
        self.time.now()
    }
}

/// Submits a prompt with a time limit, which makes every operation of the pass read the clock, and prefills
/// it. `panics` is the part of the step's `readings` after which the clock panics.
fn prefill(engine: &mut EngineLoop, clock: &PanickingClock, panics: Option<u64>) -> (TokenStream, u64) {
    let request = Request::tokens(tokens(300, 1)).max_tokens(4).ignore_eos(true);
    let request = request.sampling(SamplingParams::greedy()).timeout(Duration::from_secs(3600));
    let stream = engine.submit(request).unwrap();
    let before = clock.readings.load(Ordering::Relaxed);
    clock.panics_at.store(panics.map_or(u64::MAX, |after| before + after), Ordering::Relaxed);
    assert!(engine.step());
    (stream, clock.readings.load(Ordering::Relaxed) - before)
}

/// Steps until nothing is left to do; the tokens of `stream`.
fn finish(engine: &mut EngineLoop, stream: TokenStream) -> Result<Vec<u32>, RequestError> {
    while engine.step() {}
    assert!(engine.is_empty() && !engine.is_stopped());
    Ok(stream.complete()?.tokens.iter().filter_map(|token| token.id).collect())
}

#[test]
fn a_panic_of_the_clock_ends_the_pass_with_an_error() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    let model = load_with(&LlamaCppBackend::new(), &ModelSource::file(path));
    let clock = Arc::new(PanickingClock {
        time: SystemClock::new(),
        readings: AtomicU64::new(0),
        panics_at: AtomicU64::new(u64::MAX),
    });
    let options = EngineOptions::default()
        .session(support::options())
        .prefix_cache(PrefixCacheOptions::default().enabled(false));
    let mut engine = EngineLoop::new(model, options, Box::new(Fcfs::new()), clock.clone()).unwrap();

    let (stream, readings) = prefill(&mut engine, &clock, None);
    let expected = finish(&mut engine, stream).unwrap();
    assert_eq!(expected.len(), 4);
    // Nearly all readings are of the pass: one for each operation.
    assert!(readings > 50, "{readings}");

    let (stream, _) = prefill(&mut engine, &clock, Some(readings / 2));
    let error = finish(&mut engine, stream).unwrap_err();
    assert!(matches!(error, RequestError::Step(_)), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("interrupt panicked") && error.contains("the host's clock stopped"), "{error}");
    assert_eq!(engine.stats().scheduler.kv_tokens_used, 0);

    let (stream, _) = prefill(&mut engine, &clock, None);
    assert_eq!(finish(&mut engine, stream), Ok(expected));
}
