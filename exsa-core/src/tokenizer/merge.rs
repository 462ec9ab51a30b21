//! Merging neighbours by rank: what SentencePiece and byte-pair encoding have in common.
//!
//! Of all neighbours that can be joined, those of the lowest rank are joined first, and of these the
//! leftmost, until none can.
//!
//! A short word looks through its pairs each time. A long one is merged in windows that overlap, which is
//! exact: whether two neighbouring tokens stay apart depends on nothing but these two, for merges inside one
//! of them are the same whatever stands beside it. So tokens of two windows may be strung together at any
//! token that both windows have in the same place. If there is none, as in texts made for it, a queue of all
//! pairs does the whole word in n log n.

use crate::token::TokenId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Marks a [`Symbol`] that is not a token.
pub(super) const NO_TOKEN: TokenId = TokenId::MAX;

/// A stretch of the text that is one piece so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    /// First byte in the text.
    pub(super) start: u32,
    /// Length in bytes, at least 1.
    pub(super) len: u32,
    /// The token that it is, or [`NO_TOKEN`].
    pub(super) id: TokenId,
}

/// Result of the merge of two neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    /// Lower ranks are joined first.
    pub(super) rank: u32,
    /// The token.
    pub(super) id: TokenId,
}

/// Symbols up to which looking through all pairs is fastest.
const SHORT: usize = 64;
/// Symbols in a window of a longer word; the second is for words with tokens as long as the first.
const WINDOWS: [usize; 2] = [SHORT, 1024];
/// The part of a window that it shares with the one before it, at least.
const OVERLAP: usize = 4;
/// Stands for no rank.
const NO_RANK: u32 = u32::MAX;

/// Merges words one after the other and keeps its memory between them.
#[derive(Default)]
pub(super) struct Merger {
    /// The word to merge; after [`merge`](Self::merge) what it became.
    pub(super) symbols: Vec<Symbol>,
    by_scan: Pairs,
    by_queue: Queue,
    window: Vec<Symbol>,
    done: Vec<Symbol>,
}

/// Possible merges of each symbol of a word with the next.
#[derive(Default)]
struct Pairs {
    /// [`NO_RANK`] where they cannot be joined.
    ranks: Vec<u32>,
    ids: Vec<TokenId>,
}

impl Merger {
    /// Merges [`symbols`](Self::symbols), of which there are less than `u32::MAX`. `join` tells what two
    /// neighbours become, if anything; ranks are below `u32::MAX`.
    pub(super) fn merge(&mut self, join: impl Fn(Symbol, Symbol) -> Option<Joined>) {
        if self.symbols.len() <= SHORT {
            self.by_scan.merge(&mut self.symbols, &join);
        } else if !WINDOWS.iter().any(|len| self.merge_windows(*len, &join)) {
            self.by_queue.merge(&mut self.symbols, &join);
        }
    }

    /// Merges a long word in windows of `len` symbols; `false` if two of them have no token in common, and
    /// nothing is done.
    fn merge_windows(&mut self, len: usize, join: &impl Fn(Symbol, Symbol) -> Option<Joined>) -> bool {
        let (word, done, window) = (&self.symbols, &mut self.done, &mut self.window);
        done.clear();
        let mut from = 0;
        loop {
            let to = word.len().min(from + len);
            window.clear();
            window.extend_from_slice(&word[from..to]);
            if len <= SHORT {
                self.by_scan.merge(window, join)
            } else {
                self.by_queue.merge(window, join)
            }
            if from == 0 {
                done.extend_from_slice(window);
            } else {
                let Some((kept, skipped)) = common_token(done, window) else { return false };
                done.truncate(kept);
                done.extend_from_slice(&window[skipped..]);
            }
            if to == word.len() {
                break;
            }
            // The next window starts where a token does, so that repetitive text falls into step.
            let last_start = word[to - len / OVERLAP].start;
            let token = done.partition_point(|token| token.start <= last_start).saturating_sub(1);
            let start = done[token].start;
            let next = word.partition_point(|symbol| symbol.start < start);
            if next <= from {
                return false;
            }
            from = next;
        }
        std::mem::swap(&mut self.symbols, &mut self.done);
        true
    }
}

/// The first token that starts and ends at the same place in `left` and in `right`: its index in each.
fn common_token(left: &[Symbol], right: &[Symbol]) -> Option<(usize, usize)> {
    let first = right.first()?.start;
    let (mut i, mut j) = (left.partition_point(|token| token.start < first), 0);
    loop {
        let (a, b) = (left.get(i)?, right.get(j)?);
        if a == b {
            return Some((i, j));
        }
        if a.start <= b.start { i += 1 } else { j += 1 }
    }
}

impl Pairs {
    /// Merges `symbols`, looking through all pairs each time.
    fn merge(&mut self, symbols: &mut Vec<Symbol>, join: &impl Fn(Symbol, Symbol) -> Option<Joined>) {
        let join = |symbols: &[Symbol], left: usize| {
            let joined = join(symbols[left], symbols[left + 1]);
            joined.map_or((NO_RANK, NO_TOKEN), |joined| (joined.rank, joined.id))
        };
        self.ranks.clear();
        self.ids.clear();
        for left in 1..symbols.len() {
            let (rank, id) = join(symbols, left - 1);
            self.ranks.push(rank);
            self.ids.push(id);
        }
        loop {
            let lowest = self.ranks.iter().copied().min().unwrap_or(NO_RANK);
            if lowest == NO_RANK {
                return;
            }
            let Some(left) = self.ranks.iter().position(|rank| *rank == lowest) else { return };
            symbols[left].len += symbols[left + 1].len;
            symbols[left].id = self.ids[left];
            symbols.remove(left + 1);
            self.ranks.remove(left);
            self.ids.remove(left);
            for pair in [left.checked_sub(1), Some(left)].into_iter().flatten() {
                if pair < self.ranks.len() {
                    (self.ranks[pair], self.ids[pair]) = join(symbols, pair);
                }
            }
        }
    }
}

