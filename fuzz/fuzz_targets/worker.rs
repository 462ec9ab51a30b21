//! Bytes on the connection between host and worker, in both directions: refused, or messages that are written
//! as they were read; events only within the limits of their request.
#![no_main]

use exsa_core::backend::Capabilities;
use exsa_core::model_info::ModelInfo;
use exsa_core::{EngineInfo, Event, Request};
use exsa_worker::frame::{FrameReader, FromWorker, StreamRules, ToWorker, decode, encode};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::LazyLock;

const VOCAB: usize = 300;

static RULES: LazyLock<StreamRules> = LazyLock::new(|| {
    let mut model = ModelInfo::default();
    model.n_vocab = VOCAB;
    StreamRules::new(&Request::text("").n(2).stop("x"), &EngineInfo::new(model, Capabilities::new(4, 64)))
});

/// Reads messages until one is refused, and returns those that were not.
fn messages<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Vec<T> {
    let mut reader = FrameReader::with_max(bytes, 1 << 16);
    let mut messages = Vec::new();
    while let Ok(Some(message)) = reader.read::<T>() {
        messages.push(message);
    }
    for message in &messages {
        // Numbers may have been read in a longer form, so only the second way is the same to the byte.
        let mut first = Vec::new();
        encode(message, &mut first).expect("what was read fits a frame");
        let again: T = decode(&first[4..]).expect("what was written is read");
        let mut second = Vec::new();
        encode(&again, &mut second).expect("it still fits");
        assert_eq!(first, second);
    }
    messages
}

fuzz_target!(|data: &[u8]| {
    let Some((direction, bytes)) = data.split_first() else { return };
    if direction % 2 == 0 {
        messages::<ToWorker>(bytes);
        return;
    }
    for message in messages::<FromWorker>(bytes) {
        let FromWorker::Events { events, .. } = message else { continue };
        let Ok((events, ended)) = RULES.check(events.0) else { continue };
        assert!(!events.is_empty());
        for (i, event) in events.iter().enumerate() {
            match event {
                Event::Token(token) | Event::Reasoning(token) => {
                    assert!(token.index < 2 && token.id.is_none_or(|id| (id as usize) < VOCAB));
                }
                Event::Finished(end) => assert!(ended && end.index < 2 && i + 1 == events.len()),
                Event::AnswerFinished(end) => assert!(end.index < 2),
                _ => {}
            }
        }
    }
});
