//! Passes over texts to embed or score, between generation steps.

use super::EngineLoop;
use super::forward::panic_text;
use crate::batch::Span;
use crate::embed::EmbedError;
use crate::engine::embed_job::{EmbedJob, TextId};
use crate::error::StepError;
use crate::finish::{FinishReason, RequestError};
use crate::token::{RequestId, SeqId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Maximum time that the next text waits for a sequence and KV while requests are admitted; after that,
/// admission is suspended.
const HOLD_AFTER: Duration = Duration::from_secs(1);

/// A text in a pass, and its lent sequence.
type Item = (TextId, SeqId);

impl EngineLoop {
    /// Computes waiting texts in at most one pass. Returns whether there was work.
    ///
    /// Running requests keep their KV: the texts borrow other sequences, which are returned before the next
    /// plan. While requests are running, a pass has at most the tokens of a prefill chunk, or a single text.
    pub(super) fn embed_texts(&mut self) -> bool {
        if self.embeds.is_empty() {
            self.embeds.blocked_since = None;
            self.scheduler.lending_done();
            return false;
        }
        let now = self.clock.now();
        let expired = self.embeds.expired(now);
        for id in &expired {
            self.end_embed(*id, EmbedError::Deadline);
        }
        let items = self.gather_texts(now);
        self.apply_kv_ops();
        if !items.is_empty() {
            self.embed_pass(items.clone());
            if self.stopped {
                return true;
            }
            for (_, seq) in &items {
                self.scheduler.take_back(*seq);
            }
            self.apply_kv_ops();
            self.recorder.stats.step_times.embed += self.clock.now().saturating_sub(now);
        }
        !expired.is_empty() || !items.is_empty()
    }

    /// Ends an embedding or rerank request; `false` if no such request has this id.
    pub(super) fn end_embed(&mut self, id: RequestId, error: EmbedError) -> bool {
        let Some(job) = self.embeds.remove(id) else { return false };
        self.count_ended(&job, matches!(error, EmbedError::Failed(_)));
        self.publish();
        job.fail(error);
        true
    }

    /// Ends all embedding and rerank requests.
    pub(super) fn end_embeds(&mut self, reason: &FinishReason) {
        let error = match reason {
            FinishReason::Failed(error) => EmbedError::Failed(error.clone()),
            _ => EmbedError::Cancelled,
        };
        for job in self.embeds.drain() {
            self.count_ended(&job, matches!(error, EmbedError::Failed(_)));
            self.publish();
            job.fail(error.clone());
        }
    }

    /// Time of the next attempt to place a text, or of the next deadline.
    pub(super) fn embed_wakeup(&self) -> Option<Duration> {
        let retry = self.embeds.blocked_since.map(|_| self.clock.now() + crate::schedule::PAUSE_GRACE);
        self.embeds.next_deadline().into_iter().chain(retry).min()
    }

    fn count_ended(&mut self, job: &EmbedJob, failed: bool) {
        if job.started.is_none() {
            self.input.admission.leave(job.priority, &job.user);
        }
        self.recorder.stats.finished += 1;
        self.recorder.stats.failed += u64::from(failed);
    }

    /// Takes as many texts as fit, in order, and lends a sequence to each.
    fn gather_texts(&mut self, now: Duration) -> Vec<Item> {
        let batch = self.input.batch_tokens_max();
        let budget = if self.scheduler.running_len() > 0 { self.prefill_chunk_max.min(batch) } else { batch };
        let (mut items, mut tokens) = (Vec::new(), 0);
        while let Some(text) = self.embeds.next() {
            let len = self.embeds.tokens(text).len();
            if !items.is_empty() && tokens + len > budget {
                break;
            }
            let Some(seq) = self.scheduler.lend(len) else { break };
            if let Some(job) = self.embeds.take(now) {
                self.input.admission.leave(job.priority, &job.user);
                let waited = now.saturating_sub(job.submitted);
                self.recorder.queue_time(waited);
            }
            items.push((text, seq));
            tokens += len;
        }
        if items.is_empty() && !self.embeds.is_empty() {
            let since = *self.embeds.blocked_since.get_or_insert(now);
            self.scheduler.want_to_lend(since, HOLD_AFTER, now);
        } else {
            self.embeds.blocked_since = None;
            self.scheduler.lending_done();
        }
        items
    }

    /// Computes the texts; retries without the text at fault until the pass succeeds.
    fn embed_pass(&mut self, mut items: Vec<Item>) {
        while !items.is_empty() {
            self.batch.clear();
            for (text, seq) in &items {
                self.batch.push(Span::tokens(*seq, 0, self.embeds.tokens(*text)));
            }
            let mut requests: Vec<_> = items.iter().map(|(text, _)| text.job).collect();
            requests.sort_unstable();
            requests.dedup();
            self.input.in_flight.begin(requests.iter().map(|id| (*id, self.embeds.deadline(*id))));
            let (session, batch) = (&mut self.session, &self.batch);
            let pass = move || {
                let session = session;
                session.embed(batch)
            };
            let passed = catch_unwind(AssertUnwindSafe(pass));
            self.input.in_flight.end();
            let error = match passed {
                Ok(Ok(vectors)) if vectors.len() == items.len() => {
                    let stats = &mut self.recorder.stats;
                    stats.embed_passes += 1;
                    stats.texts_embedded += items.len() as u64;
                    stats.tokens_embedded += batch.len() as u64;
                    let results = items.iter().enumerate().filter_map(|(i, (text, _))| {
                        self.embeds.done(*text, Ok(vectors.vector(i).unwrap_or_default()))
                    });
                    let complete: Vec<_> = results.collect();
                    return self.finish_embeds(complete);
                }
                Ok(Ok(vectors)) => StepError::Backend(format!(
                    "{} vectors requested, but {} returned",
                    items.len(),
                    vectors.len()
                )),
                Ok(Err(error)) => error,
                Err(panic) => {
                    let error = RequestError::Panicked(panic_text(&*panic));
                    return self.end_all(&FinishReason::Failed(error));
                }
            };
            if matches!(error, StepError::Interrupted) {
                items.iter().rev().for_each(|(text, _)| self.embeds.put_back(*text));
                return;
            }
            let culprit = error.seq().filter(|culprit| items.iter().any(|(_, seq)| seq == culprit));
            let is_blamed = |item: &Item| culprit.is_none_or(|culprit| culprit == item.1);
            let (blamed, rest): (Vec<_>, Vec<_>) = items.into_iter().partition(is_blamed);
            let results =
                blamed.iter().filter_map(|(text, _)| self.embeds.done(*text, Err(error.clone().into())));
            let complete: Vec<_> = results.collect();
            self.finish_embeds(complete);
            items = rest;
        }
    }

    fn finish_embeds(&mut self, complete: Vec<EmbedJob>) {
        for job in complete {
            self.count_ended(&job, job.all_failed());
            self.publish();
            job.finish(self.clock.now());
        }
    }
}
