//! The interface between Exsa's engine and a backend, at the level of logits.
//!
//! [`InferenceBackend`] lists devices and loads a [`Model`]; a model creates [`Session`]s; a session holds
//! the KV of several sequences and runs forward passes over [`Batch`]es. The three traits are object-safe,
//! and a new backend does not change this crate.

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
/// - For a damaged or unsupported file, `inspect` and `load` return a [`LoadError`] that says what is wrong
///   and where; they never panic. A size stated by the file is checked against the file's length before
///   memory is allocated for it.
/// - `load` may be called from several threads at once.
pub trait InferenceBackend: Send + Sync {
    /// Short name for user input: `candle`, `llamacpp`.
    fn name(&self) -> &str;

    /// The devices that this backend can run on, the preferred device first.
    fn devices(&self) -> Vec<DeviceInfo>;

    /// Reads the metadata of a model without loading its weights.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is damaged or is not a supported model.
    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError>;

    /// Loads a model. `progress` receives the bytes loaded so far and can cancel loading.
    ///
    /// # Errors
    ///
    /// Those of [`inspect`](Self::inspect); an invalid option, too little memory, or
    /// [`LoadError::Cancelled`].
    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError>;

    /// Creates the packed cache of the model in `source` if `options` request it and it does not exist yet,
    /// for later loads by processes that can read but not write it, such as sandboxed workers. If the file
    /// cannot be written, the failure is logged and the result is `Ok`. The default implementation, for
    /// backends without a packed cache, does nothing.
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

    /// Estimates the memory of the model in `source` and of one session with these options, in bytes. Reads
    /// the header only.
    ///
    /// # Errors
    ///
    /// Those of [`inspect`](Self::inspect), and those of `load` and `session` for the options, such as a KV
    /// cache over its limit. [`LoadError::Unsupported`] if the backend makes no estimates, as in the default
    /// implementation.
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
    /// Metadata of the model.
    fn info(&self) -> &ModelInfo;

    /// The model's tokenizer.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// Identifies the weights, so that an answer is continued only with the same weights. The default
    /// implementation hashes [`info`](Self::info) alone; backends add a sample of the weights.
    fn fingerprint(&self) -> Fingerprint {
        self.info().fingerprint()
    }

    /// Creates a session with its own KV cache.
    ///
    /// # Errors
    ///
    /// [`LoadError::Option`] for an invalid option, [`LoadError::Memory`] if the KV cache exceeds its limit.
    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError>;

    /// Loads a LoRA adapter. Spans of all sessions can use it from their next pass on. May be called while
    /// passes run, and from several threads at once.
    ///
    /// # Errors
    ///
    /// [`LoadError::Unsupported`] if the model has no per-sequence adapters, which is the default;
    /// [`LoadError::Adapter`] if it belongs to another model, is damaged or exceeds a limit; otherwise the
    /// errors of loading a model.
    fn load_adapter(&self, source: &ModelSource, limits: &AdapterLimits) -> Result<AdapterInfo, LoadError> {
        let _ = (source, limits);
        Err(LoadError::Unsupported {
            what: "adapters for single sequences".to_owned(),
            supported: "the model's own weights".to_owned(),
        })
    }

    /// Unloads an adapter. Running passes that use it finish first; later spans with it are refused. An
    /// unknown id is not an error.
    fn unload_adapter(&self, id: AdapterId) {
        let _ = id;
    }
}

/// The KV cache of up to `sequences_max` sequences, and the forward pass over them.
///
/// # Contract
///
/// - Every [`SeqId`] below `sequences_max` exists from the start and is empty.
/// - `forward` appends each span's tokens to its sequence. Spans start exactly where their sequence ends.
///   Before it changes any state, a session refuses other positions ([`StepError::Position`]), ids outside
///   the vocabulary ([`StepError::InvalidToken`]), batches over the limit ([`StepError::BatchTooLarge`]), and
///   sequences that do not exist, have two spans in the batch or would grow past `context_tokens_max`
///   ([`StepError::Sequence`]).
/// - Up to rounding, a row of logits depends only on the tokens and adapters of its sequence: not on the
///   division into spans, nor on the rest of the batch. With [`Capabilities::batch_invariant`] this holds bit
///   for bit.
/// - [`Batch::validate`] does the checks that do not depend on the backend.
/// - After an error from `forward` the content past each span's `position` is undefined.
///   Core truncates every sequence of the batch to its `position` (or releases it, if
///   the session cannot truncate), and the session then continues to work.
/// - KV is counted in blocks of `block_tokens` tokens: a sequence of `n` tokens holds `ceil(n /
///   block_tokens)` blocks, less those that it shares with another sequence by `fork`. While the distinct
///   blocks of all sequences fit into `kv_tokens_max / block_tokens`, `forward` does not fail for lack of
///   space. Writing to a shared, partly filled block first copies it to a new block.
pub trait Session: Send {
    /// Abilities and limits of this session; constant over its life.
    fn capabilities(&self) -> &Capabilities;

