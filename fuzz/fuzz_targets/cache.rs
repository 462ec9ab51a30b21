//! Files of the prompt cache from any bytes: read, or refused with words.
#![no_main]

use exsa_cache::{CacheKey, CacheOptions, EntryFile, PromptCache};
use exsa_core::backend::Fingerprint;
use exsa_core::prompt_cache::{PromptKey, PromptStore, SavedPrompt};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::Duration;

fn key() -> CacheKey {
    CacheKey::new([7; 32])
}

/// Sound files without and with a key, of 64, 100 and 1,000 tokens.
static FILES: LazyLock<Vec<(bool, Vec<u8>)>> = LazyLock::new(|| {
    let mut files = Vec::new();
    for encrypted in [false, true] {
        let folder = std::env::temp_dir().join(format!("exsa-fuzz-cache-{}-{encrypted}", std::process::id()));
        let options = CacheOptions::new(&folder).key(encrypted.then(key));
        let cache = PromptCache::open(options).expect("a folder");
        for tokens in [64, 100, 1000] {
            let tokens: Vec<u32> = (0..tokens).collect();
            let prompt = PromptKey::new(Fingerprint(1), &tokens);
            cache.write(SavedPrompt::new(&prompt, vec![3; tokens.len()]).truncates(false));
            assert!(cache.flush(Duration::from_secs(60)));
        }
        for entry in cache.list() {
            let mut bytes = Vec::new();
            cache.export(entry.id, &mut bytes).expect("an entry");
            files.push((encrypted, bytes));
        }
        std::fs::remove_dir_all(&folder).expect("the folder goes");
    }
    files
});

fn run(data: &mut Unstructured<'_>) -> Result<()> {
    let (encrypted, sound) = data.choose(&FILES)?;
    let mut bytes = if data.ratio(7, 8)? { sound.clone() } else { Vec::new() };
    for _ in 0..data.int_in_range(0..=4)? {
        if bytes.is_empty() {
            break;
        }
        // Header and index are where it pays.
        let end = if data.arbitrary()? { bytes.len().min(152) } else { bytes.len() };
        let at = data.choose_index(end)?;
        bytes[at] = data.arbitrary()?;
    }
    if data.ratio(1, 4)? && !bytes.is_empty() {
        bytes.truncate(data.choose_index(bytes.len())?);
    }
    bytes.extend_from_slice(data.bytes(data.len())?);
    // A file may change its length while it is read.
    let length = if data.ratio(1, 8)? { data.arbitrary()? } else { bytes.len() as u64 };
    let key = encrypted.then(key);
    match EntryFile::read(&mut bytes.as_slice(), length, key.as_ref()) {
        Ok((file, record)) => {
            assert!(bytes.starts_with(sound), "only a sound file has its tags");
            assert!(file.tokens >= 64 && record.len() as u64 == file.tokens);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Too little data for a case is no case.
    let _ = run(&mut Unstructured::new(data));
});
