//! Tiles of attention: the pieces of work that threads take.

use super::attention_inputs::{AttentionSpan, Inputs, SPLIT};
use std::ops::Range;

/// Maximum query vectors of a tile, unless a single token has more.
pub(super) const TILE_ROWS: usize = 24;

/// Tiles per thread above which keys are not split too.
pub(super) const TILES_PER_THREAD: usize = 8;

/// Tokens of one span that a thread takes at a time, for one head of keys and values.
#[derive(Clone, Debug)]
pub(crate) struct Tile {
    pub span: usize,
    /// Tokens, counted from the span's first.
    pub tokens: Range<usize>,
    /// Splits of the keys.
    pub splits: Range<usize>,
    /// Place of the results among the partial ones, if other tiles have other splits of the same rows.
    pub partial: Option<usize>,
}

/// The tiles of a batch, in memory that is sized once.
pub(super) struct Tiles {
    /// Tiles that threads take.
    pub all: Vec<Tile>,
    /// Tiles of which some threads compute some splits, with the splits of all.
    pub shared: Vec<Tile>,
}

/// Lengths that [`Tiles`] has room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileCapacities {
    all: usize,
    shared: usize,
}

impl TileCapacities {
    /// For the tiles of `tokens_max` tokens, of which `shared` are cut into up to `splits` splits.
    pub fn new(tokens_max: usize, shared: usize, splits: usize, threads: usize) -> Self {
        Self { all: tokens_max + shared * splits.min(threads * TILES_PER_THREAD * 64), shared }
    }

    /// Bytes of the tiles.
    pub fn bytes(&self) -> u64 {
        ((self.all + self.shared) * size_of::<Tile>()) as u64
    }
}

impl Tiles {
    /// Room for as many tiles.
    pub fn new(capacities: TileCapacities) -> Self {
        let TileCapacities { all, shared } = capacities;
        Self { all: Vec::with_capacity(all), shared: Vec::with_capacity(shared) }
    }

    /// Cuts the spans into tiles, with up to `partials` floats for results of splits; returns about how many
    /// multiplications they need.
    pub fn plan(&mut self, inputs: &Inputs<'_>, threads: usize, partials: usize) -> usize {
        let heads = inputs.heads;
        let group = heads.n_head / heads.n_head_kv;
        let tile_tokens = (TILE_ROWS / group).max(1);
        let n_tiles: usize = inputs.spans.iter().map(|span| span.len.div_ceil(tile_tokens)).sum();
        let few = threads > 1 && n_tiles * heads.n_head_kv < threads * TILES_PER_THREAD;
        let (mut pairs, mut taken) = (0, 0);
        self.all.clear();
        self.shared.clear();
        for (index, span) in inputs.spans.iter().enumerate() {
            // The last tokens see the most: they come first, so that none is left over for the end.
            let starts = (0..span.len).step_by(tile_tokens).rev();
            for start in starts {
                let tokens = start..span.len.min(start + tile_tokens);
                let seen = heads.seen(span.position + tokens.start).start..span.position + tokens.end;
                pairs += tokens.len() * seen.len();
                let tile = Tile {
                    span: index,
                    splits: seen.start / SPLIT..seen.end.div_ceil(SPLIT),
                    tokens,
                    partial: None,
                };
                let size = partial_len(&tile, group, inputs.layout.value_room()) * heads.n_head_kv;
                if few && tile.splits.len() > 1 && taken + size <= partials {
                    let tile = Tile { partial: Some(taken), ..tile };
                    taken += size;
                    let single = |split| Tile { splits: split..split + 1, ..tile.clone() };
                    let first = tile.splits.start;
                    self.all.extend(tile.splits.clone().map(single).map(|single| {
                        let before = (single.splits.start - first)
                            * split_len(&tile, group, inputs.layout.value_room());
                        Tile { partial: tile.partial.map(|start| start + before), ..single }
                    }));
                    self.shared.push(tile);
                } else {
                    self.all.push(tile);
                }
            }
        }
        pairs * heads.n_head * heads.head_dim
    }
}

/// Floats of the result of one split of a tile: accumulators, maxima and sums.
pub(super) fn split_len(tile: &Tile, group: usize, room: usize) -> usize {
    tile.tokens.len() * group * (room + 2)
}

/// Floats of the results of all splits of a tile, for one head.
pub(super) fn partial_len(tile: &Tile, group: usize, room: usize) -> usize {
    split_len(tile, group, room) * tile.splits.len()
}

/// Splits of the keys that the tokens of a tile see.
pub(super) fn tile_splits(inputs: &Inputs<'_>, span: &AttentionSpan, tile: &Tile) -> usize {
    let first = inputs.heads.seen(span.position + tile.tokens.start).start;
    (span.position + tile.tokens.end).div_ceil(SPLIT) - first / SPLIT
}
