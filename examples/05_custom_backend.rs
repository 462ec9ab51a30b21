//! A custom backend: a trigram model over the bytes of one sentence.
//!
//! The engine batches, samples, streams and cancels for it as for any other backend.

use exsa_core::backend::{Capabilities, Model, Output, Session, SessionOptions};
use exsa_core::batch::{Batch, Logits};
use exsa_core::error::{LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::scripted::ByteTokenizer;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Engine, EngineOptions, Request, SeqId, TokenId};
use std::sync::Arc;

const TEXT: &[u8] = b"she sells sea shells by the sea shore, and the shells she sells are sea shells. ";

struct Trigrams(ModelInfo);

impl Model for Trigrams {
    fn info(&self) -> &ModelInfo {
        &self.0
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::new(ByteTokenizer::new())
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let can =
            Capabilities::new(options.sequences_max, self.0.n_ctx).batch_tokens(options.batch_tokens_max);
        Ok(Box::new(Memory { held: vec![Vec::new(); can.sequences_max], can, logits: Vec::new() }))
    }
}

struct Memory {
    can: Capabilities,
    held: Vec<Vec<TokenId>>,
    logits: Vec<f32>,
}

impl Session for Memory {
    fn capabilities(&self) -> &Capabilities {
        &self.can
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.logits.clear();
        for span in batch.spans() {
            let held = &mut self.held[span.seq.index()];
            held.extend(span.token_ids().unwrap_or_default());
            for end in held.len() - span.rows..held.len() {
                let last: Vec<u8> = held[end.saturating_sub(1)..=end].iter().map(|id| *id as u8).collect();
                let mut row = [-5.0; ByteTokenizer::N_VOCAB];
                TEXT.windows(3).filter(|w| w[..2] == last).for_each(|w| row[usize::from(w[2])] += 5.0);
                self.logits.extend(row);
            }
        }
        Ok(Logits::new(&self.logits, ByteTokenizer::N_VOCAB).into())
    }

    fn release(&mut self, seq: SeqId) {
        self.held.get_mut(seq.index()).into_iter().for_each(Vec::clear);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let info = ModelInfo::new(ByteTokenizer::N_VOCAB, 512);
    let engine = Engine::start(Arc::new(Trigrams(info)), EngineOptions::default())?;
    println!("she {}", engine.submit(Request::text("she ").max_tokens(100))?.complete()?.text);
    Ok(())
}
