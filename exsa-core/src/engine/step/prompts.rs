//! Prompt store: completed reads are restored into the prefix cache, and cold prefixes are saved to the
//! store.

use super::EngineLoop;
use crate::backend::Fingerprint;
use crate::error::KvError;
use crate::prompt_cache::{
    EntryId, PromptKey, PromptStore, ReadEnd, ReadReply, SavedPrompt, read_record, write_record,
};
use crate::schedule::kv::ColdKv;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The engine's side of a prompt store.
pub(super) struct Prompts {
    pub(super) store: Arc<dyn PromptStore>,
    pub(super) fingerprint: Fingerprint,
    pub(super) shutdown_wait: Duration,
    /// Completed reads. Each step restores at most one, to limit the time added to a step.
    pub(super) ended: VecDeque<ReadEnd>,
}

impl EngineLoop {
    /// Starts the reads of the plan.
    pub(super) fn begin_reads(&mut self) {
        let Some(prompts) = &self.prompts else { return };
        for &entry in &self.scheduler.last_plan().reads {
            prompts.store.read(entry, ReadReply::new(entry, self.input.mailbox.clone()));
        }
    }

    /// Records the end of a read.
    pub(super) fn prompt_read(&mut self, end: ReadEnd) {
        let Some(prompts) = &mut self.prompts else { return };
        if let Ok((record, elapsed)) = &end.result {
            self.scheduler.observe_read(record.len() as u64, *elapsed);
        }
        prompts.ended.push_back(end);
    }

    /// Restores the next prompt that was read and resumes the requests that wait for it. Returns whether
    /// there was one.
    pub(super) fn restore_prompt(&mut self) -> bool {
        let Some(ReadEnd { entry, result }) =
            self.prompts.as_mut().and_then(|prompts| prompts.ended.pop_front())
        else {
            return false;
        };
        let start = self.clock.now();
        let restored = match result {
            Ok((record, _)) => self.restore_record(entry, &record),
            Err(reason) => Err(KvError::Backend(reason)),
        };
        let now = self.clock.now();
        let stats = &mut self.recorder.stats.prompt_cache;
        match restored {
            Ok(0) => stats.unused += 1,
            Ok(tokens) => {
                stats.restored += 1;
                stats.restored_tokens += tokens as u64;
                self.scheduler.observe_transfer(tokens, now.saturating_sub(start));
            }
            Err(error) => {
                stats.failed += 1;
                if let (KvError::Format(reason), Some(prompts)) = (&error, &self.prompts) {
                    prompts.store.refused(entry, reason);
                }
            }
        }
        self.recorder.stats.prompt_cache.time += now.saturating_sub(start);
        self.scheduler.read_ended(entry, now);
        true
    }

    /// Restores a record into an idle sequence. Returns the number of restored tokens; 0 if no request waits
    /// for the record any more.
    fn restore_record(&mut self, entry: EntryId, record: &[u8]) -> Result<usize, KvError> {
        let (Some(prompts), Some(namespace)) = (&self.prompts, self.scheduler.awaited(entry)) else {
            return Ok(0);
        };
        let (mut tokens, mut kv) = read_record(record, prompts.fingerprint, &namespace)?;
        let Some(seq) = self.scheduler.lend(tokens.len()) else {
            return Err(KvError::Backend("the KV cache currently has no space for it".to_owned()));
        };
        // Evictions that free the blocks.
        self.apply_kv_ops();
        let restored = match self.session.restore(seq, &mut kv) {
            Ok(len) if len == tokens.len() => Ok(()),
            Ok(len) => {
                Err(KvError::Format(format!("{len} tokens of KV, but {} tokens in the record", tokens.len())))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = restored {
            self.scheduler.take_back(seq);
            self.apply_kv_ops();
            return Err(error);
        }
        tokens.truncate(self.scheduler.cut_restored(entry, seq, &tokens));
        self.scheduler.cache_restored(seq, &namespace, &tokens);
        self.apply_kv_ops();
        Ok(tokens.len())
    }

    /// Saves the sequence of the next store operation, if the store does not have it yet and accepts it.
    pub(super) fn store_prompt(&mut self) {
        let Some((kv, lacking)) = self.scheduler.take_cold() else { return };
        if lacking && !self.save_prompt(&kv, Duration::ZERO) {
            self.scheduler.offer_again(kv.seq, self.clock.now());
        }
    }

    /// Saves all prefixes missing in the store, waiting for room in its queue. Returns their number.
    pub(super) fn save_prompts(&mut self) -> usize {
        let Some(wait_max) = self.prompts.as_ref().map(|prompts| prompts.shutdown_wait) else { return 0 };
        let start = self.clock.now();
        let mut saved = 0;
        for kv in self.scheduler.take_all_cold() {
            let waited = self.clock.now().saturating_sub(start);
            if self.save_prompt(&kv, wait_max.saturating_sub(waited)) {
                saved += 1;
            } else {
                self.scheduler.offer_again(kv.seq, self.clock.now());
            }
        }
        saved
    }

    /// Saves one sequence. Returns `false` if the store does not accept it within `wait`, or if the session
    /// fails.
    fn save_prompt(&mut self, kv: &ColdKv, wait: Duration) -> bool {
        let Some(prompts) = &self.prompts else { return false };
        let bytes = self.scheduler.bytes_of(kv.tokens.len());
        let stats = &mut self.recorder.stats.prompt_cache;
        let Some(mut record) = prompts.store.buffer(bytes, wait) else {
            stats.unsaved += 1;
            return false;
        };
        let start = self.clock.now();
        record.clear();
        // KV, tokens and headers, reserved at once: growing a large buffer step by step would copy it
        // repeatedly.
        let room = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(kv.tokens.len() * 4 + 256);
        if record.try_reserve(room).is_err() {
            stats.unsaved += 1;
            return false;
        }
        write_record(&mut record, prompts.fingerprint, &kv.namespace, &kv.tokens);
        if self.session.save(kv.seq, &mut record).is_err() {
            stats.unsaved += 1;
            return false;
        }
        let elapsed = self.clock.now().saturating_sub(start);
        self.scheduler.observe_transfer(kv.tokens.len(), elapsed);
        stats.saved += 1;
        stats.saved_bytes += record.len() as u64;
        stats.time += elapsed;
        let key = PromptKey::of(prompts.fingerprint, &kv.namespace, &kv.tokens);
        let truncates = self.session.capabilities().truncate;
        prompts.store.write(SavedPrompt::new(&key, record).truncates(truncates));
        true
    }
}
