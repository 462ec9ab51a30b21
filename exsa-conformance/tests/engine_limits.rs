//! The engine respects the limits of a session that are below the requested ones.
#![allow(clippy::unwrap_used)]

use exsa_core::backend::{Capabilities, Model, Output, Session, SessionOptions};
use exsa_core::batch::Batch;
use exsa_core::error::{KvError, LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::scripted::ScriptedModel;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Engine, EngineOptions, Request, SamplingParams, SeqId};
use std::sync::Arc;

/// A model whose sessions have fewer sequences and smaller batches than requested.
struct Narrow(ScriptedModel);

impl Model for Narrow {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.0.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let options = options.clone().sequences(3).batch_tokens(7);
        Ok(Box::new(NarrowSession(self.0.session(&options)?)))
    }
}

struct NarrowSession(Box<dyn Session>);

impl Session for NarrowSession {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.0.forward(batch)
    }

    fn release(&mut self, seq: SeqId) {
        self.0.release(seq);
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.0.truncate(seq, len)
    }
}

#[test]
fn batches_and_sequences_are_those_of_the_session() {
    let model = ScriptedModel::ngram(1);
    let request = |i: usize| {
        let prompt = format!("a prompt of more than seven tokens, number {i}");
        Request::text(prompt).sampling(SamplingParams::greedy()).ignore_eos(true).max_tokens(12)
    };
    let wide = Engine::start(model.clone().shared(), EngineOptions::default()).unwrap();
    let narrow = Engine::start(Arc::new(Narrow(model)), EngineOptions::default()).unwrap();
    let streams: Vec<_> = (0..12).map(|i| narrow.submit(request(i)).unwrap()).collect();
    for (i, stream) in streams.into_iter().enumerate() {
        let expected = wide.submit(request(i)).unwrap().complete().unwrap();
        assert_eq!(stream.complete().unwrap().tokens, expected.tokens, "request {i}");
    }
    assert_eq!(narrow.stats().failed, 0);
}
