//! The tree compared with a plain table of each sequence's tokens.

use super::{Namespace, PrefixTree, common_len};
use crate::cache_events::{BlockHash, CacheEvent};
use crate::token::{SeqId, TokenId};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const SEQUENCES: u32 = 6;

/// Tokens of a block of the test.
const BLOCK: usize = 3;

/// The blocks that a reader of events knows, by hash: salt, and all tokens up to their end.
#[derive(Debug, Default)]
struct Reader(HashMap<BlockHash, (Option<String>, Vec<TokenId>)>);

impl Reader {
    fn read(&mut self, events: Vec<CacheEvent>) -> Result<(), String> {
        for event in events {
            match event {
                CacheEvent::Stored(stored) => {
                    let salt = stored.salt.as_deref().map(str::to_owned);
                    let mut tokens = match stored.parent {
                        None => Vec::new(),
                        Some(parent) => {
                            let known = self.0.get(&parent).ok_or("a parent was never stored")?;
                            assert_eq!(known.0, salt);
                            known.1.clone()
                        }
                    };
                    assert_eq!(stored.tokens.len(), stored.hashes.len() * BLOCK);
                    for (hash, block) in stored.hashes.iter().zip(stored.tokens.chunks(BLOCK)) {
                        tokens.extend_from_slice(block);
                        if self.0.insert(*hash, (salt.clone(), tokens.clone())).is_some() {
                            return Err(format!("{hash:?} is stored twice"));
                        }
                    }
                }
                CacheEvent::Removed(hashes) => {
                    for hash in hashes {
                        self.0.remove(&hash).ok_or("a removed block was never stored")?;
                    }
                }
                CacheEvent::Cleared => self.0.clear(),
            }
        }
        Ok(())
    }

    fn blocks(&self) -> HashSet<(Option<String>, Vec<TokenId>)> {
        self.0.values().cloned().collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Extend(u32, u8, Vec<TokenId>),
    Truncate(u32, usize),
    Remove(u32),
}

fn tokens() -> impl Strategy<Value = Vec<TokenId>> {
    // Few distinct tokens, so that most texts share a prefix.
    prop::collection::vec(0..3u32, 1..12)
}

fn op() -> impl Strategy<Value = Op> {
    let seq = 0..SEQUENCES;
    prop_oneof![
        4 => (seq.clone(), 0..2u8, tokens()).prop_map(|(seq, salt, tokens)| Op::Extend(seq, salt, tokens)),
        2 => (seq.clone(), 0..14usize).prop_map(|(seq, len)| Op::Truncate(seq, len)),
        1 => seq.prop_map(Op::Remove),
    ]
}

fn namespace(salt: u8) -> Namespace {
    Namespace { adapter: None, salt: (salt > 0).then(|| salt.to_string().into()) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_tree_knows_what_a_table_knows(ops in prop::collection::vec(op(), 1..60), probes in prop::collection::vec(tokens(), 4)) {
        let mut tree = PrefixTree::new(SEQUENCES as usize);
        let mut table: HashMap<u32, (u8, Vec<TokenId>)> = HashMap::new();
        for op in ops {
            match op {
                Op::Extend(seq, salt, tokens) => {
                    let (salt, held) = table.entry(seq).or_insert((salt, Vec::new()));
                    held.extend(tokens);
                    tree.extend(SeqId(seq), &namespace(*salt), held);
                }
                Op::Truncate(seq, len) => {
                    if let Some((_, held)) = table.get_mut(&seq) {
                        held.truncate(len);
                        tree.truncate(SeqId(seq), len);
                    }
                    table.retain(|_, (_, held)| !held.is_empty());
                }
                Op::Remove(seq) => {
                    table.remove(&seq);
                    tree.remove(SeqId(seq));
                }
            }
            prop_assert_eq!(tree.check(), Ok(()));
            for seq in 0..SEQUENCES {
                prop_assert_eq!(tree.len_of(SeqId(seq)), table.get(&seq).map_or(0, |(_, held)| held.len()));
                let covers = |other: &u32, salt: u8, held: &[TokenId]| {
                    let (other_salt, longer) = &table[other];
                    *other != seq && *other_salt == salt && longer.starts_with(held)
                };
                let covered = table.get(&seq).is_some_and(|(salt, held)| table.keys().any(|other| covers(other, *salt, held)));
                prop_assert_eq!(tree.is_covered(SeqId(seq)), covered);
            }
            for (salt, probe) in (0..2).flat_map(|salt| probes.iter().map(move |probe| (salt, probe))) {
                let same = || table.values().filter(|(other, _)| *other == salt);
                let longest = same().map(|(_, held)| common_len(held, probe)).max().unwrap_or(0);
                let found = tree.find(&namespace(salt), probe);
                prop_assert_eq!(found.map_or(0, |found| found.len), longest);
                if let Some(found) = found {
                    let holder = tree.holder(found).map(|seq| &table[&seq.0]);
                    prop_assert!(holder.is_some_and(|(other, held)| *other == salt && held.starts_with(&probe[..found.len])));
                }
            }
        }
    }

    #[test]
    fn events_tell_the_whole_blocks_that_sequences_hold(
        ops in prop::collection::vec(op(), 1..60),
        watched_from in 0..30usize,
        again_from in 0..60usize,
    ) {
        let mut tree = PrefixTree::new(SEQUENCES as usize);
        let mut table: HashMap<u32, (u8, Vec<TokenId>)> = HashMap::new();
        let mut reader = Reader::default();
        for (i, op) in ops.into_iter().enumerate() {
            if i == watched_from || i == again_from {
                reader.0.clear();
                prop_assert_eq!(reader.read(tree.record(BLOCK)), Ok(()));
            }
            match op {
                Op::Extend(seq, salt, tokens) => {
                    let (salt, held) = table.entry(seq).or_insert((salt, Vec::new()));
                    held.extend(tokens);
                    tree.extend(SeqId(seq), &namespace(*salt), held);
                }
                Op::Truncate(seq, len) => {
                    if let Some((_, held)) = table.get_mut(&seq) {
                        held.truncate(len);
                        tree.truncate(SeqId(seq), len);
                    }
                    table.retain(|_, (_, held)| !held.is_empty());
                }
                Op::Remove(seq) => {
                    table.remove(&seq);
                    tree.remove(SeqId(seq));
                }
            }
            prop_assert_eq!(tree.check(), Ok(()));
            prop_assert_eq!(reader.read(tree.drain_events()), Ok(()));
            if i < watched_from.min(again_from) {
                prop_assert!(reader.0.is_empty());
                continue;
            }
            let held = table.values().flat_map(|(salt, held)| {
                let salt = namespace(*salt).salt.map(|salt| salt.to_string());
                (1..=held.len() / BLOCK).map(move |n| (salt.clone(), held[..n * BLOCK].to_vec()))
            });
            prop_assert_eq!(reader.blocks(), held.collect::<HashSet<_>>());
        }
    }
}