    /// Bytes of KV per token in this session; `None`, the
    /// default, if it equals [`ModelInfo::kv_bytes_per_token`].
    fn kv_bytes_per_token(&self) -> Option<u64> {
        None
    }

    /// Runs a forward pass over `batch` and lends the requested rows of logits, in batch order.
    ///
    /// # Errors
    ///
    /// The reason why the pass failed or was refused; see the contract for the state of the sequences.
    fn forward(&mut self, batch: &Batch) -> Result<Output<'_>, StepError>;

    /// Begins the pass over `batch` and returns without waiting for it, so that the caller can overlap
    /// work with the device. The next call to the session is [`finish`](Self::finish) with the same batch.
    ///
    /// The default implementation does nothing and leaves the pass to `finish`, which is right for every
    /// session that computes on the calling thread. A session that overrides `start` also overrides `finish`,
    /// and its `forward` is `start` followed by `finish`.
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
    /// The draw equals that of the host's sampler: the same seed, position and logits yield the same token,
    /// except for ties within rounding.
    ///
    /// # Errors
    ///
    /// [`StepError::Unsupported`] in the default implementation; [`StepError::Backend`] for rows that do not
    /// exist or hold no finite logit.
    fn sample(&mut self, rows: &[RowSampling], out: &mut Vec<SampledRow>) -> Result<(), StepError> {
        let _ = (rows, out);
        Err(StepError::Unsupported("sample"))
    }

    /// Computes and lends one vector per span of `batch`, in batch order. Requires [`Capabilities::embed`].
    ///
    /// Each span is a whole text: it starts at position 0 of an empty sequence, and its `rows` are ignored.
    /// The limits and errors of `forward` apply. Afterwards, also after an error, the sequences are empty
    /// again. Vectors are the model's raw output, not normalized to length 1.
    fn embed(&mut self, batch: &Batch) -> Result<Embeddings<'_>, StepError> {
        let _ = batch;
        Err(StepError::Unsupported("embed"))
    }

    /// Empties `seq`. An empty sequence or an id out of range is not an error.
    fn release(&mut self, seq: SeqId);

    /// Makes the empty sequence `to` hold the first `len` tokens of `from`, without recomputation. Requires
    /// [`Capabilities::fork`].
    ///
    /// # Errors
    ///
    /// [`KvError::Unsupported`] in the default implementation; [`KvError::Sequence`] for an invalid id or a
    /// target that is not empty; [`KvError::Length`] if `from` holds fewer than `len` tokens.
    fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        let _ = (from, to, len);
        Err(KvError::Unsupported("fork"))
    }

    /// Removes all but the first `len` tokens of `seq`. Requires [`Capabilities::truncate`].
    ///
    /// # Errors
    ///
    /// [`KvError::Unsupported`] in the default implementation; [`KvError::Sequence`] for an invalid id;
    /// [`KvError::Length`] if `seq` holds fewer than `len` tokens.
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
    /// [`KvError::Unsupported`] in the default implementation; [`KvError::Sequence`] for a sequence that does
    /// not exist.
    fn checkpoint(&mut self, seq: SeqId) -> Result<(), KvError> {
        let _ = seq;
        Err(KvError::Unsupported("checkpoint"))
    }

    /// Writes the KV of `seq` in a form that [`restore`](Self::restore) reads. Requires
    /// [`Capabilities::save`].
    ///
    /// # Errors
    ///
    /// [`KvError::Unsupported`] in the default implementation; [`KvError::Sequence`] for an invalid id;
    /// errors of `to`.
    fn save(&self, seq: SeqId, to: &mut dyn Write) -> Result<(), KvError> {
        let _ = (seq, to);
        Err(KvError::Unsupported("save"))
    }

    /// Fills the empty sequence `seq` from the output of `save` for the same model; returns its length in
    /// tokens. After an error, the sequence is still empty. Requires [`Capabilities::save`].
    ///
    /// # Errors
    ///
    /// [`KvError::Unsupported`] in the default implementation; [`KvError::Format`] for KV of another model or
    /// session, or for damaged data; [`KvError::Full`] if the KV cache has too little space; errors of
    /// `from`.
    fn restore(&mut self, seq: SeqId, from: &mut dyn Read) -> Result<usize, KvError> {
        let _ = (seq, from);
        Err(KvError::Unsupported("restore"))
    }
}
