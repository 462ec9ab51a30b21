//! Seam 1: the interface between Exsa's engine and a backend, at the level of logits.
//!
//! [`InferenceBackend`] lists devices and loads a [`Model`]; a model creates [`Session`]s;
//! a session holds the KV of several sequences and runs forward passes over [`Batch`]es.
//! The three traits are object safe, and a new backend edits no file of this crate.

mod adapter;
pub(crate) mod capabilities;
mod device;
mod estimate;
mod fingerprint;
pub(crate) mod interrupt;
mod kv_type;
mod options;
mod output;
mod packed_cache;
mod pooling;
mod progress;
mod saved_kv;
pub(crate) mod source;
mod thread_team;

pub use adapter::{AdapterInfo, AdapterLimits};
pub use capabilities::Capabilities;
pub use device::{DeviceInfo, DeviceKind};
pub use estimate::MemoryEstimate;
pub use fingerprint::Fingerprint;
pub use interrupt::Interrupt;
pub use kv_type::KvType;
pub use options::{LoadOptions, SessionOptions, ThreadOptions};
pub use output::{Output, RowSampling, SampledRow};
pub use packed_cache::{PackedCache, PackedCheck, WeightPages};
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
/// - A damaged or unsupported file is a [`LoadError`] that says what is wrong and where, never a
///   panic. No size claimed by a file is allocated before it is checked against the file's length.
/// - `load` may be called from several threads at once.
pub trait InferenceBackend: Send + Sync {
    /// Short name for user input: `candle`, `llamacpp`.
    fn name(&self) -> &str;

    /// The devices that this backend can run on, the preferred device first.
    fn devices(&self) -> Vec<DeviceInfo>;

    /// Describes a model without loading its weights.
    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError>;

    /// Loads a model. `progress` is informed of the bytes loaded and can cancel the load.
    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError>;

    /// Writes the packed cache of the model of `source` where `options` ask for one and it is not there, so
    /// that loads with these options find it: for processes that may read it and not write it, such as
    /// workers in a sandbox. A cache that cannot be written is logged and no error. Backends without one,
    /// which is the default, do nothing.
    ///
    /// # Errors
    ///
    /// Those of [`load`](Self::load).
    fn prepare(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<(), LoadError> {
        let _ = (source, options, progress);
        Ok(())
    }

    /// Estimates the bytes of the model of `source` and one
    /// session of it with these options. Reads the header only.
    ///
    /// # Errors
    ///
    /// Those of [`inspect`](Self::inspect), and those of `load` and `session` for
    /// the options, such as a KV cache over its limit. [`LoadError::Unsupported`]
    /// if the backend makes no estimates, which is the default.
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
    /// Facts about the model.
    fn info(&self) -> &ModelInfo;

    /// The model's tokenizer.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// Identifies the weights, so that answers are continued only where these are the same. The default knows
    /// no more than [`info`](Self::info); backends add a sample of the weights.
    fn fingerprint(&self) -> Fingerprint {
        self.info().fingerprint()
    }

    /// Creates a session with a KV cache of its own.
    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError>;

    /// Loads an adapter (LoRA) that spans of all sessions can use from their next pass on. May be called
    /// while passes run, from several threads at once.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unsupported`] if the model has no per-sequence adapters, which is the default;
    /// [`LoadError::Adapter`] if it is none of this model, damaged, or beyond a limit; else as for loading a
    /// model.
    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        let _ = (source, limits);
        Err(LoadError::Unsupported {
            what: "adapters for single sequences".to_owned(),
            supported: "the model's own weights".to_owned(),
        })
    }

    /// Unloads an adapter. Running passes that use it finish first;
    /// later spans with it are refused. An unknown id is no error.
    fn unload_adapter(&self, id: AdapterId) {
        let _ = id;
    }
}

