//! Saved KV of the candle backend from any bytes: restored, or refused with words and nothing left behind.
#![no_main]

use exsa_backend_candle::CandleBackend;
use exsa_core::SeqId;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, Session, SessionOptions, ThreadOptions,
};
use exsa_core::batch::{Batch, Span};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock, Mutex};

static MODEL: LazyLock<Arc<dyn Model>> = LazyLock::new(|| {
    let source = ModelSource::Embedded(include_bytes!("../../exsa-backend-candle/tests/data/llama-f32.gguf"));
    CandleBackend::new()
        .load(&source, &LoadOptions::default(), &mut LoadProgress::none())
        .expect("a sound model")
});

/// A session of three blocks.
static SESSION: LazyLock<Mutex<Box<dyn Session>>> = LazyLock::new(|| {
    let options = SessionOptions::new().kv_tokens(96).threads(ThreadOptions::compute(1));
    Mutex::new(MODEL.session(&options).expect("a session"))
});

/// Saved sequences of 0, 1, 5 and 40 tokens.
static SAVED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut session = MODEL.session(&SessionOptions::default()).expect("a session");
    let tokens: Vec<u32> = (3..43).collect();
    let save = |len: usize| {
        session.release(SeqId(0));
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(0), 0, &tokens[..len]));
        session.forward(&batch).expect("a pass");
        let mut saved = Vec::new();
        session.save(SeqId(0), &mut saved).expect("saved");
        saved
    };
    [0, 1, 5, 40].map(save).into()
});

fn run(data: &mut Unstructured<'_>) -> Result<()> {
    let mut bytes = if data.ratio(7, 8)? { data.choose(&SAVED)?.clone() } else { Vec::new() };
    for _ in 0..data.int_in_range(0..=4)? {
        if bytes.is_empty() {
            break;
        }
        // The header is where it pays.
        let end = if data.arbitrary()? { bytes.len().min(40) } else { bytes.len() };
        let at = data.choose_index(end)?;
        bytes[at] = data.arbitrary()?;
    }
    if data.ratio(1, 4)? && !bytes.is_empty() {
        bytes.truncate(data.choose_index(bytes.len())?);
    }
    bytes.extend_from_slice(data.bytes(data.len())?);

    let mut session = SESSION.lock().expect("no panic before");
    let taken = session.restore(SeqId(0), &mut bytes.as_slice());
    let len = match &taken {
        Ok(len) => *len,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            0
        }
    };
    assert!(len <= 96);
    // Whatever came of it, the sequence goes on from there, and all blocks can be had afterwards.
    let fill: Vec<u32> = (0..96).map(|i| 3 + i % 200).collect();
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), len, &fill[len..]).rows(1));
    if len < 96 {
        session.forward(&batch).expect("the sequence goes on, and nothing else holds a block");
    }
    session.release(SeqId(0));
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Too little data for a case is no case.
    let _ = run(&mut Unstructured::new(data));
});
