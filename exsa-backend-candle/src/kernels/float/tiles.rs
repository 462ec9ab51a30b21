//! What attention is cut into: pieces that threads take by themselves.

use super::attention_inputs::{AttendSpan, Inputs, SPLIT};
use std::ops::Range;

/// Query vectors that an item has, unless a single token has more.
pub(super) const ITEM_ROWS: usize = 24;

/// Items per thread that are enough to share the work well.
pub(super) const ITEMS_ENOUGH: usize = 8;

/// Tokens of one span that one thread attends with at a time, for one head of keys and values.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub span: usize,
    /// Tokens, counted from the span's first.
    pub tokens: Range<usize>,
    /// Splits of the keys.
    pub splits: Range<usize>,
    /// Where the results go if others compute other splits of the same rows.
    pub partial: Option<usize>,
}

/// The pieces of a batch, in memory that is sized once.
pub(super) struct Items {
    /// What threads take.
    pub all: Vec<Item>,
    /// Items of which some threads compute some splits, with the splits of all.
    pub shared: Vec<Item>,
}

impl Items {
    /// Room for the items of `tokens_max` tokens, of which `shared` are cut into up to `splits` splits.
    pub fn new(tokens_max: usize, shared: usize, splits: usize, threads: usize) -> Self {
        Self {
            all: Vec::with_capacity(tokens_max + shared * splits.min(threads * ITEMS_ENOUGH * 64)),
            shared: Vec::with_capacity(shared),
        }
    }

    /// Cuts the spans into items, with up to `partials` floats for results of splits; returns about how many multiplications
    /// they need.
    pub fn plan(&mut self, inputs: &Inputs<'_>, threads: usize, partials: usize) -> usize {
        let heads = inputs.heads;
        let group = heads.n_head / heads.n_head_kv;
        let tile = (ITEM_ROWS / group).max(1);
        let tiles: usize = inputs.spans.iter().map(|span| span.len.div_ceil(tile)).sum();
        let few = threads > 1 && tiles * heads.n_head_kv < threads * ITEMS_ENOUGH;
        let (mut pairs, mut taken) = (0, 0);
        self.all.clear();
        self.shared.clear();
        for (index, span) in inputs.spans.iter().enumerate() {
            // The last tokens see the most: they come first, so that none is left over for the end.
            let starts = (0..span.len).step_by(tile).rev();
            for start in starts {
                let tokens = start..span.len.min(start + tile);
                let seen = heads.seen(span.position + tokens.start).start..span.position + tokens.end;
                pairs += tokens.len() * seen.len();
                let item = Item {
                    span: index,
                    splits: seen.start / SPLIT..seen.end.div_ceil(SPLIT),
                    tokens,
                    partial: None,
                };
                let size = partial_len(&item, group, inputs.layout.value_room()) * heads.n_head_kv;
                if few && item.splits.len() > 1 && taken + size <= partials {
                    let item = Item { partial: Some(taken), ..item };
                    taken += size;
                    let single = |split| Item { splits: split..split + 1, ..item.clone() };
                    let first = item.splits.start;
                    self.all.extend(item.splits.clone().map(single).map(|single| {
                        let before = (single.splits.start - first)
                            * split_len(&item, group, inputs.layout.value_room());
                        Item { partial: item.partial.map(|start| start + before), ..single }
                    }));
                    self.shared.push(item);
                } else {
                    self.all.push(item);
                }
            }
        }
        pairs * heads.n_head * heads.head_dim
    }
}

/// Floats that the result of one split of an item takes: sums, largest scores and totals.
pub(super) fn split_len(item: &Item, group: usize, room: usize) -> usize {
    item.tokens.len() * group * (room + 2)
}

/// Floats that the results of all splits of an item take, for one head.
pub(super) fn partial_len(item: &Item, group: usize, room: usize) -> usize {
    split_len(item, group, room) * item.splits.len()
}

/// Splits of the keys that the tokens of an item see.
pub(super) fn item_splits(inputs: &Inputs<'_>, span: &AttendSpan, item: &Item) -> usize {
    let first = inputs.heads.seen(span.position + item.tokens.start).start;
    (span.position + item.tokens.end).div_ceil(SPLIT) - first / SPLIT
}
