//! The scripted session: it stores tokens in place of keys and values, but accounts for real blocks.

use super::plan::plan;
use super::{ScriptedModel, saved};
use crate::backend::{Capabilities, Interrupt, Output, Pooling, Session, SessionOptions};
use crate::batch::{Batch, Embeddings, Logits};
use crate::error::{KvError, LoadError, StepError};
use crate::token::{SeqId, TokenId};
use std::io::{Read, Write};

/// Values in a vector of [`Session::embed`].
const VECTOR_WIDTH: usize = 16;

/// A session of a [`ScriptedModel`].
#[derive(Debug)]
pub struct ScriptedSession {
    model: ScriptedModel,
    capabilities: Capabilities,
    interrupt: Interrupt,
    sequences: Vec<Held>,
    /// Number of sequences that hold each block.
    references: Vec<u32>,
    /// Scratch memory of [`Batch::validate`].
    seen: Vec<bool>,
    logits: Vec<f32>,
    vectors: Vec<f32>,
}

#[derive(Clone, Debug, Default)]
struct Held {
    tokens: Vec<TokenId>,
    blocks: Vec<usize>,
    /// Effects of the adapters that computed the tokens; `None` if there are none yet, or they were restored.
    adapters: Option<Vec<(usize, f32)>>,
}

impl ScriptedSession {
    pub(super) fn new(model: ScriptedModel, options: &SessionOptions) -> Result<Self, LoadError> {
        let capabilities = plan(&model, options)?;
        Ok(Self {
            sequences: vec![Held::default(); capabilities.sequences_max],
            references: vec![0; capabilities.kv_tokens_max / capabilities.block_tokens],
            seen: vec![false; capabilities.sequences_max],
            logits: Vec::new(),
            vectors: Vec::new(),
            interrupt: options.interrupt.clone(),
            capabilities,
            model,
        })
    }

    /// The tokens that `seq` holds.
    pub fn tokens(&self, seq: SeqId) -> &[TokenId] {
        self.sequences.get(seq.index()).map_or(&[], |held| &held.tokens)
    }

    /// Number of distinct blocks held.
    pub fn blocks_used(&self) -> usize {
        self.references.iter().filter(|n| **n > 0).count()
    }

    fn blocks_free(&self) -> usize {
        self.references.len() - self.blocks_used()
    }

    /// The last block of `held`, if it is shared and the next token would be written into it.
    fn shared_last(&self, held: &Held) -> Option<usize> {
        let partly = !held.tokens.len().is_multiple_of(self.capabilities.block_tokens);
        held.blocks.last().copied().filter(|block| partly && self.references[*block] > 1)
    }

    /// Number of blocks to copy when sequences write into these
    /// shared blocks: the last holder of a block writes in place.
    fn copies(&self, mut shared: Vec<usize>) -> usize {
        shared.sort_unstable();
        let copies = |writers: &[usize]| writers.len().min(self.references[writers[0]] as usize - 1);
        shared.chunk_by(|a, b| a == b).map(copies).sum()
    }

    /// Advances the clock by the cost of a token, unless interrupted. Returns whether to continue.
    fn spend_token(&self) -> bool {
        let goes_on = !self.interrupt.is_raised();
        if let Some(cost) = self.model.cost.as_ref().filter(|_| goes_on) {
            cost.clock.advance(cost.per_token);
        }
        goes_on
    }

    fn append(&mut self, seq: SeqId, tokens: &[TokenId]) {
        let mut held = std::mem::take(&mut self.sequences[seq.index()]);
        if let Some(shared) = self.shared_last(&held) {
            held.blocks.pop();
            self.references[shared] -= 1;
        }
        held.tokens.extend_from_slice(tokens);
        let wanted = held.tokens.len().div_ceil(self.capabilities.block_tokens);
        let free = self.references.iter().enumerate().filter(|(_, n)| **n == 0).map(|(block, _)| block);
        held.blocks.extend(free.take(wanted - held.blocks.len()));
        for block in &held.blocks {
            self.references[*block] = self.references[*block].max(1);
        }
        self.sequences[seq.index()] = held;
    }

    fn check(&mut self, batch: &Batch) -> Result<(), StepError> {
        let n_vocab = self.model.info.n_vocab;
        let Self { sequences, capabilities, seen, .. } = &mut *self;
        let held = |seq: SeqId| sequences.get(seq.index()).map(|held| held.tokens.len());
        batch.validate(capabilities, n_vocab, seen, held)?;
        self.check_adapters(batch)?;
        let (mut needed, mut shared) = (0, Vec::new());
        for span in batch.spans() {
            let held = &self.sequences[span.seq.index()];
            needed += span.end().div_ceil(self.capabilities.block_tokens) - held.blocks.len();
            shared.extend(self.shared_last(held));
        }
        needed += self.copies(shared);
        let free = self.blocks_free();
        if needed > free { Err(StepError::KvFull { needed, free }) } else { Ok(()) }
    }

    /// Refuses adapters that are not loaded, adapters that differ from those of the sequence's tokens, and
    /// more sets than a batch allows.
    fn check_adapters(&self, batch: &Batch) -> Result<(), StepError> {
        let mut sets = Vec::new();
        for span in batch.spans() {
            let problem = |problem: String| Err(StepError::Sequence { seq: span.seq, problem });
            let effects = match self.model.adapters.effects(span.adapters) {
                Ok(effects) => effects,
                Err(unknown) => return problem(format!("adapter {} is not loaded", unknown.0)),
            };
            let held = &self.sequences[span.seq.index()].adapters;
            if held.as_ref().is_some_and(|held| span.position > 0 && *held != effects) {
                return problem("its adapters differ from those that computed its tokens".to_owned());
            }
            if !sets.contains(&span.adapters) {
                sets.push(span.adapters);
            }
            if sets.len() > self.capabilities.batch_adapter_sets_max {
                let max = self.capabilities.batch_adapter_sets_max;
                return problem(format!(
                    "a batch may have at most {max} sets of adapters, but this span adds another"
                ));
            }
        }
        Ok(())
    }

