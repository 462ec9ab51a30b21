//! The interface to a store of saved prompts.

use super::ReadReply;
use crate::backend::Fingerprint;
use crate::schedule::prefix::Namespace;
use crate::token::TokenId;
use std::fmt;
use std::time::Duration;

/// Keeps saved KV of prompts for engines.
///
/// # Contract
///
/// - Engines call all methods on their step thread. No method may wait for a disk or a network, apart from
///   `buffer` with a `wait` above zero.
/// - Keys are equal only if fingerprint, adapter, salt and tokens are equal.
/// - A record is opaque. The engine checks that a record is undamaged and belongs to the model, adapter and
///   salt, and reads the tokens from the record itself, so a store that returns the wrong record costs time
///   but never causes a wrong answer.
pub trait PromptStore: Send + Sync + fmt::Debug {
    /// The entry that shares the longest prefix with `key`, as far as an in-memory lookup can tell. With
    /// `whole`, only entries whose tokens as a whole are a prefix of the key's tokens.
    fn find(&self, key: &PromptKey<'_>, whole: bool) -> Option<StoredPrefix>;

    /// Starts reading an entry, which may no longer exist. The store sends the result to `reply` from any
    /// thread; dropping the reply counts as a failure.
    fn read(&self, entry: EntryId, reply: ReadReply);

    /// An empty buffer for a record of about `bytes` bytes. `None` if the store cannot accept a record within
    /// `wait`.
    fn buffer(&self, bytes: u64, wait: Duration) -> Option<Vec<u8>>;

    /// Accepts a record, to be written in the background.
    fn write(&self, prompt: SavedPrompt);

    /// Reports that the engine refused the record of an entry, because it is damaged or belongs to another
    /// model. The store should not return it again.
    fn refused(&self, entry: EntryId, reason: &str);
}

/// Identifies an entry of a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub [u8; 16]);

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({self})")
    }
}

/// Identity of KV: model, adapter, salt and tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PromptKey<'a> {
    /// Identifies the model and the KV types.
    pub fingerprint: Fingerprint,
    /// Key of the adapters that computed the KV, with their names, weights and scales; `None` for the model
    /// alone.
    pub adapter: Option<&'a str>,
    /// The request's [`cache_salt`](crate::Request::cache_salt).
    pub salt: Option<&'a str>,
    /// The tokens.
    pub tokens: &'a [TokenId],
}

impl<'a> PromptKey<'a> {
    /// The key of `tokens` without adapter and salt.
    pub fn new(fingerprint: Fingerprint, tokens: &'a [TokenId]) -> Self {
        Self { fingerprint, adapter: None, salt: None, tokens }
    }

    /// Sets the adapter.
    #[must_use]
    pub fn adapter(mut self, adapter: impl Into<Option<&'a str>>) -> Self {
        self.adapter = adapter.into();
        self
    }

    /// Sets the salt.
    #[must_use]
    pub fn salt(mut self, salt: impl Into<Option<&'a str>>) -> Self {
        self.salt = salt.into();
        self
    }

    pub(crate) fn of(fingerprint: Fingerprint, namespace: &'a Namespace, tokens: &'a [TokenId]) -> Self {
        let (adapter, salt) = (namespace.adapter.as_deref(), namespace.salt.as_deref());
        Self { fingerprint, adapter, salt, tokens }
    }
}

impl fmt::Debug for PromptKey<'_> {
    /// Omits tokens and salt, which are user data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromptKey")
            .field("fingerprint", &self.fingerprint)
            .field("adapter", &self.adapter)
            .field("tokens", &self.tokens.len())
            .finish_non_exhaustive()
    }
}

/// An entry that shares a prefix with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPrefix {
    /// The entry.
    pub entry: EntryId,
    /// Number of common tokens known without reading; the entry may share more.
    pub tokens: usize,
    /// Bytes to read.
    pub bytes: u64,
}

impl StoredPrefix {
    /// The first `tokens` tokens of an entry of `bytes` bytes.
    pub fn new(entry: EntryId, tokens: usize, bytes: u64) -> Self {
        Self { entry, tokens, bytes }
    }
}

/// A prompt whose KV was saved.
#[derive(Clone)]
#[non_exhaustive]
pub struct SavedPrompt {
    /// Identifies the model and the KV types.
    pub fingerprint: Fingerprint,
    /// Key of the adapters that computed the KV; `None` for the model alone.
    pub adapter: Option<String>,
    /// The salt of the request.
    pub salt: Option<String>,
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// Whether the session can use parts of entries, so that a longer entry also serves its prefixes.
    pub truncates: bool,
    /// The record, in a buffer from the store.
    pub record: Vec<u8>,
}

impl SavedPrompt {
    /// A record for `key`, of a session that can use parts of entries.
    pub fn new(key: &PromptKey<'_>, record: Vec<u8>) -> Self {
        Self {
            fingerprint: key.fingerprint,
            adapter: key.adapter.map(str::to_owned),
            salt: key.salt.map(str::to_owned),
            tokens: key.tokens.to_vec(),
            truncates: true,
            record,
        }
    }

    /// Sets whether the session can use parts of entries.
    #[must_use]
    pub fn truncates(mut self, truncates: bool) -> Self {
        self.truncates = truncates;
        self
    }

    /// The key.
    pub fn key(&self) -> PromptKey<'_> {
        PromptKey {
            fingerprint: self.fingerprint,
            adapter: self.adapter.as_deref(),
            salt: self.salt.as_deref(),
            tokens: &self.tokens,
        }
    }
}

impl fmt::Debug for SavedPrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedPrompt")
            .field("key", &self.key())
            .field("truncates", &self.truncates)
            .field("bytes", &self.record.len())
            .finish()
    }
}
