//! The broken session.

use crate::backend::{Inside, MutantModel};
use crate::mutant::Mutant;
use exsa_core::backend::{Capabilities, Output, Session, SessionOptions};
use exsa_core::batch::{Batch, Embeddings, Logits, Span};
use exsa_core::error::{KvError, StepError};
use exsa_core::{SeqId, TokenId};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

pub struct MutantSession {
    mutant: Mutant,
    inside: Inside,
    capabilities: Capabilities,
    options: SessionOptions,
    /// Sessions of the model that are in a pass.
    working: Arc<AtomicUsize>,
    model: Weak<MutantModel>,
    /// Tokens of each sequence.
    held: HashMap<SeqId, Vec<TokenId>>,
    /// Source of each forked sequence.
    sources: HashMap<SeqId, SeqId>,
    /// The sequence that was saved last.
    saved: Mutex<Option<SeqId>>,
    hidden: u32,
    passes: u64,
    rows: Vec<f32>,
}

impl MutantSession {
    pub fn new(
        mutant: Mutant,
        inside: Inside,
        mut capabilities: Capabilities,
        options: SessionOptions,
        working: Arc<AtomicUsize>,
        model: Weak<MutantModel>,
    ) -> Self {
        match mutant {
            Mutant::FlagsOfAnother => (capabilities.truncate, capabilities.save) = (false, true),
            Mutant::OtherLimits => capabilities.sequences_max += 1,
            _ => {}
        }
        let hidden = capabilities.sequences_max as u32;
        Self {
            mutant,
            inside,
            capabilities,
            options,
            working,
            model,
            held: HashMap::new(),
            sources: HashMap::new(),
            saved: Mutex::default(),
            hidden,
            passes: 0,
            rows: Vec::new(),
        }
    }

    fn len(&self, seq: SeqId) -> usize {
        self.held.get(&seq).map_or(0, Vec::len)
    }

    /// The batch, as changed by the fault.
    fn changed(&self, batch: &Batch) -> Batch {
        let mut changed = Batch::new();
        let mut ends: HashMap<SeqId, usize> = HashMap::new();
        for span in batch.spans() {
            let (seq, position, rows) = (span.seq, span.position, span.rows);
            let tokens = span.token_ids().unwrap_or_default();
            let end = ends.entry(seq).or_insert_with(|| self.len(seq));
            let known = (seq.index()) < self.capabilities.sequences_max;
            let position = if self.mutant == Mutant::NoPositionCheck && known { *end } else { position };
            *end += tokens.len();
            let n_vocab = 258;
            let mut tokens = tokens.to_vec();
            if self.mutant == Mutant::NoVocabularyCheck {
                tokens.iter_mut().for_each(|token| *token %= n_vocab);
            }
            let rows = if self.mutant == Mutant::FirstRowsOfTheSpan { tokens.len() } else { rows };
            let first = batch.spans().next().map_or(&[][..], |first| first.adapters);
            let adapters = match self.mutant {
                Mutant::AdaptersOfTheFirstSpan => first,
                Mutant::AdaptersDoNothing => &[],
                Mutant::UnknownAdaptersDoNothing if span.adapters.iter().any(|it| it.id.0 == u32::MAX) => &[],
                _ => span.adapters,
            };
            changed.push(Span::tokens(seq, position, &tokens).rows(rows).adapters(adapters));
        }
        changed
    }

