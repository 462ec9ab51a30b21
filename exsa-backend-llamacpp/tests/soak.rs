//! Hours in minutes: many streams, random cancels, and nothing may pile up.
//!
//! `cargo nextest run -p exsa-backend-llamacpp --test soak --run-ignored all --no-capture`;
//! `EXSA_SOAK_SECONDS` sets how long, 600 by default.
#![allow(clippy::unwrap_used)]

mod support;

use exsa_backend_llamacpp::{KvLayout, LlamaCppBackend};
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource};
use exsa_core::{Engine, EngineOptions, Event, Request};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const STREAMS: u64 = 16;

/// Bytes of memory that the process holds; `None` where the system does not tell in a file.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    text.split(' ').nth(1)?.parse::<u64>().ok()?.checked_mul(4096)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// One client: requests of random length until `end`, of which some are cancelled or dropped on the way.
fn client(engine: &Engine, seed: u64, end: Instant) -> (u64, u64) {
    let mut random = Random(seed);
    let (mut finished, mut cancelled) = (0, 0);
    while Instant::now() < end {
        let prompt = "Once upon a time there was a dog. ".repeat(1 + random.below(12) as usize);
        let request = Request::text(prompt).max_tokens(1 + random.below(200) as usize).ignore_eos(true);
        let leave_after = match random.below(3) {
            0 => Some(random.below(60)),
            _ => None,
        };
        let mut stream = engine.submit(request).unwrap();
        let mut tokens = 0;
        loop {
            if leave_after.is_some_and(|after| tokens >= after) {
                cancelled += 1;
                if random.below(2) == 0 {
                    stream.cancel();
                    continue_to_end(stream);
                }
                break;
            }
            match stream.next() {
                Some(Event::Token(_)) => tokens += 1,
                Some(Event::Finished(end)) => {
                    assert!(!matches!(end.reason, exsa_core::FinishReason::Failed(_)), "{end:?}");
                    finished += 1;
                    break;
                }
                other => unreachable!("a stream ends with Finished: {other:?}"),
            }
        }
    }
    (finished, cancelled)
}

fn continue_to_end(stream: exsa_core::TokenStream) {
    let last = stream.last();
    assert!(matches!(last, Some(Event::Finished(_))), "{last:?}");
}

fn soak(layout: KvLayout, length: Duration) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/exsa-tiny-q8_0.gguf"));
    let backend = LlamaCppBackend::new().kv_layout(layout);
    let model =
        backend.load(&ModelSource::File(path), &LoadOptions::default(), &mut LoadProgress::none()).unwrap();
    // Too little KV for all, where the layout allows: requests are preempted too.
    let kv_tokens_max = (layout == KvLayout::Unified).then_some(3000);
    // One thread, so that a busy machine does not slow it down to nothing.
    let session = support::options().sequences(STREAMS as usize).kv_tokens(kv_tokens_max);
    let engine = Engine::start(model, EngineOptions::default().session(session)).unwrap();
    let start = Instant::now();
    let mut samples = Vec::new();
    let (finished, cancelled) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..STREAMS)
            .map(|seed| {
                scope.spawn({
                    let engine = &engine;
                    move || client(engine, seed, start + length)
                })
            })
            .collect();
        while start.elapsed() < length {
            std::thread::sleep(length / 20);
            samples.extend(memory());
        }
        let sums = clients.into_iter().map(|client| client.join().unwrap());
        sums.fold((0, 0), |(a, b), (finished, cancelled)| (a + finished, b + cancelled))
    });
    let mut stats = engine.stats();
    let wait = Instant::now();
    while stats.scheduler.running > 0 && wait.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
        stats = engine.stats();
    }
    println!("{layout:?}: {finished} finished, {cancelled} cancelled, {stats:?}");
    println!("MiB: {:?}", samples.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>());
    assert_eq!(
        (stats.scheduler.running, stats.scheduler.waiting, stats.scheduler.kv_tokens_used, stats.failed),
        (0, 0, 0, 0)
    );
    assert!(finished > 0 && cancelled > 0);
    // The first tenth warms up.
    if let (Some(early), Some(late)) = (samples.get(2), samples.last()) {
        assert!(late.saturating_sub(*early) < 16 << 20, "memory grew from {early} to {late} bytes");
    }
}

#[test]
#[ignore = "takes minutes"]
fn sixteen_streams_and_random_cancels() {
    let seconds = std::env::var("EXSA_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    for layout in [KvLayout::Unified, KvLayout::Streams] {
        soak(layout, Duration::from_secs(seconds) / 2);
    }
}
