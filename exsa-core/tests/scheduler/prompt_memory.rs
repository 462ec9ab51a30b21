//! The prompt store in memory: finds the longest common prefix, and stays within its limit of bytes.

use exsa_core::TokenId;
use exsa_core::backend::Fingerprint;
use exsa_core::prompt_cache::{PromptKey, PromptMemory, PromptStore, SavedPrompt};
use std::time::Duration;

fn prompt(tokens: &[TokenId], truncates: bool) -> SavedPrompt {
    let key = PromptKey::new(Fingerprint(1), tokens);
    SavedPrompt::new(&key, vec![0; 1000]).truncates(truncates)
}

fn found(store: &PromptMemory, tokens: &[TokenId], whole: bool) -> usize {
    store.find(&PromptKey::new(Fingerprint(1), tokens), whole).map_or(0, |found| found.tokens)
}

#[test]
fn the_longest_common_prefix_is_found() {
    let store = PromptMemory::new(1 << 20);
    assert_eq!(found(&store, &[1, 2], false), 0);
    store.write(prompt(&[1, 2, 3, 4, 5], false));
    store.write(prompt(&[1, 2], false));
    assert_eq!((found(&store, &[1, 2, 3, 9], false), found(&store, &[1, 2, 3, 9], true)), (3, 2));
    assert_eq!((found(&store, &[1, 2, 3, 4, 5], true), found(&store, &[2, 2], false)), (5, 0));
    assert!(store.find(&PromptKey::new(Fingerprint(2), &[1, 2]), false).is_none());
    assert!(store.find(&PromptKey::new(Fingerprint(1), &[1, 2]).salt("a"), false).is_none());
    assert!(store.find(&PromptKey::new(Fingerprint(1), &[1, 2]).adapter("a"), false).is_none());
}

#[test]
fn equal_entries_and_those_within_are_replaced() {
    let store = PromptMemory::new(1 << 20);
    store.write(prompt(&[1, 2], false));
    store.write(prompt(&[1, 2, 3], false));
    store.write(prompt(&[1, 2], false));
    assert_eq!(store.len(), 2, "a checkpoint within a prompt stays");
    store.write(prompt(&[1, 2, 3, 4], true));
    assert_eq!(store.len(), 1);
}

#[test]
fn the_least_recently_used_entries_go() {
    let store = PromptMemory::new(3500);
    for first in [1, 2, 3, 1, 4] {
        store.write(prompt(&[first, 2], false));
    }
    assert_eq!([1, 2, 3, 4].map(|first| found(&store, &[first, 2], true)), [2, 0, 2, 2]);
    assert!(store.bytes() > 3000 && store.bytes() <= 3500);
    let refused = store.find(&PromptKey::new(Fingerprint(1), &[1, 2]), true).unwrap().entry;
    store.refused(refused, "damaged");
    assert_eq!((store.len(), found(&store, &[1, 2], true)), (2, 0));
    assert!(store.buffer(3500, Duration::ZERO).is_some() && store.buffer(3501, Duration::ZERO).is_none());
    store.write(prompt(&[7; 900], false));
    assert_eq!(store.len(), 2, "it is larger than the store");
}
