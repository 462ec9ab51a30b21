//! The forward pass and recovery from its failure.

use super::EngineLoop;
use super::commit::Commit;
use crate::batch::Span;
use crate::error::StepError;
use crate::finish::{FinishReason, RequestError};
use crate::schedule::scheduler::StepCost;
use crate::token::RequestId;
use crate::token::SeqId;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl EngineLoop {
    /// Computes the work; retries without the sequence at fault until the pass succeeds.
    pub(super) fn forward(&mut self) {
        while !self.work.is_empty() {
            self.batch.clear();
            for work in &self.work {
                let span = Span::tokens(work.seq, work.start, self.scheduler.tokens_of(work)).rows(work.rows);
                self.batch.push(span.adapters(self.scheduler.adapters_of(work)));
            }
            let wanted = self.work.iter().map(|work| {
                let request = self.answers.get(&work.id).map_or(work.id, |answer| answer.request);
                (request, self.scheduler.expiry(work.seq))
            });
            self.input.in_flight.begin(wanted);
            let start = self.clock.now();
            let (session, batch) = (&mut self.session, &self.batch);
            let (answers, work) = (&mut self.answers, &self.work);
            let pass = move || {
                let session = session;
                session.start(batch)?;
                // Overlaps with a pass on a device. A pass on this thread begins in `finish`.
                for work in work.iter().filter(|work| work.rows > work.prompt_rows) {
                    let answer = answers.get_mut(&work.id);
                    if let Some(constraint) = answer.and_then(|answer| answer.constraint.as_mut()) {
                        constraint.prepare();
                    }
                }
                session.finish(batch)
            };
            let passed = catch_unwind(AssertUnwindSafe(pass));
            self.input.in_flight.end();
            let error = match passed {
                Ok(Ok(output)) if output.rows() == batch.rows() && output.logits().is_some() => {
                    let now = self.clock.now();
                    let elapsed = now.saturating_sub(start);
                    let stats = &mut self.recorder.stats;
                    stats.steps += 1;
                    stats.tokens_computed += batch.len() as u64;
                    stats.step_times.forward += elapsed;
                    self.scheduler.observe(&StepCost::of(&self.work, elapsed));
                    let ended = Commit {
                        scheduler: &mut self.scheduler,
                        requests: &mut self.requests,
                        answers: &mut self.answers,
                        tokenizer: &*self.tokenizer,
                        speculation: self.speculation.as_mut(),
                        scratch: &mut self.scratch,
                        generated: &mut self.generated,
                        recorder: &mut self.recorder,
                        clock: &*self.clock,
                        context_max: self.context_max,
                        now,
                    }
                    .run(&self.work, output);
                    for (id, reason) in ended {
                        self.end_answer(id, reason);
                    }
                    return;
                }
                Ok(Ok(output)) if output.logits().is_none() => StepError::Backend(
                    "the session left the logits on the device, but core samples on the host".to_owned(),
                ),
                Ok(Ok(output)) => StepError::Backend(format!(
                    "{} rows requested, but {} returned",
                    batch.rows(),
                    output.rows()
                )),
                Ok(Err(error)) => error,
                Err(panic) => {
                    let error = RequestError::Panicked(panic_text(&*panic));
                    self.end_all(&FinishReason::Failed(error));
                    return;
                }
            };
            if !self.recover(&error) {
                return;
            }
        }
    }

    /// Rolls back the sequences of a failed pass. Returns whether to retry the pass, because the sequence at
    /// fault was removed from it.
    fn recover(&mut self, error: &StepError) -> bool {
        let culprit = error.seq();
        let interrupted = matches!(error, StepError::Interrupted);
        let mut retry = Vec::with_capacity(self.work.len());
        for work in std::mem::take(&mut self.work) {
            let blamed = match culprit {
                Some(seq) => seq == work.seq,
                None => !interrupted,
            };
            if blamed {
                self.end_answer(work.id, FinishReason::Failed(error.clone().into()));
            } else if self.roll_back(work.id, work.seq, work.start) {
                retry.push(work);
            }
        }
        self.apply_kv_ops();
        let progress = culprit.is_some() && retry.len() < self.batch.span_count();
        self.work = retry;
        progress
    }

    /// Truncates a sequence. If the session cannot, requeues its request and returns `false`.
    fn roll_back(&mut self, id: RequestId, seq: SeqId, len: usize) -> bool {
        if len == 0 {
            self.session.release(seq);
            return true;
        }
        if self.session.capabilities().truncate && self.session.truncate(seq, len).is_ok() {
            return true;
        }
        self.scheduler.requeue(id, self.clock.now());
        false
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
