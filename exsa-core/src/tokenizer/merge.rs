//! Merging neighbours by rank: what SentencePiece and byte-pair encoding have in common.
//!
//! Of all neighbours that can be joined, those of the lowest rank are joined first, and of these the leftmost,
//! until none can. A short word looks through its pairs each time; a long one keeps them in a queue, so that the
//! time grows as n log n.

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

/// What two neighbours become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined {
    /// Lower ranks are joined first.
    pub(super) rank: u32,
    /// The token.
    pub(super) id: TokenId,
}

/// Symbols up to which looking through all pairs is faster than a queue.
const SHORT: usize = 32;

/// Merges words one after the other and keeps its memory between them.
#[derive(Default)]
pub(super) struct Merger {
    /// The word to merge; after [`merge`](Self::merge) what it became.
    pub(super) symbols: Vec<Symbol>,
    /// What `symbols[i]` and `symbols[i + 1]` can become.
    pairs: Vec<Option<Joined>>,
    queue: Queue,
    links: Vec<Link>,
}

/// Neighbours of a symbol that are still there; [`NONE`] at the ends.
#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl Merger {
    /// Merges [`symbols`](Self::symbols), of which there are less than `u32::MAX`. `join` tells what two
    /// neighbours become, if anything.
    pub(super) fn merge(&mut self, join: impl Fn(Symbol, Symbol) -> Option<Joined>) {
        if self.symbols.len() <= SHORT { self.merge_short(join) } else { self.merge_long(join) }
    }

    fn merge_short(&mut self, join: impl Fn(Symbol, Symbol) -> Option<Joined>) {
        let symbols = &mut self.symbols;
        self.pairs.clear();
        self.pairs.extend(symbols.windows(2).map(|pair| join(pair[0], pair[1])));
        loop {
            let joinable = self.pairs.iter().enumerate().filter_map(|(i, pair)| Some((i, (*pair)?)));
            let Some((left, joined)) = joinable.min_by_key(|(i, joined)| (joined.rank, *i)) else { return };
            symbols[left].len += symbols[left + 1].len;
            symbols[left].id = joined.id;
            symbols.remove(left + 1);
            self.pairs.remove(left);
            if left > 0 {
                self.pairs[left - 1] = join(symbols[left - 1], symbols[left]);
            }
            if left < self.pairs.len() {
                self.pairs[left] = join(symbols[left], symbols[left + 1]);
            }
        }
    }

    fn merge_long(&mut self, join: impl Fn(Symbol, Symbol) -> Option<Joined>) {
        let symbols = &mut self.symbols;
        let links = &mut self.links;
        let count = symbols.len() as u32;
        links.clear();
        links.extend((0..count).map(|i| Link {
            previous: i.checked_sub(1).unwrap_or(NONE),
            next: if i + 1 < count { i + 1 } else { NONE },
        }));
        let candidate = |symbols: &[Symbol], left: u32, right: u32| {
            let (l, r) = (symbols[left as usize], symbols[right as usize]);
            join(l, r).map(|joined| Candidate { rank: joined.rank, left, len: l.len + r.len, id: joined.id })
        };
        self.queue.fill((1..count).filter_map(|right| candidate(symbols, right - 1, right)));

        while let Some(Candidate { left, len, id, .. }) = self.queue.pop() {
            let Link { previous, next: right } = links[left as usize];
            // A candidate is stale if one of its symbols is gone, or is longer by now.
            if right == NONE || symbols[left as usize].len + symbols[right as usize].len != len {
                continue;
            }
            let next = links[right as usize].next;
            symbols[left as usize].len = len;
            symbols[left as usize].id = id;
            // A length that no sum reaches: candidates that start at a symbol which is gone stay stale.
            symbols[right as usize].len = 0;
            links[right as usize].next = NONE;
            links[left as usize].next = next;
            if previous != NONE {
                self.queue.extend(candidate(symbols, previous, left));
            }
            if next != NONE {
                links[next as usize].previous = left;
                self.queue.extend(candidate(symbols, left, next));
            }
        }
        symbols.retain(|symbol| symbol.len > 0);
    }
}

/// Two neighbours that can be joined. The order of the fields is the order of merging.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

/// Candidates in the order of merging. Those that are there at the start are sorted once; only what merges add
/// goes through a heap, which stays small.
#[derive(Default)]
struct Queue {
    /// Descending, the next one last.
    first: Vec<u128>,
    added: BinaryHeap<Reverse<u128>>,
}

impl Queue {
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
        #[test]
        fn both_ways_agree(
            ids in prop::collection::vec(0u32..4, 0..80),
            table in prop::collection::vec(0u32..6, 0..24),
        ) {
            let mut short = Merger { symbols: word(&ids), ..Merger::default() };
            let mut long = Merger { symbols: word(&ids), ..Merger::default() };
            short.merge_short(join(&table));
            long.merge_long(join(&table));
            prop_assert_eq!(&short.symbols, &long.symbols);
            let covered: u32 = long.symbols.iter().map(|symbol| symbol.len).sum();
            prop_assert_eq!(covered as usize, ids.len());
        }
    }
}
