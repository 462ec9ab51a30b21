//! Speed of running streams while another model loads: without a load, beside one at full speed, and beside a
//! paced one.
//!
//! `cargo run --release -p exsa-backend-candle --example load_under_traffic -- STREAMS.gguf LOAD.gguf
//! [ROUNDS]`

use exsa_backend_candle::CandleBackend;
use exsa_core::backend::ModelSource;
use exsa_core::registry::{LoadPacing, ModelConfig, Registry, RegistryOptions};
use exsa_core::{Generator, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const STREAMS: usize = 4;
/// Window for the speed without a load.
const WINDOW: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(serving), Some(loading)) = (args.next(), args.next()) else {
        return Err("two GGUF files are required: one for the streams, one to load".into());
    };
    let rounds = args.next().map_or(Ok(3), |rounds| rounds.parse::<usize>())?;
    println!("round  load         seconds  tokens/s without a load  beside it  share");
    for round in 1..=rounds {
        for (name, pacing) in
            [("full speed", LoadPacing::FullSpeed), ("keep 90 %", LoadPacing::keep_streams(0.9))]
        {
            let registry = Registry::new(RegistryOptions::new().load_pacing(pacing))?;
            let backend = Arc::new(CandleBackend::new());
            registry.add(ModelConfig::new("streams", backend.clone(), ModelSource::file(&serving)))?;
            registry.add(ModelConfig::new("other", backend, ModelSource::file(&loading)))?;
            registry.load("streams").wait()?;
            let (alone, beside, time) = measure(&registry)?;
            println!(
                "{round:5}  {name:10} {:9.2} {alone:24.1} {beside:10.1} {:5.1} %",
                time.as_secs_f64(),
                100.0 * beside / alone
            );
        }
    }
    Ok(())
}

/// Tokens per second of all streams without a load and beside it, and the time of the load.
fn measure(registry: &Registry) -> Result<(f64, f64, Duration), Box<dyn std::error::Error>> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for i in 0..STREAMS {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let request = Request::text(format!("Story {i}: Once upon a time")).max_tokens(200);
                    match registry.submit(request.model("streams").ignore_eos(true)) {
                        Ok(stream) => stream.take_while(|_| !stop.load(Ordering::Relaxed)).for_each(drop),
                        Err(error) => return eprintln!("{error}"),
                    }
                }
            });
        }
        // Past the first prompts.
        std::thread::sleep(Duration::from_secs(1));
        let tokens = || registry.stats().tokens_generated as f64;
        let before = (tokens(), Instant::now());
        std::thread::sleep(WINDOW);
        let alone = (tokens() - before.0) / before.1.elapsed().as_secs_f64();
        let before = (tokens(), Instant::now());
        let loaded = registry.load("other").wait();
        let time = before.1.elapsed();
        let beside = (tokens() - before.0) / time.as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        loaded?;
        Ok((alone, beside, time))
    })
}