/// The KV of up to `sequences_max` sequences, and the forward pass.
///
/// # Contract
///
/// - Every [`SeqId`] below `sequences_max` exists from the start and is empty.
/// - `forward` appends each span's tokens to its sequence. Spans start exactly where their sequence
///   ends. Before it changes anything, a session refuses other positions with [`StepError::Position`];
///   ids outside the vocabulary; batches over the limit; and with [`StepError::Sequence`], sequences
///   that do not exist, have two spans in the batch or would grow past `context_tokens_max`.
/// - The result of a row depends on the tokens and adapters of its sequence
///   alone, up to rounding: not on the cut into spans, nor on the rest of the
///   batch. With [`Capabilities::batch_invariant`] this holds to the bit.
/// - [`Batch::validate`] does the checks that do not depend on the backend.
/// - After an error from `forward` the content past each span's `position` is undefined.
///   Core truncates every sequence of the batch to its `position` (or releases it, if
///   the session cannot truncate), and the session then continues to work.
/// - KV is counted in blocks of `block_tokens` tokens: a sequence of `n` tokens holds
///   `ceil(n / block_tokens)` blocks, less those that it shares with another sequence by `fork`. While
///   the distinct blocks of all sequences fit into `kv_tokens_max / block_tokens`, `forward` does not
///   fail for want of room. Writing into a shared, partly filled block first takes a block of its own.
pub trait Session: Send {
    /// Abilities and limits of this session; constant over its life.
    fn capabilities(&self) -> &Capabilities;

    /// Bytes of KV per token in this session; `None`, the
    /// default, if it equals [`ModelInfo::kv_bytes_per_token`].
    fn kv_bytes_per_token(&self) -> Option<u64> {
        None
    }

    /// Runs `batch` and lends the rows that it requests, in batch order.
    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError>;

    /// Begins the pass over `batch` and returns without waiting for it, so that the caller can overlap
    /// work with the device. The next call to the session is [`finish`](Self::finish) with the same batch.
    ///
    /// The default does nothing and leaves the pass to `finish`, which is right for every
    /// session that computes on the calling thread. A session that overrides `start` also
    /// overrides `finish`, and its `forward` is `start` followed by `finish`.
    ///
    /// # Errors
    ///
    /// As for [`forward`](Self::forward); after an error no pass has begun and `finish` must not be called.
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

    /// Samples rows of the last pass on the device and appends one token per row to `out`. Requires
    /// [`Capabilities::device_sampling`]; such a session may leave rows on the device ([`Output::device`]).
    ///
    /// The draw is that of the host's sampler: the same (seed, position)
    /// and logits give the same token, except for ties within rounding.
    ///
    /// # Errors
    ///
    /// [`StepError::Unsupported`], the default; [`StepError::Backend`]
    /// for rows that do not exist or hold no finite logit.
    fn sample(&mut self, rows: &[RowSampling], out: &mut Vec<SampledRow>) -> Result<(), StepError> {
        let _ = (rows, out);
        Err(StepError::Unsupported("sample"))
    }

    /// Computes and lends one vector per span of `batch`, in batch order. Requires [`Capabilities::embed`].
    ///
    /// A span is a whole text: it starts at position 0 of an empty sequence, and its `rows` do
    /// not matter. The limits and errors of `forward` apply; afterwards, with or without an
    /// error, the sequences are empty again. Vectors are the model's own, not scaled to length 1.
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        let _ = batch;
        Err(StepError::Unsupported("embed"))
    }

    /// Empties `seq`. An id that is empty, or out of range, is no error.
    fn release(&mut self, seq: SeqId);

    /// Makes the empty sequence `to` hold the first `len` tokens of
    /// `from`, without recomputation. Requires [`Capabilities::fork`].
    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        let _ = (from, to, len);
        Err(KvError::Unsupported("fork"))
    }

    /// Forgets all but the first `len` tokens of `seq`. Requires [`Capabilities::truncate`].
    fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        let _ = (seq, len);
        Err(KvError::Unsupported("truncate"))
    }

    /// Records the state of `seq` at its current length, so that [`truncate`](Self::truncate)
    /// and [`fork`](Self::fork) work at that length too: for recurrent models, whose state
    /// cannot be truncated elsewhere. Past [`Capabilities::checkpoints_max`], the oldest
    /// checkpoint is dropped. Requires that limit to be above 0.
    ///
    /// # Errors
    ///
    /// [`KvError::Unsupported`], the default; [`KvError::Sequence`] for a sequence that does not exist.
    fn checkpoint(&mut self, seq: SeqId) -> Result<(), KvError> {
        let _ = seq;
        Err(KvError::Unsupported("checkpoint"))
    }

    /// Writes the KV of `seq` so that [`restore`](Self::restore)
    /// can read it. Requires [`Capabilities::save`].
    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        let _ = (seq, to);
        Err(KvError::Unsupported("save"))
    }

    /// Fills the empty sequence `seq` from the output of `save` for the same model; returns its
    /// length in tokens. After an error it is still empty. Requires [`Capabilities::save`].
    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        let _ = (seq, from);
        Err(KvError::Unsupported("restore"))
    }
}