    fn run(&mut self, batch: &Batch) -> Result<(Vec<f32>, usize), StepError> {
        if let Some(span) = batch.spans().find(|span| {
            let top =
                self.capabilities.sequences_max - usize::from(self.mutant == Mutant::HighestSequenceMissing);
            span.seq.index() >= top
        }) {
            return Err(StepError::Sequence { seq: span.seq, problem: "no such sequence".into() });
        }
        let mut inside = self.inside.lock().unwrap();
        let copy = |output: Output<'_>| {
            let logits = output.logits().unwrap();
            let rows = (0..logits.rows()).flat_map(|row| logits.row(row).unwrap()).copied().collect();
            (rows, logits.n_vocab())
        };
        let result = inside.forward(batch).map(copy);
        let result = match result {
            Err(error) if self.mutant == Mutant::TwoSpansOfOneSequence => {
                let mut seen = Vec::new();
                let twice = batch.spans().any(|span| {
                    seen.push(span.seq);
                    seen.iter().filter(|seq| **seq == span.seq).count() > 1
                });
                if twice { Ok((vec![0.0; batch.rows() * 258], 258)) } else { Err(error) }
            }
            Err(error @ StepError::KvFull { .. }) if self.mutant == Mutant::LostBlockPerRefusal => {
                let mut lost = Batch::new();
                self.hidden += 1;
                lost.push(Span::tokens(SeqId(self.hidden), 0, &[1]));
                inside.forward(&lost).ok();
                Err(error)
            }
            Err(error) if self.mutant == Mutant::GoodSpansOfBadBatches => {
                for span in batch.spans() {
                    let tokens = span.token_ids().unwrap_or_default();
                    let mut one = Batch::new();
                    one.push(Span::tokens(span.seq, span.position, tokens));
                    if inside.forward(&one).is_ok() {
                        self.held.entry(span.seq).or_default().extend(tokens);
                    }
                }
                Err(error)
            }
            result => result,
        };
        if result.is_ok() {
            for span in batch.spans() {
                let tokens = span.token_ids().unwrap_or_default();
                self.held.entry(span.seq).or_default().extend(tokens);
            }
        }
        result
    }

    /// Adds a little to all rows.
    fn noise(rows: &mut [f32], by: f32) {
        rows.iter_mut().step_by(3).for_each(|value| *value += by);
    }

    fn spoil(&self, batch: &Batch, rows: &mut Vec<f32>, n_vocab: usize, busy: bool) {
        let (mut spans, noise) = (batch.spans(), 0.01);
        let pieces = |rows: &[f32]| rows.chunks(n_vocab).map(<[f32]>::to_vec).collect::<Vec<_>>();
        match self.mutant {
            Mutant::AlwaysTheSameRow => rows.fill(1.0),
            Mutant::NotANumberOnce if batch.tokens().len() > 10 => {
                if let Some(last) = rows.last_mut() {
                    *last = f32::NAN;
                }
            }
            Mutant::RowsReversed => *rows = pieces(rows).into_iter().rev().flatten().collect(),
            Mutant::FirstRowsOfTheSpan => {
                let all = pieces(rows);
                let mut at = 0;
                rows.clear();
                for span in spans {
                    all[at..at + span.rows].iter().for_each(|row| rows.extend(row));
                    at += span.len();
                }
            }
            Mutant::OneRowForEverySpan => rows.truncate(n_vocab),
            Mutant::NoiseWithEveryPass => Self::noise(rows, self.passes as f32 * 1e-6),
            Mutant::NoiseInCompany if spans.len() > 1 => Self::noise(rows, noise),
            Mutant::TinyNoiseInCompany if spans.len() > 1 => Self::noise(rows, 1e-6),
            Mutant::NoiseInCrowds if spans.len() > 8 => Self::noise(rows, noise),
            Mutant::NoiseInFullBatches if batch.len() == self.capabilities.batch_tokens_max => {
                Self::noise(rows, noise);
            }
            Mutant::NoiseAfterTheFirstSpan if spans.any(|span| span.position > 0) => {
                Self::noise(rows, noise);
            }
            Mutant::RowsInOrderOfSequences => {
                let owners = spans.flat_map(|span| std::iter::repeat_n(span.seq, span.rows));
                let mut owned: Vec<_> = owners.zip(pieces(rows)).collect();
                owned.sort_by_key(|(seq, _)| *seq);
                *rows = owned.into_iter().flat_map(|(_, row)| row).collect();
            }
            Mutant::NoiseByThreads => {
                let threads = self.options.threads.compute.map_or(1, usize::from);
                Self::noise(rows, (threads - 1) as f32 * 1e-6);
            }
            Mutant::OneSessionAtATime if busy => Self::noise(rows, noise),
            _ => {}
        }
    }
}