    fn empty(&mut self, seq: SeqId) -> Result<&mut Held, KvError> {
        match self.sequences.get_mut(seq.index()) {
            None => Err(KvError::Sequence { seq, problem: "the id is not below sequences_max" }),
            Some(held) if !held.tokens.is_empty() => Err(KvError::Sequence { seq, problem: "is not empty" }),
            Some(held) => Ok(held),
        }
    }

    fn held(&self, seq: SeqId, len: usize) -> Result<&Held, KvError> {
        let problem = "the id is not below sequences_max";
        let held = self.sequences.get(seq.index()).ok_or(KvError::Sequence { seq, problem })?;
        if len > held.tokens.len() {
            return Err(KvError::Length { seq, len, held: held.tokens.len() });
        }
        Ok(held)
    }
}

impl Session for ScriptedSession {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.check(batch)?;
        let n_vocab = self.model.info.n_vocab;
        self.logits.clear();
        self.logits.resize(batch.rows() * n_vocab, 0.0);
        if let Some(cost) = &self.model.cost {
            cost.spend_pass();
        }
        let mut row = 0;
        for span in batch.spans() {
            let tokens = span.token_ids().unwrap_or_default();
            let done = tokens.iter().take_while(|_| self.spend_token()).count();
            self.append(span.seq, &tokens[..done]);
            self.sequences[span.seq.index()].adapters = self.model.adapters.effects(span.adapters).ok();
            if done < tokens.len() {
                return Err(StepError::Interrupted);
            }
            let held = &self.sequences[span.seq.index()].tokens;
            for end in span.end() - span.rows..span.end() {
                let logits = &mut self.logits[row * n_vocab..][..n_vocab];
                self.model.adapted_logits(&held[..=end], span.adapters, logits);
                row += 1;
            }
        }
        Ok(Logits::new(&self.logits, n_vocab).into())
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        let pooling = self.capabilities.embed.ok_or(StepError::Unsupported("embed"))?;
        self.check(batch)?;
        if self.interrupt.is_raised() {
            return Err(StepError::Interrupted);
        }
        if let Some(span) = batch.spans().find(|span| span.position > 0) {
            return Err(StepError::Sequence { seq: span.seq, problem: "is not empty".into() });
        }
        let width = if pooling == Pooling::Rank { 1 } else { VECTOR_WIDTH };
        if let Some(cost) = &self.model.cost {
            cost.spend_pass();
        }
        self.vectors.clear();
        let mut row = vec![0.0; self.model.info.n_vocab];
        for span in batch.spans() {
            let tokens = span.token_ids().unwrap_or_default();
            let mut sum = [0.0; VECTOR_WIDTH];
            let ends = match pooling {
                Pooling::First => 0..1,
                Pooling::Last => tokens.len() - 1..tokens.len(),
                _ => 0..tokens.len(),
            };
            let count = ends.len() as f32;
            for end in ends {
                self.model.logits(&tokens[..=end], &mut row);
                sum.iter_mut().zip(&row).for_each(|(sum, value)| *sum += value / count);
            }
            self.vectors.extend_from_slice(&sum[..width]);
        }
        Ok(Embeddings::new(&self.vectors, width))
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        if !self.capabilities.fork {
            return Err(KvError::Unsupported("fork"));
        }
        let source = self.held(from, len)?;
        let blocks = source.blocks[..len.div_ceil(self.capabilities.block_tokens)].to_vec();
        let adapters = source.adapters.clone();
        let copy = Held { tokens: source.tokens[..len].to_vec(), blocks: blocks.clone(), adapters };
        *self.empty(to)? = copy;
        for block in blocks {
            self.references[block] += 1;
        }
        Ok(())
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        if len > 0 && !self.capabilities.truncate {
            return Err(KvError::Unsupported("truncate"));
        }
        self.held(seq, len)?;
        let held = &mut self.sequences[seq.index()];
        held.tokens.truncate(len);
        if len == 0 {
            held.adapters = None;
        }
        for block in held.blocks.split_off(len.div_ceil(self.capabilities.block_tokens)) {
            self.references[block] -= 1;
        }
        Ok(())
    }

    fn release(&mut self, seq: SeqId) {
        if let Some(held) = self.sequences.get_mut(seq.index()) {
            for block in std::mem::take(held).blocks {
                self.references[block] -= 1;
            }
        }
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        if !self.capabilities.save {
            return Err(KvError::Unsupported("save"));
        }
        saved::write(&self.model, &self.held(seq, 0)?.tokens, to)
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        if !self.capabilities.save {
            return Err(KvError::Unsupported("restore"));
        }
        self.empty(seq)?;
        let (context, free) = (self.capabilities.context_tokens_max, self.blocks_free());
        let tokens = saved::read(&self.model, context, from, |len| {
            let needed = len.div_ceil(self.capabilities.block_tokens);
            if needed > free { Err(KvError::Full { needed, free }) } else { Ok(()) }
        })?;
        self.append(seq, &tokens);
        Ok(tokens.len())
    }
}
