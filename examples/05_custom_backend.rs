//! A backend of one's own: a model that has read one sentence and remembers which byte follows which two.
//!
//! The engine batches, samples, streams and cancels for it as for any other.

use exsa_core::backend::{Capabilities, Model, Session, SessionOptions};
use exsa_core::batch::{Batch, Logits};
use exsa_core::error::{LoadError, StepError};
use exsa_core::model_info::ModelInfo;
use exsa_core::scripted::ByteTokenizer;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Engine, EngineOptions, Generator, Request, SeqId, TokenId};
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
        let can = Capabilities {
            kv_tokens_max: self.0.n_ctx * options.sequences_max,
            block_tokens: 1,
            sequences_max: options.sequences_max,
            context_tokens_max: self.0.n_ctx,
            batch_tokens_max: options.batch_tokens_max,
            fork: false,
            truncate: false,
            save: false,
            embed: None,
        };
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

    fn forward(&mut self, batch: &Batch) -> Result<Logits<'_>, StepError> {
        self.logits.clear();
        for (span, tokens) in batch.iter() {
            let held = &mut self.held[span.seq.index()];
            held.extend(tokens);
            for end in held.len() - span.rows..held.len() {
                let last: Vec<u8> = held[end.saturating_sub(1)..=end].iter().map(|id| *id as u8).collect();
                let mut row = [-5.0; ByteTokenizer::N_VOCAB];
                TEXT.windows(3).filter(|w| w[..2] == last).for_each(|w| row[usize::from(w[2])] += 5.0);
                self.logits.extend(row);
            }
        }
        Ok(Logits::new(&self.logits, ByteTokenizer::N_VOCAB))
    }

    fn release(&mut self, seq: SeqId) {
        self.held.get_mut(seq.index()).into_iter().for_each(Vec::clear);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let info = ModelInfo { n_ctx: 512, n_vocab: ByteTokenizer::N_VOCAB, ..ModelInfo::default() };
    let engine = Engine::start(Arc::new(Trigrams(info)), EngineOptions::default())?;
    println!("she {}", engine.submit(Request::text("she ").max_tokens(100))?.complete()?.text);
    Ok(())
}
