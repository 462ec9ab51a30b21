//! In-memory index of the entries, by prefix and by last use.

use crate::chain::{BLOCK_TOKENS, BlockName, Chains};
use crate::format::EntryFile;
use exsa_core::prompt_cache::{EntryId, PromptKey, StoredPrefix};
use hashbrown::HashMap;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// An entry of the folder.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `None` for a file of another key or version, which takes space but cannot be found.
    pub(crate) file: Option<EntryFile>,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Time of the last use.
    pub(crate) used: SystemTime,
    pub(crate) pinned: bool,
}

/// All entries of a folder.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: HashMap<EntryId, Entry>,
    blocks: HashMap<BlockName, Holders>,
    bytes: u64,
    pinned_bytes: u64,
    pinned: usize,
}

/// The entries that contain a block. Most blocks belong to a single entry.
#[derive(Debug)]
enum Holders {
    One(EntryId),
    /// Ordered by tokens: the shortest entry is the cheapest to read.
    Many(BTreeSet<(u64, EntryId)>),
}

impl Index {
    pub(crate) fn get(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (EntryId, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn pinned(&self) -> usize {
        self.pinned
    }

    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// Adds an entry, replacing one with the same id.
    pub(crate) fn insert(&mut self, id: EntryId, entry: Entry) {
        self.remove(id);
        if let Some(file) = &entry.file {
            for block in &file.blocks {
                match self.blocks.get_mut(block) {
                    None => {
                        self.blocks.insert(*block, Holders::One(id));
                    }
                    Some(Holders::Many(all)) => {
                        all.insert((file.tokens, id));
                    }
                    Some(one @ Holders::One(_)) => {
                        let Holders::One(other) = *one else { continue };
                        let tokens = self.entries.get(&other).map_or(0, Entry::tokens);
                        *one = Holders::Many([(tokens, other), (file.tokens, id)].into());
                    }
                }
            }
        }
        self.bytes += entry.bytes;
        self.pinned += usize::from(entry.pinned);
        self.pinned_bytes += if entry.pinned { entry.bytes } else { 0 };
        self.entries.insert(id, entry);
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= entry.bytes;
        self.pinned -= usize::from(entry.pinned);
        self.pinned_bytes -= if entry.pinned { entry.bytes } else { 0 };
        let Some(file) = &entry.file else { return Some(entry) };
        for block in &file.blocks {
            let empty = match self.blocks.get_mut(block) {
                Some(Holders::One(_)) => true,
                Some(Holders::Many(all)) => {
                    all.remove(&(file.tokens, id));
                    all.is_empty()
                }
                None => false,
            };
            if empty {
                self.blocks.remove(block);
            }
        }
        Some(entry)
    }

    /// Records a use of an entry.
    pub(crate) fn touch(&mut self, id: EntryId, now: SystemTime) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.used = entry.used.max(now);
        }
    }

    pub(crate) fn pin(&mut self, id: EntryId, pinned: bool) {
        if let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.pinned != pinned) {
            entry.pinned = pinned;
            if pinned {
                self.pinned += 1;
                self.pinned_bytes += entry.bytes;
            } else {
                self.pinned -= 1;
                self.pinned_bytes -= entry.bytes;
            }
        }
    }

    /// The entry that shares the longest prefix with `key`; with `whole`, the longest one that is a prefix.
    pub(crate) fn find(&self, chains: &Chains, key: &PromptKey<'_>, whole: bool) -> Option<StoredPrefix> {
        let mut best = None;
        self.walk(chains, key, |blocks, holders, ending| {
            best = match ending {
                Some((tokens, id)) => self.prefix(id, tokens),
                None if whole => best,
                None => self.prefix(holders.shortest(), blocks * BLOCK_TOKENS),
            };
        });
        best
    }

    /// The entries that are prefixes of `key`, including an entry of `key` itself.
    pub(crate) fn within(&self, chains: &Chains, key: &PromptKey<'_>) -> Vec<EntryId> {
        let mut all = Vec::new();
        self.walk(chains, key, |_, _, ending| all.extend(ending.map(|(_, id)| id)));
        all
    }

    /// Unpinned entries, least recently used first.
    pub(crate) fn oldest(&self) -> Vec<(SystemTime, EntryId)> {
        let mut all: Vec<_> =
            self.iter().filter(|(_, entry)| !entry.pinned).map(|(id, entry)| (entry.used, id)).collect();
        all.sort_unstable();
        all
    }

    /// Unpinned entries without use for longer than `age_max`.
    pub(crate) fn expired(&self, now: SystemTime, age_max: Duration) -> Vec<EntryId> {
        let old = |entry: &Entry| now.duration_since(entry.used).is_ok_and(|age| age > age_max);
        self.iter().filter(|(_, entry)| !entry.pinned && old(entry)).map(|(id, _)| id).collect()
    }

    /// Calls `each` for every block of `key` that some entry contains, from the first on, with the number of
    /// the block (from 1), the entries, and the longest entry that ends within the next block and is a prefix
    /// of `key`.
    fn walk(
        &self,
        chains: &Chains,
        key: &PromptKey<'_>,
        mut each: impl FnMut(usize, &Holders, Option<(usize, EntryId)>),
    ) {
        for (number, link) in (1..).zip(chains.links(chains.root(key), key.tokens)) {
            let Some(holders) = self.blocks.get(&link.name()) else { return };
            let start = number * BLOCK_TOKENS;
            let end = (start + BLOCK_TOKENS - 1).min(key.tokens.len());
            let ending = self.lengths(holders, start, end).into_iter().rev().find_map(|tokens| {
                let id = chains.entry(link, &key.tokens[..tokens]);
                let is_own = self.get(id).is_some_and(|entry| entry.tokens() == tokens as u64);
                is_own.then_some((tokens, id))
            });
            each(number, holders, ending);
        }
    }

    /// The distinct lengths of `holders` between `start` and `end`, ascending.
    fn lengths(&self, holders: &Holders, start: usize, end: usize) -> Vec<usize> {
        match holders {
            Holders::One(id) => {
                let tokens = self.get(*id).map_or(0, Entry::tokens) as usize;
                if (start..=end).contains(&tokens) { vec![tokens] } else { Vec::new() }
            }
            Holders::Many(all) => {
                let mut lengths = Vec::new();
                let mut from = start as u64;
                // Skips from one length to the next, however many entries have the same length.
                while let Some((tokens, _)) = all.range((from, EntryId([0; 16]))..).next() {
                    if *tokens > end as u64 {
                        break;
                    }
                    lengths.push(*tokens as usize);
                    from = tokens + 1;
                }
                lengths
            }
        }
    }

    fn prefix(&self, id: EntryId, tokens: usize) -> Option<StoredPrefix> {
        Some(StoredPrefix::new(id, tokens, self.get(id)?.bytes))
    }
}

impl Entry {
    pub(crate) fn tokens(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.tokens)
    }
}

impl Holders {
    fn shortest(&self) -> EntryId {
        match self {
            Self::One(id) => *id,
            Self::Many(all) => all.first().map_or(EntryId([0; 16]), |(_, id)| *id),
        }
    }
}
