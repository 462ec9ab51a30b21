//! Engines of the test's worker processes.

#[cfg(feature = "candle")]
use exsa_backend_candle::CandleBackend;
use exsa_conformance::faulty::{Effect, Faults, FaultyModel, Operation, When};
use exsa_core::backend::Model;
#[cfg(feature = "candle")]
use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource};
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
#[cfg(feature = "candle")]
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Engine, EngineOptions};
use exsa_worker::{RestartPolicy, Setup, Timeouts, WorkerOptions};
use serde_json::Value;
#[cfg(feature = "candle")]
use serde_json::json;
use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

/// The token that triggers the fault of [`faulty`].
pub const FAULT: u8 = b'!';

pub fn build(setup: Setup) -> Result<Engine, Box<dyn Error + Send + Sync>> {
    let model: Arc<dyn Model> = match setup.backend.as_str() {
        "scripted" => scripted(&setup.host),
        #[cfg(feature = "candle")]
        "tiny" => tiny(&mut setup.progress())?,
        #[cfg(feature = "candle")]
        "file" => return Ok(setup.start(&CandleBackend::new())?),
        "probe" => return Err(crate::sandbox::probe(&setup).into()),
        "refuses" => return Err("the model is not here".into()),
        "slow" => {
            let mut progress = setup.progress();
            for i in 0..20 {
                progress(i, 20);
                std::thread::sleep(Duration::from_millis(20));
            }
            scripted(&setup.host)
        }
        "hangs" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "grows" => {
            if let Some(mib) = setup.host["grow_at_once_mib"].as_u64() {
                std::hint::black_box(vec![1_u8; (mib as usize) << 20]);
            }
            let mib = setup.host["grow_mib"].as_u64().unwrap_or(0);
            std::thread::spawn(move || {
                // Within the address space, so that the host has to see it.
                let held: Vec<Vec<u8>> = (0..mib)
                    .map(|_| {
                        std::thread::sleep(Duration::from_millis(2));
                        vec![1; 1 << 20]
                    })
                    .collect();
                std::thread::sleep(Duration::from_secs(600));
                drop(held);
            });
            scripted(&setup.host)
        }
        other => return Err(format!("no backend {other}").into()),
    };
    let faults = Faults::new();
    if let (0, Some(pass)) = (setup.worker, setup.host["first_panics_at"].as_u64()) {
        faults.add(When::Nth(Operation::Forward, pass), Effect::Panic);
    }
    if let Some(pace) = setup.host["pace_us"].as_u64() {
        // Before the pace, since the first fault that is due counts.
        if let Some(effect) = effect(&setup.host) {
            faults.add(When::Token(FAULT.into()), effect);
        }
        faults.add(When::Always(Operation::Forward), Effect::Stall(Duration::from_micros(pace)));
    } else if let Some(effect) = effect(&setup.host) {
        faults.add(When::Token(FAULT.into()), effect);
    }
    let model = FaultyModel::new(model, faults.clone()).shared();
    let engine = Engine::start(model, setup.engine)?;
    if let Some(way) = setup.host["breaks"].as_str().map(str::to_owned) {
        let within = setup.host["breaks_within_ms"].as_u64().unwrap_or(1000);
        let random = RandomState::new().hash_one(std::process::id());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(random % within));
            break_itself(&way, &faults, random);
        });
    }
    Ok(engine)
}

/// Lets this worker fail.
fn break_itself(way: &str, faults: &Faults, random: u64) {
    match way {
        // Instead of the pace, since the first fault that is due counts.
        "panic" | "abort" => {
            faults.clear();
            let effect = if way == "panic" { Effect::Panic } else { Effect::Abort };
            faults.add(When::Always(Operation::Forward), effect);
        }
        "garbage" => crate::hostile::send_garbage(random >> 32),
        "grow" => {
            let mut held = Vec::new();
            loop {
                held.push(vec![1_u8; 2 << 20]);
                std::hint::black_box(&held);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        other => panic!("{other}"),
    }
}

fn effect(host: &Value) -> Option<Effect> {
    Some(match host["fault"].as_str()? {
        "panic" => Effect::Panic,
        "abort" => Effect::Abort,
        "hang" => Effect::Stall(Duration::from_secs(3600)),
        other => panic!("{other}"),
    })
}

/// Pseudo-random text, or the text of the host's value.
pub fn scripted(host: &Value) -> Arc<dyn Model> {
    let model = match host["says"].as_str() {
        Some(text) => ScriptedModel::echo(text),
        None => ScriptedModel::ngram(11).order(usize::MAX),
    };
    match host["template"].as_str() {
        Some(template) => model.chat_template(template).shared(),
        None => model.shared(),
    }
}

#[cfg(feature = "candle")]
pub fn tiny(
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Arc<dyn Model>, Box<dyn Error + Send + Sync>> {
    let source = ModelSource::Embedded(exsa_tiny::GGUF);
    Ok(CandleBackend::new().load(&source, &LoadOptions::default(), &mut LoadProgress::new(progress))?)
}

/// Settings for a worker on the scripted backend, whose passes take `pace`.
pub fn options(host: Value) -> WorkerOptions {
    WorkerOptions::new()
        .backend("scripted")
        .host(host)
        .tokenizer(Arc::new(ByteTokenizer::new()))
        // Long enough for a busy machine; tests of stalls set their own.
        .timeouts(Timeouts::new().stall_min(Duration::from_secs(30)))
        .restart(RestartPolicy::new().backoff(Duration::from_millis(1), Duration::from_millis(50)))
}

/// The same on candle, with the built-in model.
#[cfg(feature = "candle")]
pub fn tiny_options() -> WorkerOptions {
    let tokenizer: Arc<dyn Tokenizer> = tiny(&mut |_, _| true).unwrap().tokenizer();
    options(json!({})).backend("tiny").tokenizer(tokenizer)
}

/// The engine of [`options`] in this process.
pub fn in_process(host: &Value) -> Engine {
    Engine::start(scripted(host), EngineOptions::default()).unwrap()
}
