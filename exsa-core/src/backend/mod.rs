//! Seam 1: the interface between Exsa's engine and a backend, at the level of logits.
//!
//! [`InferenceBackend`] lists devices and loads a [`Model`]; a model makes [`Session`]s; a session holds the KV
//! of several sequences and runs forward passes over [`Batch`]es. The three are object safe, and a new backend
//! edits no file of this crate.

mod capabilities;
mod device;
mod estimate;
mod fingerprint;
pub(crate) mod interrupt;
mod kv_type;
mod options;
mod output;
mod pooling;
mod progress;
mod saved_kv;
mod source;
mod thread_team;

pub use capabilities::Capabilities;
pub use device::{DeviceInfo, DeviceKind};
pub use estimate::MemoryEstimate;
pub use fingerprint::Fingerprint;
pub use interrupt::Interrupt;
pub use kv_type::KvType;
pub use options::{LoadOptions, SessionOptions, ThreadOptions};
pub use output::{Output, RowSampling, SampledRow};
pub use pooling::Pooling;
pub use progress::LoadProgress;
pub use saved_kv::{SavedKv, read_error};
pub use source::ModelSource;
pub use thread_team::ThreadTeam;

use crate::batch::{Batch, Embeddings};
use crate::error::{KvError, LoadError, StepError};
use crate::model_info::ModelInfo;
use crate::token::{AdapterId, SeqId};
use crate::tokenizer::Tokenizer;
use std::io::{Read, Write};
use std::sync::Arc;

/// Finds devices, inspects and loads models.
///
/// # Contract
///
/// - `inspect` reads the header only: no weights, no device memory.
/// - A damaged or unsupported file is a [`LoadError`] that says what is wrong and where, never a panic, and
///   nothing of the size that a file claims is allocated before the claim was checked against its length.
/// - `load` may be called from several threads at once.
pub trait InferenceBackend: Send + Sync {
    /// Short name, as users type it: `candle`, `llamacpp`.
    fn name(&self) -> &str;

    /// The devices that this backend can run on, the preferred one first.
    fn devices(&self) -> Vec<DeviceInfo>;

    /// Describes a model without loading its weights.
    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError>;

    /// Loads a model. `progress` hears how far it is and can stop it.
    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError>;

    /// Bytes that the model of `source` and one session of it would take, by these options. Reads the header only.
    ///
    /// # Errors
    ///
    /// Those of [`inspect`](Self::inspect), and those that `load` and `session` would give for the options, such as a KV
    /// cache over its limit. [`LoadError::Unsupported`] where the backend makes no estimates, which is the default.
    fn estimate(
        &self,
        source: &ModelSource,
        load: &LoadOptions,
        session: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        let _ = (source, load, session);
        Err(LoadError::Unsupported {
            what: format!("memory estimates by backend '{}'", self.name()),
            supported: "loading the model".to_owned(),
        })
    }
}

/// A loaded model: weights and tokenizer, shared by its sessions.
pub trait Model: Send + Sync {
    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// The model's tokenizer.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// Makes a session with a KV cache of its own.
    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError>;

    /// Loads an adapter (LoRA) that spans of all sessions can use from their next pass on.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unsupported`] where the model takes no adapters by sequence, which is the default; else as for loading
    /// a model.
    fn load_adapter(&self, source: &ModelSource) -> Result<AdapterId, LoadError> {
        let _ = source;
        Err(LoadError::Unsupported {
            what: "adapters for single sequences".to_owned(),
            supported: "the model's own weights".to_owned(),
        })
    }

    /// Unloads an adapter. Passes that use it end first; later spans with it are refused. An unknown id is no error.
    fn unload_adapter(&self, id: AdapterId) {
        let _ = id;
    }
}

/// The KV of up to `sequences_max` sequences, and the forward pass.
///
/// # Contract
///
/// - Every [`SeqId`] below `sequences_max` exists from the start and is empty.
/// - `forward` appends each span's tokens to its sequence. Spans start exactly where their sequence ends; a
///   session refuses others with [`StepError::Position`] before it changes anything, and likewise ids outside
///   the vocabulary, batches over the limit, and with [`StepError::Sequence`] sequences that do not exist, have two
///   spans in the batch or would grow past `context_tokens_max`.
/// - The result of a row depends on the tokens and adapters of its sequence alone, up to rounding: not on how they were cut
///   into spans, nor on what else is in the batch. With [`Capabilities::batch_invariant`] it does so to the bit.
/// - [`Batch::validate`] makes the checks that need no knowledge of the backend.
/// - After an error from `forward` the content past each span's `position` is undefined. Core truncates every
///   sequence of the batch to its `position` (or releases it, where the session cannot truncate), and the
///   session then works on.
/// - KV is counted in blocks of `block_tokens` tokens: a sequence of `n` tokens holds `ceil(n / block_tokens)`
///   blocks, less those that it shares with another by `fork`. While the distinct blocks of all sequences fit
///   into `kv_tokens_max / block_tokens`, `forward` does not fail for want of room. Writing into a partly filled block
///   that is shared takes a block of its own first.
pub trait Session: Send {
    /// What this session can do; constant over its life.
    fn capabilities(&self) -> &Capabilities;

