//! Applies planned KV operations to the session: fork, truncate, release, save, restore.

use super::EngineLoop;
use crate::error::KvError;
use crate::schedule::kv::KvOp;
use crate::token::RequestId;
use crate::token::SeqId;

impl EngineLoop {
    /// Applies the pending operations. If one fails, its sequence's request is requeued.
    pub(super) fn apply_kv_ops(&mut self) {
        loop {
            self.scheduler.drain_ops(&mut self.ops);
            if self.ops.is_empty() {
                return;
            }
            let mut ops = std::mem::take(&mut self.ops);
            for op in ops.drain(..) {
                self.do_op(op);
            }
            self.ops = ops;
        }
    }

    fn do_op(&mut self, op: KvOp) {
        let now = self.clock.now();
        let (seq, done) = match op {
            KvOp::Release(seq) => return self.session.release(seq),
            KvOp::Discard(id) => {
                self.saved.remove(&id);
                return;
            }
            KvOp::Store(_) => return self.store_prompt(),
            KvOp::Save { id, seq, len } => {
                if self.save(id, seq, len).is_err() {
                    self.saved.remove(&id);
                    self.scheduler.forget_saved(id, now);
                }
                return;
            }
            KvOp::Truncate { seq, len } => (seq, self.session.truncate(seq, len)),
            KvOp::Fork { from, to, len } => (to, self.session.fork(from, to, len)),
            KvOp::Restore { id, seq, len } => (seq, self.restore(id, seq, len)),
        };
        if done.is_err() {
            self.scheduler.kv_op_failed(seq, now);
        }
    }

    fn save(&mut self, id: RequestId, seq: SeqId, len: usize) -> Result<(), KvError> {
        let start = self.clock.now();
        let saved = self.saved.entry(id).or_default();
        saved.clear();
        saved.reserve_exact(usize::try_from(self.scheduler.bytes_of(len)).unwrap_or(0));
        self.session.save(seq, saved)?;
        self.scheduler.observe_transfer(len, self.clock.now().saturating_sub(start));
        Ok(())
    }

    fn restore(&mut self, id: RequestId, seq: SeqId, len: usize) -> Result<(), KvError> {
        let start = self.clock.now();
        let saved = self.saved.remove(&id).unwrap_or_default();
        let restored = self.session.restore(seq, &mut saved.as_slice())?;
        if restored != len {
            return Err(KvError::Format(format!("{restored} tokens restored, {len} were saved")));
        }
        self.scheduler.observe_transfer(len, self.clock.now().saturating_sub(start));
        Ok(())
    }
}
