//! Folders, records and keys for tests.
#![allow(dead_code)]

use exsa_cache::{CacheOptions, PromptCache};
use exsa_core::TokenId;
use exsa_core::backend::Fingerprint;
use exsa_core::prompt_cache::{EntryId, PromptKey, PromptStore, SavedPrompt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A folder that is removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("exsa-cache-{name}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn options(&self) -> CacheOptions {
        CacheOptions::new(&self.0)
    }

    pub fn open(&self) -> PromptCache {
        PromptCache::open(self.options()).unwrap()
    }

    /// Names of the files.
    pub fn files(&self) -> Vec<String> {
        let mut all: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `n` tokens that depend on `seed`.
pub fn tokens(seed: u64, n: usize) -> Vec<TokenId> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as TokenId % 256
    };
    (0..n).map(|_| next()).collect()
}

pub const MODEL: Fingerprint = Fingerprint(0x1234_5678_9abc_def0);

pub fn key(tokens: &[TokenId]) -> PromptKey<'_> {
    PromptKey::new(MODEL, tokens)
}

/// A record from which its tokens can be recognized.
pub fn record(tokens: &[TokenId], bytes: usize) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).cycle().take(bytes).collect()
}

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Writes an entry and waits for it.
pub fn put(cache: &PromptCache, key: &PromptKey<'_>, bytes: usize) {
    let mut buffer = cache.buffer(bytes as u64, PATIENCE).unwrap();
    buffer.clear();
    buffer.extend(record(key.tokens, bytes));
    cache.write(SavedPrompt::new(key, buffer));
    assert!(cache.flush(PATIENCE));
}

/// The entry that has all of `key`.
pub fn entry(cache: &PromptCache, key: &PromptKey<'_>) -> Option<EntryId> {
    cache.find(key, false).filter(|found| found.tokens == key.tokens.len()).map(|found| found.entry)
}
