//! Invariants between steps.

use super::Scheduler;
use super::prefill::PROMPT_ROWS_MAX;

impl Scheduler {
    /// Checks the invariants that hold between steps. Returns the first violation as text.
    pub fn check(&self) -> Result<(), String> {
        self.kv.check()?;
        if self.order.len() > self.sequences || self.order.len() != self.seqs.len() {
            return Err(format!("{} in order, {} by request", self.order.len(), self.seqs.len()));
        }
        let mut before = None;
        for seq in &self.order {
            let running = self.get(*seq).ok_or_else(|| format!("{seq} is in order but does not run"))?;
            if before.is_some_and(|before| before >= running.key()) {
                return Err(format!("{seq} is out of order"));
            }
            before = Some(running.key());
            if running.seq != *seq || running.computed > running.request.tokens().len() {
                return Err(format!("{seq}: {running:?}"));
            }
            if self.kv().blocks_held(*seq) < self.kv().blocks_of(running.computed) {
                return Err(format!("{seq} computed more than it holds blocks for"));
            }
            let request = &running.request;
            if self.awaits(running, request.id) {
                return Err(format!("{seq} waits for its own prefill"));
            }
            if request.unscored().is_some_and(|position| running.computed > position) {
                return Err(format!("{seq} computed prompt tokens without their rows"));
            }
            let most = self.len_limit(request).max(request.tokens().len());
            if request.tokens_and_drafts().len() > most {
                return Err(format!("{seq} has drafts past the limit of {most} tokens"));
            }
        }
        let planned: usize = self.plan.work.iter().map(|work| work.len).sum();
        if planned != self.plan.tokens() {
            return Err(format!("{planned} tokens planned, {} counted", self.plan.tokens()));
        }
        if planned > self.options.batch_tokens_max {
            return Err(format!("{planned} tokens planned, {} allowed", self.options.batch_tokens_max));
        }
        if self.plan.prompt_rows() > PROMPT_ROWS_MAX {
            return Err(format!("{} rows of prompts planned", self.plan.prompt_rows()));
        }
        if self.saved_bytes > self.options.saved_bytes_max {
            return Err(format!(
                "{} bytes saved, {} allowed",
                self.saved_bytes, self.options.saved_bytes_max
            ));
        }
        Ok(())
    }
}