/// Candidates in the order of merging. Those that are there at the start are sorted once; only what merges
/// add goes through a heap, which stays small.
#[derive(Default)]
struct Queue {
    /// Descending, the next one last.
    first: Vec<u128>,
    added: BinaryHeap<Reverse<u128>>,
    links: Vec<Link>,
}

/// Neighbours of a symbol that are still there; [`NONE`] at the ends.
#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl Queue {
    /// Merges `symbols` with a queue of all pairs.
    fn merge(&mut self, symbols: &mut Vec<Symbol>, join: &impl Fn(Symbol, Symbol) -> Option<Joined>) {
        let count = symbols.len() as u32;
        self.links.clear();
        self.links.extend((0..count).map(|i| Link {
            previous: i.checked_sub(1).unwrap_or(NONE),
            next: if i + 1 < count { i + 1 } else { NONE },
        }));
        let candidate = |symbols: &[Symbol], left: u32, right: u32| {
            let (l, r) = (symbols[left as usize], symbols[right as usize]);
            join(l, r).map(|joined| Candidate { rank: joined.rank, left, len: l.len + r.len, id: joined.id })
        };
        self.fill((1..count).filter_map(|right| candidate(symbols, right - 1, right)));

        while let Some(Candidate { left, len, id, .. }) = self.pop() {
            let Link { previous, next: right } = self.links[left as usize];
            // A candidate is stale if one of its symbols is gone, or is longer by now.
            if right == NONE || symbols[left as usize].len + symbols[right as usize].len != len {
                continue;
            }
            let next = self.links[right as usize].next;
            symbols[left as usize].len = len;
            symbols[left as usize].id = id;
            symbols[right as usize].len = 0;
            self.links[right as usize].next = NONE;
            self.links[left as usize].next = next;
            if previous != NONE {
                self.extend(candidate(symbols, previous, left));
            }
            if next != NONE {
                self.links[next as usize].previous = left;
                self.extend(candidate(symbols, left, next));
            }
        }
        symbols.retain(|symbol| symbol.len > 0);
    }

    fn fill(&mut self, candidates: impl Iterator<Item = Candidate>) {
        self.added.clear();
        self.first.clear();
        self.first.extend(candidates.map(Candidate::pack));
        self.first.sort_unstable_by_key(|packed| Reverse(*packed));
    }

    fn extend(&mut self, candidate: Option<Candidate>) {
        self.added.extend(candidate.map(|candidate| Reverse(candidate.pack())));
    }

    fn pop(&mut self) -> Option<Candidate> {
        let packed = match (self.first.last(), self.added.peek()) {
            (Some(first), Some(Reverse(added))) if added < first => {
                self.added.pop().map(|Reverse(packed)| packed)
            }
            (Some(_), _) => self.first.pop(),
            (None, _) => self.added.pop().map(|Reverse(packed)| packed),
        };
        packed.map(Candidate::unpack)
    }
}

/// Two neighbours that can be joined. The order of the fields is the order of merging.
#[derive(Clone, Copy)]
struct Candidate {
    rank: u32,
    left: u32,
    /// Length of both together, when they became candidates.
    len: u32,
    id: TokenId,
}

impl Candidate {
    /// All of it in one number with the same order, which compares fast.
    fn pack(self) -> u128 {
        u128::from(self.rank) << 96
            | u128::from(self.left) << 64
            | u128::from(self.len) << 32
            | u128::from(self.id)
    }

    fn unpack(packed: u128) -> Self {
        let part = |shift: u32| (packed >> shift) as u32;
        Self { rank: part(96), left: part(64), len: part(32), id: part(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Symbols are letters; neighbours join if the sum of their ids is in the table.
    fn join(table: &[u32]) -> impl Fn(Symbol, Symbol) -> Option<Joined> {
        move |left, right| {
            let id = left.id.checked_add(right.id)?;
            table.get(id as usize).map(|rank| Joined { rank: *rank, id })
        }
    }

    fn word(ids: &[u32]) -> Vec<Symbol> {
        ids.iter().zip(0..).map(|(id, start)| Symbol { start, len: 1, id: *id }).collect()
    }

    #[test]
    fn ties_go_to_the_left() {
        let mut merger = Merger { symbols: word(&[1, 1, 1]), ..Merger::default() };
        merger.merge(join(&[9, 9, 0]));
        let expected = [Symbol { start: 0, len: 2, id: 2 }, Symbol { start: 2, len: 1, id: 1 }];
        assert_eq!(merger.symbols, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn all_ways_agree(
            (ids, repeat) in (prop::collection::vec(0u32..4, 0..40), 1..16usize),
            tail in prop::collection::vec(0u32..4, 0..200),
            table in prop::collection::vec(0u32..6, 0..24),
        ) {
            let ids: Vec<u32> = ids.repeat(repeat).into_iter().chain(tail).collect();
            let symbols = word(&ids);
            let mut expected = symbols.clone();
            Pairs::default().merge(&mut expected, &join(&table));
            let covered: u32 = expected.iter().map(|symbol| symbol.len).sum();
            prop_assert_eq!(covered as usize, ids.len());

            let mut queued = symbols.clone();
            Queue::default().merge(&mut queued, &join(&table));
            prop_assert_eq!(&queued, &expected);

            for len in [8, 32, 128] {
                let mut windows = Merger { symbols: symbols.clone(), ..Merger::default() };
                if !ids.is_empty() && windows.merge_windows(len, &join(&table)) {
                    prop_assert_eq!(&windows.symbols, &expected);
                }
            }
        }
    }
}
