//! Seam 1: what an engine that Exsa schedules has to offer.
//!
//! [`InferenceBackend`] finds devices and loads a [`Model`]; a model makes [`Session`]s; a session holds the KV
//! of several sequences and runs forward passes over [`Batch`]es. The three are object safe, and a new backend
//! edits no file of this crate.

pub(crate) mod interrupt;

pub use crate::backend::interrupt::Interrupt;
use crate::batch::{Batch, Embeddings, Logits};
use crate::error::{KvError, LoadError, StepError};
use crate::model_info::ModelInfo;
use crate::token::SeqId;
use crate::tokenizer::Tokenizer;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
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
}

/// A loaded model: weights and tokenizer, shared by its sessions.
pub trait Model: Send + Sync {
    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// The model's tokenizer.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// Makes a session with a KV cache of its own.
    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError>;
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
/// - The result of a row depends on the tokens of its sequence alone, up to rounding: not on how they were cut
///   into spans, nor on what else is in the batch.
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

    /// Runs `batch` and lends the rows of logits it asked for, in its order.
    fn forward(&mut self, batch: &Batch) -> Result<Logits<'_>, StepError>;

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

/// What a [`Session`] can do, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Tokens that the KV cache holds over all sequences, a multiple of `block_tokens`.
    pub kv_tokens_max: usize,
    /// Tokens in a block, the unit in which KV is taken.
    pub block_tokens: usize,
    /// Sequences that can hold tokens at one time.
    pub sequences_max: usize,
    /// Tokens in one sequence.
    pub context_tokens_max: usize,
    /// Tokens in one batch.
    pub batch_tokens_max: usize,
    /// Whether [`Session::fork`] works.
    pub fork: bool,
    /// Whether [`Session::truncate`] works for lengths above 0.
    pub truncate: bool,
    /// Whether [`Session::save`] and [`Session::restore`] work.
    pub save: bool,
    /// What [`Session::embed`] makes of the tokens' vectors; `None` where it does not work.
    pub embed: Option<Pooling>,
}

/// How the vectors of a text's tokens, as the last layer leaves them, become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's, as in BERT.
    First,
    /// The last token's.
    Last,
    /// What the model's classification head makes of it: of a reranker, one number, the higher the better the text
    /// (query and document in one, as the model was trained) fits.
    Rank,
}

/// Where a model comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ModelSource {
    /// A GGUF file.
    File(PathBuf),
    /// A GGUF inside the program, as `include_bytes!` gives it.
    Embedded(&'static [u8]),
    /// A GGUF in memory.
    Memory(Arc<[u8]>),
}

impl ModelSource {
    /// A GGUF file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }
}

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Name of the device, as [`InferenceBackend::devices`] gives it; `None` takes the first.
    pub device: Option<String>,
    /// Threads for loading.
    pub threads: ThreadOptions,
}

/// How a session is made. `None` leaves the choice to the backend.
#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct SessionOptions {
    /// Sequences that can hold tokens at one time; 16 by default.
    pub sequences_max: usize,
    /// Sequences that the engine keeps for their prefix, beside these; 0 by default. They take no KV of their own, so the
    /// default of [`kv_tokens_max`](Self::kv_tokens_max) does not count them. A session that has them adds them to
    /// [`Capabilities::sequences_max`].
    pub sequences_idle_max: usize,
    /// Tokens in one sequence; the model's context length by default, and never more than it.
    pub context_tokens_max: Option<usize>,
    /// Tokens of KV over all sequences, rounded up to whole blocks; by default `context_tokens_max`, times
    /// `sequences_max` as far as [`kv_bytes_max`](Self::kv_bytes_max) allows.
    pub kv_tokens_max: Option<usize>,
    /// Bytes that the KV cache may take; 1 GiB by default. A KV cache of explicit `kv_tokens_max` that needs
    /// more is refused with [`LoadError::Memory`].
    pub kv_bytes_max: u64,
    /// Tokens in one batch; 512 by default.
    pub batch_tokens_max: usize,
    /// Threads for the forward pass.
    pub threads: ThreadOptions,
    /// What [`Session::embed`] shall do; `None` takes what the model's file says. What became of it is in
    /// [`Capabilities::embed`].
    pub pooling: Option<Pooling>,
    /// Ends a running forward pass from another thread. For sessions without an engine: an engine gives its session its own.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub interrupt: Interrupt,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            sequences_max: 16,
            sequences_idle_max: 0,
            context_tokens_max: None,
            kv_tokens_max: None,
            kv_bytes_max: 1 << 30,
            batch_tokens_max: 512,
            threads: ThreadOptions::default(),
            pooling: None,
            interrupt: Interrupt::default(),
        }
    }
}

/// Threads that a backend may use. It starts no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct ThreadOptions {
    /// Threads that compute, the calling one included; `None` is the number of physical cores that the process
    /// may use.
    pub compute: Option<NonZeroUsize>,
}

/// A device that a backend can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Name to pass in [`LoadOptions::device`]: `cpu`, `cuda:0`.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Memory of the device in bytes, where known.
    pub memory_total: Option<u64>,
    /// Memory that is free now in bytes, where known.
    pub memory_free: Option<u64>,
}

/// Kinds of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The host's processor.
    Cpu,
    /// A GPU with memory of its own.
    Gpu,
    /// A GPU that shares the host's memory.
    IntegratedGpu,
}

/// Hears how loading goes on, and can end it.
///
/// Made from a closure that takes bytes done and bytes in total and says whether to go on.
pub struct LoadProgress<'a> {
    callback: Option<&'a mut dyn FnMut(u64, u64) -> bool>,
}

impl<'a> LoadProgress<'a> {
    /// Progress that nobody listens to.
    pub fn none() -> Self {
        Self { callback: None }
    }

    /// Calls `callback(done, total)` with bytes as loading goes on; `false` ends it with
    /// [`LoadError::Cancelled`].
    pub fn new(callback: &'a mut dyn FnMut(u64, u64) -> bool) -> Self {
        Self { callback: Some(callback) }
    }

    /// For backends: tells that `done` of `total` bytes are loaded.
    pub fn report(&mut self, done: u64, total: u64) -> Result<(), LoadError> {
        let go_on = self.callback.as_mut().is_none_or(|callback| callback(done, total));
        if go_on { Ok(()) } else { Err(LoadError::Cancelled) }
    }
}

impl std::fmt::Debug for LoadProgress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadProgress").field("reported", &self.callback.is_some()).finish()
    }
}