impl Session for MutantSession {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        if self.mutant == Mutant::SessionNeedsTheModel && self.model.upgrade().is_none() {
            return Err(StepError::Backend("the model is gone".into()));
        }
        if self.mutant == Mutant::InterruptIsAnotherError {
            for _ in 0..3 {
                if self.options.interrupt.is_raised() {
                    return Err(StepError::Backend("stopped".into()));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.mutant == Mutant::RowsOfTheLastPass && batch.is_empty() {
            return Ok(Logits::new(&self.rows, 258).into());
        }
        let changed = self.changed(batch);
        let mut busy = false;
        if self.mutant == Mutant::OneSessionAtATime {
            busy = self.working.fetch_add(1, Ordering::SeqCst) > 0;
            std::thread::sleep(Duration::from_millis(10));
            self.working.fetch_sub(1, Ordering::SeqCst);
        }
        self.passes += 1;
        let (mut rows, n_vocab) = self.run(&changed)?;
        self.spoil(batch, &mut rows, n_vocab, busy);
        self.rows = rows;
        Ok(Logits::new(&self.rows, n_vocab).into())
    }

    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        let known = |span: &Span<'_>| span.seq.index() < self.capabilities.sequences_max;
        if let Some(span) = batch.spans().find(|span| !known(span)) {
            return Err(StepError::Sequence { seq: span.seq, problem: "no such sequence".into() });
        }
        let mut inside = self.inside.lock().unwrap();
        let mut asked = batch.clone();
        if self.mutant == Mutant::EmbedOfAnything {
            asked.clear();
            batch.spans().for_each(|span| {
                let tokens = span.token_ids().unwrap_or_default();
                asked.push(Span::tokens(span.seq, self.len(span.seq), tokens));
            });
        }
        let vectors = inside.embed(&asked)?;
        let width = vectors.width();
        let mut copied: Vec<Vec<f32>> =
            (0..vectors.len()).map(|i| vectors.vector(i).unwrap().to_vec()).collect();
        match self.mutant {
            Mutant::VectorsInOrderOfSequences => {
                let mut owned: Vec<_> = batch.spans().map(|span| span.seq).zip(copied).collect();
                owned.sort_by_key(|(seq, _)| *seq);
                copied = owned.into_iter().map(|(_, vector)| vector).collect();
            }
            Mutant::VectorsInCompany if copied.len() > 1 => copied[0][0] += 0.1,
            Mutant::EmbedLeavesTokens => {
                inside.forward(batch)?;
            }
            _ => {}
        }
        self.rows = copied.concat();
        Ok(Embeddings::new(&self.rows, width))
    }

    fn release(&mut self, seq: SeqId) {
        if self.mutant == Mutant::ReleaseForgets && seq == SeqId(0) {
            return;
        }
        let mut inside = self.inside.lock().unwrap();
        if seq.index() >= self.capabilities.sequences_max {
            return;
        }
        if self.mutant == Mutant::LostBlockPerRelease
            && self.held.get(&seq).is_some_and(|held| held.len() > 1)
        {
            self.hidden += 1;
            inside.fork(seq, SeqId(self.hidden), 1).ok();
        }
        if self.mutant == Mutant::LostBytesPerRelease {
            Box::leak(vec![1u8; 4096].into_boxed_slice());
        }
        let mut gone = vec![seq];
        if self.mutant == Mutant::ReleaseTakesTheNeighbour {
            gone.push(SeqId(seq.0 ^ 1));
        }
        if self.mutant == Mutant::ForkGoesWithItsSource {
            gone.extend(self.sources.iter().filter(|(_, from)| **from == seq).map(|(to, _)| *to));
        }
        for seq in gone {
            inside.release(seq);
            self.held.remove(&seq);
            self.sources.remove(&seq);
        }
    }

    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        let outside = [from, to].into_iter().find(|seq| seq.index() >= self.capabilities.sequences_max);
        if let Some(seq) = outside {
            return Err(KvError::Sequence { seq, problem: "no such sequence" });
        }
        if self.mutant == Mutant::ForkIntoWhatIsThere && from != to && len <= self.len(from) {
            self.release(to);
        }
        let held = self.held.get(&from).cloned().unwrap_or_default();
        let mut inside = self.inside.lock().unwrap();
        let mut tokens = held.get(..len).unwrap_or_default().to_vec();
        match self.mutant {
            Mutant::ForkOneShort if (1..=held.len()).contains(&len) => {
                tokens.pop();
                inside.fork(from, to, len - 1)?;
            }
            Mutant::ForkOfTheWrongToken | Mutant::ForkIsACopy if (2..=held.len()).contains(&len) => {
                // Refuses invalid batches.
                inside.fork(from, to, len)?;
                inside.release(to);
                if self.mutant == Mutant::ForkOfTheWrongToken {
                    tokens[0] ^= 1;
                }
                let mut batch = Batch::new();
                batch.push(Span::tokens(to, 0, &tokens));
                inside.forward(&batch).map_err(|error| KvError::Backend(error.to_string()))?;
            }
            _ => inside.fork(from, to, len)?,
        }
        self.sources.insert(to, from);
        self.held.insert(to, tokens);
        Ok(())
    }

    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        let held = self.len(seq);
        let known = seq.index() < self.capabilities.sequences_max;
        if !known {
            return Err(KvError::Sequence { seq, problem: "no such sequence" });
        }
        let mut inside = self.inside.lock().unwrap();
        match self.mutant {
            Mutant::TruncateToOneLess if (1..held).contains(&len) => {
                inside.truncate(seq, len - 1)?;
                self.held.entry(seq).or_default().truncate(len - 1);
                return Ok(());
            }
            Mutant::TruncateKeepsAnotherToken if (1..held).contains(&len) => {
                inside.truncate(seq, len - 1)?;
                let kept = self.held.get(&seq).map_or(0, |held| held[held.len() - 1]);
                let mut batch = Batch::new();
                batch.push(Span::tokens(seq, len - 1, &[kept ^ 1]));
                inside.forward(&batch).map_err(|error| KvError::Backend(error.to_string()))?;
            }
            Mutant::TruncateToMore if len > held => return Ok(()),
            _ => inside.truncate(seq, len)?,
        }
        self.held.entry(seq).or_default().truncate(len);
        Ok(())
    }

    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        if seq.index() >= self.capabilities.sequences_max {
            return Err(KvError::Sequence { seq, problem: "no such sequence" });
        }
        let mut inside = self.inside.lock().unwrap();
        *self.saved.lock().unwrap() = Some(seq);
        match self.mutant {
            Mutant::SaveOneShort if self.len(seq) > 1 => {
                let hidden = SeqId(self.hidden + 1);
                inside.fork(seq, hidden, self.len(seq) - 1)?;
                let saved = inside.save(hidden, to);
                inside.release(hidden);
                saved
            }
            Mutant::SaveIgnoresTheWriter => {
                let mut bytes = Vec::new();
                inside.save(seq, &mut bytes)?;
                to.write_all(&bytes).ok();
                Ok(())
            }
            _ => inside.save(seq, to),
        }
    }

    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        if seq.index() >= self.capabilities.sequences_max {
            return Err(KvError::Sequence { seq, problem: "no such sequence" });
        }
        if self.mutant == Mutant::RestoreOverwrites {
            self.release(seq);
        }
        if self.mutant == Mutant::RestoreIsTheLastSaved {
            let saved = *self.saved.lock().unwrap();
            if let Some(source) = saved {
                let len = self.len(source);
                return self.fork(source, seq, len).map(|()| len);
            }
        }
        let mut inside = self.inside.lock().unwrap();
        let result = inside.restore(seq, from);
        let result = match (self.mutant, result) {
            (Mutant::RestoreIgnoresOneByte, Err(KvError::Format(text))) if text.contains("checksum") => Ok(0),
            (Mutant::RestoreTakesAnything, Err(KvError::Format(_))) => Ok(0),
            (Mutant::RestoreLeavesSomething, Err(error @ (KvError::Format(_) | KvError::Io(_)))) => {
                let mut batch = Batch::new();
                batch.push(Span::tokens(seq, 0, &[1]));
                inside.forward(&batch).ok();
                Err(error)
            }
            (_, result) => result,
        };
        let len = result?;
        // The tokens themselves do not matter here.
        self.held.insert(seq, vec![0; len]);
        Ok(len)
    }
}