    /// Bytes of KV that a token takes in this session; `None`, the default, if it is as
    /// [`ModelInfo::kv_bytes_per_token`] says.
    fn kv_bytes_per_token(&self) -> Option<u64> {
        None
    }

    /// Runs `batch` and lends the rows that it asked for, in its order.
    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError>;

    /// Begins the pass over `batch` and returns without waiting for it, so that the caller can work beside the device.
    /// The next call to the session is [`finish`](Self::finish) with the same batch.
    ///
    /// The default does nothing and leaves the pass to `finish`, which is right for every session that computes on the
    /// calling thread. A session that overrides one overrides both, and its `forward` is `start` and then `finish`.
    ///
    /// # Errors
    ///
    /// As for [`forward`](Self::forward); then no pass has begun and `finish` must not be called.
    fn start(&mut self, batch: &Batch) -> Result<(), StepError> {
        let _ = batch;
        Ok(())
    }

    /// Waits for the pass that [`start`](Self::start) began over `batch` and lends its rows.
    ///
    /// # Errors
    ///
    /// As for [`forward`](Self::forward).
    fn finish(&mut self, batch: &Batch) -> Result<Output<'_>, StepError> {
        self.forward(batch)
    }

    /// Samples rows of the last pass where they lie and appends one token for each to `out`. Only where
    /// [`Capabilities::device_sampling`] says so; such a session may leave rows on the device ([`Output::device`]).
    ///
    /// The draw is the one of the host's sampler: the same (seed, position) and logits give the same token, but for ties
    /// within rounding.
    ///
    /// # Errors
    ///
    /// [`StepError::Unsupported`], the default; [`StepError::Backend`] for rows that do not exist or hold no finite logit.
    fn sample(&mut self, rows: &[RowSampling], out: &mut Vec<SampledRow>) -> Result<(), StepError> {
        let _ = (rows, out);
        Err(StepError::Unsupported("sample"))
    }

    /// Computes one vector for each span of `batch`, in its order, and lends them. Only where
    /// [`Capabilities::embed`] says so.
    ///
    /// A span is a whole text: it starts at position 0 of an empty sequence, and its `rows` do not matter. The limits of
    /// `forward` hold, and its errors; afterwards, with or without an error, the sequences are empty again. Vectors
    /// are as the model gives them, not scaled to length 1.
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        let _ = batch;
        Err(StepError::Unsupported("embed"))
    }

    /// Empties `seq`. An id that is empty, or out of range, is no error.
    fn release(&mut self, seq: SeqId);

    /// Makes the empty sequence `to` hold the first `len` tokens of `from`, without computing them again.
    /// Only where [`Capabilities::fork`] says so.
    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        let _ = (from, to, len);
        Err(KvError::Unsupported("fork"))
    }

    /// Forgets all but the first `len` tokens of `seq`. Only where [`Capabilities::truncate`] says so.
    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        let _ = (seq, len);
        Err(KvError::Unsupported("truncate"))
    }

    /// Records the state of `seq` at its current length, so that [`truncate`](Self::truncate) and [`fork`](Self::fork) work
    /// at that length too: for recurrent models, whose state cannot be truncated elsewhere. The oldest of
    /// [`Capabilities::checkpoints_max`] is dropped for a new one. Only where that is above 0.
    ///
    /// # Errors
    ///
    /// [`KvError::Unsupported`], the default; [`KvError::Sequence`] for a sequence that does not exist.
    fn checkpoint(&mut self, seq: SeqId) -> Result<(), KvError> {
        let _ = seq;
        Err(KvError::Unsupported("checkpoint"))
    }

    /// Writes the KV of `seq` so that [`restore`](Self::restore) can read it. Only where
    /// [`Capabilities::save`] says so.
    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        let _ = (seq, to);
        Err(KvError::Unsupported("save"))
    }

    /// Fills the empty sequence `seq` from what `save` wrote, for the same model; returns its length in tokens.
    /// After an error it is empty still. Only where [`Capabilities::save`] says so.
    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        let _ = (seq, from);
        Err(KvError::Unsupported("restore"))
    }
}
