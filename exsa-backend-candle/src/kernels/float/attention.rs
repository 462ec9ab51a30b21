//! Attention over blocks of keys and values in host memory.
//!
//! A tile of work is a few consecutive tokens of one span with the query heads that share a head of keys and
//! values, so that what is read serves all of them. It goes through the keys in chunks of [`CHUNK`], with a
//! running maximum of the scores (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135);
//! only the scores of one chunk exist at a time.
//!
//! Every [`SPLIT`] keys the running result is set aside and a new one begun, and the results are merged in
//! order. Where a batch has few rows and long contexts, threads take different splits (as in Flash-Decoding).
//! Chunks and splits begin at multiples of their length in the sequence, so that a row's result is the same,
//! bit by bit, whoever computes it and whatever is computed beside it.

use super::attention_inputs::{AttentionSpan, CHUNK, Inputs, SPLIT};
use super::kv_layout::{Format, HeadLayout};
use super::skinny_gemm::{Keys, KvElement, Lhs, Sums, Values, multiply};
use super::softmax::{OnlineSoftmax, online_softmax};
use super::tiles::{
    TILE_ROWS, TILES_PER_THREAD, Tile, TileCapacities, Tiles, partial_len, split_len, tile_splits,
};
use crate::kernels::memory::prefetch::prefetch;
use crate::kernels::memory::team::{Target, Team};
use crate::kernels::simd::Vector;
use crate::kernels::simd::{Simd, dispatch};
use crate::shape::BLOCK_TOKENS;
use exsa_models::Heads;
use half::f16;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

/// Multiplications below which other threads are left alone.
const SHARED_PRODUCTS_MIN: usize = 1 << 15;

/// Results of splits up to which one thread merges them all.
const LONE_MERGES_MAX: usize = 256;

/// Floats that results of splits may take, for each thread.
const PARTIALS_MAX: usize = 1 << 21;

/// Sizes of the memory of an [`AttentionKernel`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionSizes {
    threads: usize,
    /// Query vectors of a tile.
    rows: usize,
    head_dim: usize,
    /// Values of an accumulator.
    room: usize,
    /// Floats of the results of splits.
    partials: usize,
    tiles: TileCapacities,
}

/// Attention, with memory for its tiles that is sized once.
pub(crate) struct AttentionKernel {
    tiles: Tiles,
    partials: Vec<f32>,
    work: Vec<Work>,
}

/// Memory of one thread.
#[derive(Clone)]
pub(crate) struct Work {
    queries: Vec<f32>,
    scores: Vec<f32>,
    running: OnlineSoftmax,
    merged: OnlineSoftmax,
}

impl AttentionSizes {
    /// Sizes for batches of up to `tokens_max` tokens with contexts of up to `context_max` tokens.
    pub fn new(
        heads: &Heads,
        layout: &HeadLayout,
        tokens_max: usize,
        context_max: usize,
        threads: usize,
    ) -> Self {
        let group = heads.n_head / heads.n_head_kv;
        let rows = TILE_ROWS.max(group);
        let splits = context_max.div_ceil(SPLIT);
        let shared = (threads * TILES_PER_THREAD).min(tokens_max);
        let partial = rows.saturating_mul(layout.value_room() + 2).saturating_mul(splits * heads.n_head_kv);
        let partials = if threads > 1 && splits > 1 { partial.saturating_mul(shared) } else { 0 };
        Self {
            threads,
            rows,
            head_dim: heads.head_dim,
            room: layout.value_room(),
            partials: partials.min(threads * PARTIALS_MAX),
            tiles: TileCapacities::new(tokens_max, shared, splits, threads),
        }
    }

    /// Bytes of a kernel of these sizes.
    pub fn bytes(&self) -> u64 {
        let softmax = OnlineSoftmax::floats(self.rows, self.room);
        let work = self.rows * (self.head_dim + CHUNK) + 2 * softmax;
        let floats = self.partials + self.threads * work;
        (floats * size_of::<f32>() + self.threads * size_of::<Work>()) as u64 + self.tiles.bytes()
    }
}

impl AttentionKernel {
    /// A kernel of these sizes.
    pub fn new(sizes: AttentionSizes) -> Self {
        let AttentionSizes { threads, rows, head_dim, room, partials, tiles } = sizes;
        let work = Work {
            queries: vec![0.0; rows * head_dim],
            scores: vec![0.0; rows * CHUNK],
            running: OnlineSoftmax::new(rows, room),
            merged: OnlineSoftmax::new(rows, room),
        };
        let mut works = Vec::with_capacity(threads);
        works.resize(threads, work);
        Self { tiles: Tiles::new(tiles), partials: vec![0.0; partials], work: works }
    }

    /// Computes attention for all spans: `out` is `[rows, n_head * head_dim]`. Returns false if it was
    /// interrupted; `out` is then unspecified.
    pub fn run(&mut self, inputs: Inputs<'_>, team: &mut Team, out: &mut [f32]) -> bool {
        // A shared team that was started anew may have another number of threads.
        if let Some(first) = self.work.first().filter(|_| self.work.len() < team.threads()).cloned() {
            self.work.resize(team.threads(), first);
        }
        let products = self.tiles.plan(&inputs, team.threads(), self.partials.len());
        let heads = inputs.heads.n_head_kv;
        let target = Target(out.as_mut_ptr());
        let rows = out.len() / (inputs.heads.n_head * inputs.heads.head_dim);
        assert!(inputs.spans.iter().all(|span| span.row + span.len <= rows), "a row for every token");
        assert!(
            inputs.queries.len()
                >= (rows.max(1) - 1) * inputs.stride + inputs.heads.n_head * inputs.heads.head_dim
        );
        let partials = Target(self.partials.as_mut_ptr());
        let interrupted = AtomicBool::new(false);
        let (tiles, n) = (&self.tiles.all, self.tiles.all.len() * heads);
        let grain = if products < SHARED_PRODUCTS_MIN { n } else { team.grain(n) };
        team.for_each_with(&mut self.work, n, grain, |work, range| {
            for i in range.clone() {
                let (head, tile) = (i / tiles.len(), &tiles[i % tiles.len()]);
                if i + 1 < range.end {
                    prefetch_keys(&inputs, &tiles[(i + 1) % tiles.len()], (i + 1) / tiles.len());
                }
                if inputs.interrupt.is_raised() {
                    interrupted.store(true, Ordering::Relaxed);
                }
                if interrupted.load(Ordering::Relaxed) {
                    return;
                }
                attention(work, &inputs, tile, head, &partials, &target);
            }
        });
        if interrupted.into_inner() {
            return false;
        }
        let (shared, n) = (&self.tiles.shared, self.tiles.shared.len() * heads);
        let partials = &self.partials;
        let long = n * shared.iter().map(|tile| tile.splits.len()).max().unwrap_or(0) > LONE_MERGES_MAX;
        team.for_each_with(&mut self.work, n, if long { 1 } else { n }, |work, range| {
            for i in range {
                let (head, tile) = (i / shared.len(), &shared[i % shared.len()]);
                merge(work, &inputs, tile, head, partials, &target);
            }
        });
        true
    }
}

/// Prefetches the first keys that a tile sees.
fn prefetch_keys(inputs: &Inputs<'_>, tile: &Tile, head: usize) {
    let span = &inputs.spans[tile.span];
    let first = inputs.heads.seen(span.position + tile.tokens.start).start.max(tile.splits.start * SPLIT);
    prefetch(inputs.place(span, first / BLOCK_TOKENS, head), inputs.layout.values());
}

dispatch! {
    /// Attention of the tokens of `tile` for one head of keys and values.
    attention = attention_body(
        work: &mut Work,
        inputs: &Inputs<'_>,
        tile: &Tile,
        head: usize,
        partials: &Target<f32>,
        out: &Target<f32>,
    )
}

#[inline(always)]
fn attention_body<S: Simd>(
    work: &mut Work,
    inputs: &Inputs<'_>,
    tile: &Tile,
    head: usize,
    partials: &Target<f32>,
    out: &Target<f32>,
) {
    match inputs.layout.format {
        Format::F32 => attention_as::<S, f32>(work, inputs, tile, head, partials, out),
        Format::F16 => attention_as::<S, f16>(work, inputs, tile, head, partials, out),
        Format::Q8 => attention_as::<S, i8>(work, inputs, tile, head, partials, out),
    }
}

#[inline(always)]
fn attention_as<S: Simd, T: KvElement>(
    work: &mut Work,
    inputs: &Inputs<'_>,
    tile: &Tile,
    head: usize,
    partials: &Target<f32>,
    out: &Target<f32>,
) {
    let span = &inputs.spans[tile.span];
    let group = inputs.heads.n_head / inputs.heads.n_head_kv;
    let room = inputs.layout.value_room();
    let rows = tile.tokens.len() * group;
    load(work, inputs, span, tile, head);
    let first = inputs.heads.seen(span.position + tile.tokens.start).start;
    let seen = first..span.position + tile.tokens.end;
    for split in tile.splits.clone() {
        work.running.begin(rows, room);
        let keys = seen.start.max(split * SPLIT)..seen.end.min((split + 1) * SPLIT);
        let mut chunk = keys.start / CHUNK * CHUNK;
        while chunk < keys.end {
            let part = keys.start.max(chunk)..keys.end.min(chunk + CHUNK);
            score_tile::<S, T>(work, inputs, span, tile, head, chunk, part);
            chunk += CHUNK;
        }
        if let Some(start) = tile.partial {
            // All splits of the heads before come first.
            let all = tile_splits(inputs, span, tile) * split_len(tile, group, room);
            let at = start + head * all;
            // SAFETY: `plan` made room for it, and nobody else has the same split and head.
            let to = unsafe { std::slice::from_raw_parts_mut(partials.at(at), split_len(tile, group, room)) };
            work.running.save(rows, room, to);
        } else if split == tile.splits.start {
            std::mem::swap(&mut work.running, &mut work.merged);
        } else {
            let OnlineSoftmax { acc, row_max, row_sum } = &work.running;
            work.merged.add(acc, row_max, row_sum, rows, room);
        }
    }
    if tile.partial.is_none() {
        finish(work, inputs, span, tile, head, out);
    }
}

/// Loads the scaled queries of a tile, those of a token side by side.
#[inline(always)]
fn load(work: &mut Work, inputs: &Inputs<'_>, span: &AttentionSpan, tile: &Tile, head: usize) {
    let heads = inputs.heads;
    let run = heads.n_head / heads.n_head_kv * heads.head_dim;
    for (token, queries) in tile.tokens.clone().zip(work.queries.chunks_exact_mut(run)) {
        let start = (span.row + token) * inputs.stride + head * run;
        let from = &inputs.queries[start..start + run];
        queries.iter_mut().zip(from).for_each(|(to, from)| *to = from * heads.scale);
    }
}

/// Scores of the tile's queries with the keys `part`, which lie in the chunk that begins at key `chunk`,
/// their softmax, and the weighted sums of the values.
#[inline(always)]
fn score_tile<S: Simd, T: KvElement>(
    work: &mut Work,
    inputs: &Inputs<'_>,
    span: &AttentionSpan,
    tile: &Tile,
    head: usize,
    chunk: usize,
    part: Range<usize>,
) {
    let (heads, layout) = (inputs.heads, &inputs.layout);
    let group = heads.n_head / heads.n_head_kv;
    let rows = tile.tokens.len() * group;
    let blocks = part.start / BLOCK_TOKENS..part.end.div_ceil(BLOCK_TOKENS);
    let place = |block: usize| inputs.place(span, block, head);
    let (room, scales) = (layout.value_room(), layout.scales());
    for block in blocks.clone() {
        let at = place(block);
        // With few rows the reads take longer than the products.
        prefetch(at.wrapping_add(layout.values()), layout.bytes - layout.values());
        if block + 1 < span.blocks.len() {
            prefetch(place(block + 1), layout.values());
        }
        let keys = Keys::<T> {
            elements: at.cast(),
            scale: at.wrapping_add(layout.key_scales()).cast(),
            head_dim: heads.head_dim,
            scales,
        };
        let column = block * BLOCK_TOKENS - chunk;
        let lhs = Lhs { at: work.queries.as_ptr(), stride: heads.head_dim, rows, len: heads.head_dim };
        let sums = Sums { at: work.scores[column..].as_mut_ptr(), stride: CHUNK, add: false };
        // SAFETY: the processor has what `S` stands for; a block has keys for `BLOCK_TOKENS` columns, which
        // fit into the scores' rows, and those are as many as there are rows of queries.
        unsafe { multiply::<S::Vector, _>(lhs, keys, BLOCK_TOKENS / S::Vector::LANES, sums) };
    }
    let columns = blocks.start * BLOCK_TOKENS - chunk..blocks.end * BLOCK_TOKENS - chunk;
    let OnlineSoftmax { acc, row_max, row_sum } = &mut work.running;
    for row in 0..rows {
        let scores = &mut work.scores[row * CHUNK..][columns.clone()];
        let visible = heads.seen(span.position + tile.tokens.start + row / group);
        let from = visible.start.clamp(chunk + columns.start, chunk + columns.end) - chunk - columns.start;
        let to = visible.end.clamp(chunk + columns.start, chunk + columns.end) - chunk - columns.start;
        let acc = &mut acc[row * room..(row + 1) * room];
        online_softmax(scores, from..to.max(from), heads.softcap, acc, &mut row_max[row], &mut row_sum[row]);
    }
    for block in blocks {
        let at = place(block);
        let tokens = part.start.max(block * BLOCK_TOKENS)..part.end.min((block + 1) * BLOCK_TOKENS);
        let (first, column) = (tokens.start - block * BLOCK_TOKENS, tokens.start - chunk);
        let values = Values::<T> {
            elements: at.wrapping_add(layout.values()).cast::<T>().wrapping_add(first * room),
            scale: at.wrapping_add(layout.value_scales()).cast::<f32>().wrapping_add(first * scales),
            room,
            scales,
        };
        let lhs = Lhs { at: work.scores[column..].as_ptr(), stride: CHUNK, rows, len: tokens.len() };
        let sums = Sums { at: acc.as_mut_ptr(), stride: room, add: true };
        // SAFETY: as above; a row of sums has room for all vectors of a value.
        unsafe { multiply::<S::Vector, _>(lhs, values, room / S::Vector::LANES, sums) };
    }
}

/// Writes the results of a tile to their rows.
#[inline(always)]
fn finish(
    work: &Work,
    inputs: &Inputs<'_>,
    span: &AttentionSpan,
    tile: &Tile,
    head: usize,
    out: &Target<f32>,
) {
    let (heads, room) = (inputs.heads, inputs.layout.value_room());
    let (group, head_dim) = (heads.n_head / heads.n_head_kv, heads.head_dim);
    let OnlineSoftmax { acc, row_sum, .. } = &work.merged;
    for (row, (acc, row_sum)) in
        acc.chunks_exact(room).zip(row_sum).take(tile.tokens.len() * group).enumerate()
    {
        let token = span.row + tile.tokens.start + row / group;
        let at = (token * heads.n_head + head * group + row % group) * head_dim;
        // SAFETY: `run` saw that the output has a row for every token, and each token and head is finished
        // once.
        let out = unsafe { std::slice::from_raw_parts_mut(out.at(at), head_dim) };
        let factor = 1.0 / row_sum;
        out.iter_mut().zip(acc).for_each(|(out, x)| *out = x * factor);
    }
}

dispatch! {
    /// Merges the results of all splits of `tile`, in order, and finishes.
    merge = merge_body(
        work: &mut Work,
        inputs: &Inputs<'_>,
        tile: &Tile,
        head: usize,
        partials: &[f32],
        out: &Target<f32>,
    )
}

#[inline(always)]
fn merge_body<S: Simd>(
    work: &mut Work,
    inputs: &Inputs<'_>,
    tile: &Tile,
    head: usize,
    partials: &[f32],
    out: &Target<f32>,
) {
    let span = &inputs.spans[tile.span];
    let group = inputs.heads.n_head / inputs.heads.n_head_kv;
    let (rows, room) = (tile.tokens.len() * group, inputs.layout.value_room());
    let len = split_len(tile, group, room);
    let start = tile.partial.unwrap_or(0) + head * partial_len(tile, group, room);
    for (i, partial) in partials[start..].chunks_exact(len).take(tile.splits.len()).enumerate() {
        let (acc, rest) = partial.split_at(rows * room);
        let (row_max, row_sum) = rest.split_at(rows);
        if i == 0 {
            work.merged.acc[..acc.len()].copy_from_slice(acc);
            work.merged.row_max[..rows].copy_from_slice(row_max);
            work.merged.row_sum[..rows].copy_from_slice(row_sum);
        } else {
            work.merged.add(acc, row_max, row_sum, rows, room);
        }
    }
    finish(work, inputs, span, tile, head, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::BlockId;
    use exsa_core::backend::Interrupt;

    /// Numbers of no meaning between -1 and 1.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// Keys and values of a sequence, `[positions][n_head_kv][head_dim]`, and its blocks.
    struct Sequence {
        keys: Vec<f32>,
        values: Vec<f32>,
        blocks: Vec<BlockId>,
    }

    struct Case {
        heads: Heads,
        layout: HeadLayout,
        /// Words, so that it is aligned.
        cache: Vec<u64>,
        sequences: Vec<Sequence>,
    }

    impl Case {
        fn new(heads: Heads, format: Format, lengths: &[usize]) -> Self {
            let layout = HeadLayout::new(format, heads.head_dim);
            let blocks: usize = lengths.iter().map(|len| len.div_ceil(BLOCK_TOKENS)).sum();
            let words = blocks * heads.n_head_kv * layout.bytes / 8;
            // Slots that were never written are NaN, in every format.
            let mut cache = vec![u64::MAX; words];
            let mut next = blocks as BlockId;
            let sequences = lengths.iter().enumerate().map(|(i, &len)| {
                let row = heads.n_head_kv * heads.head_dim;
                let (keys, values) =
                    (numbers(len * row, 2 * i as u32 + 1), numbers(len * row, 2 * i as u32 + 2));
                // Last blocks first: neighbours in the sequence are none in memory.
                let blocks: Vec<BlockId> = (0..len.div_ceil(BLOCK_TOKENS))
                    .map(|_| {
                        next -= 1;
                        next
                    })
                    .collect();
                for position in 0..len {
                    for head in 0..heads.n_head_kv {
                        let at = position * row + head * heads.head_dim;
                        let block = blocks[position / BLOCK_TOKENS] as usize * heads.n_head_kv + head;
                        let start = cache.as_mut_ptr().cast::<u8>().wrapping_add(block * layout.bytes);
                        let (key, value) = (&keys[at..at + heads.head_dim], &values[at..at + heads.head_dim]);
                        // SAFETY: the block is in the cache, which is aligned to 8.
                        unsafe { layout.write(start, position % BLOCK_TOKENS, key, value) };
                    }
                }
                Sequence { keys, values, blocks }
            });
            let sequences = sequences.collect();
            Self { heads, layout, cache, sequences }
        }

        /// Attends with the last `len` tokens of the sequences in `spans`: pairs of index and `len`.
        fn run(&self, spans: &[(usize, usize)], threads: usize) -> Vec<f32> {
            let width = self.heads.n_head * self.heads.head_dim;
            let (mut attend_spans, mut blocks, mut queries) = (Vec::new(), Vec::new(), Vec::new());
            let mut row = 0;
            for &(index, len) in spans {
                let sequence = &self.sequences[index];
                let (first, position) = (blocks.len(), self.len(index) - len);
                blocks.extend_from_slice(&sequence.blocks);
                attend_spans.push(AttentionSpan { row, len, position, blocks: first..blocks.len() });
                queries.extend((position..position + len).flat_map(|at| self.query(index, at)));
                row += len;
            }
            let bytes = self.cache.len() * 8;
            // SAFETY: bytes of words.
            let cache = unsafe { std::slice::from_raw_parts(self.cache.as_ptr().cast::<u8>(), bytes) };
            let interrupt = Interrupt::default();
            let inputs = Inputs {
                queries: &queries,
                stride: width,
                spans: &attend_spans,
                blocks: &blocks,
                cache,
                layout: self.layout,
                heads: &self.heads,
                interrupt: &interrupt,
            };
            let mut team = Team::new(threads).unwrap();
            let sizes = AttentionSizes::new(&self.heads, &self.layout, row, 4096, threads);
            let mut attend = AttentionKernel::new(sizes);
            let mut out = vec![f32::NAN; row * width];
            assert!(attend.run(inputs, &mut team, &mut out));
            interrupt.raise();
            let interrupted = attend.run(inputs, &mut team, &mut vec![0.0; row * width]);
            assert!(!interrupted, "raised before the first tile");
            out
        }

        fn len(&self, index: usize) -> usize {
            self.sequences[index].keys.len() / (self.heads.n_head_kv * self.heads.head_dim)
        }

        fn query(&self, index: usize, position: usize) -> Vec<f32> {
            let scaled =
                numbers(self.heads.n_head * self.heads.head_dim, (index * 10_000 + position) as u32 + 77);
            scaled.into_iter().map(|x| 3.0 * x).collect()
        }

        /// The result of one token in f64, by the definition.
        fn exact(&self, index: usize, position: usize) -> Vec<f64> {
            let Heads { n_head, n_head_kv, head_dim, scale, softcap, .. } = self.heads;
            let (query, sequence) = (self.query(index, position), &self.sequences[index]);
            let mut out = Vec::new();
            for head in 0..n_head {
                let at = |key: usize| (key * n_head_kv + head / (n_head / n_head_kv)) * head_dim;
                let seen = self.heads.seen(position);
                let score = |key: usize| {
                    let key = &sequence.keys[at(key)..][..head_dim];
                    let pairs = query[head * head_dim..].iter().zip(key);
                    let score =
                        pairs.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * f64::from(scale);
                    softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                };
                let weights: Vec<f64> = seen.clone().map(|key| score(key).exp()).collect();
                let row_sum: f64 = weights.iter().sum();
                for i in 0..head_dim {
                    let values = seen.clone().map(|key| f64::from(sequence.values[at(key) + i]));
                    out.push(weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>() / row_sum);
                }
            }
            out
        }
    }

    fn heads(n_head: usize, n_head_kv: usize, head_dim: usize) -> Heads {
        Heads { n_head, n_head_kv, head_dim, scale: 0.3, softcap: None, window: None }
    }

    #[test]
    fn close_to_the_definition() {
        for (n_head, n_head_kv, head_dim) in
            [(4, 4, 8), (6, 2, 20), (5, 1, 2), (40, 2, 16), (7, 1, 80), (4, 1, 64)]
        {
            for (softcap, window) in
                [(None, None), (Some(2.0), Some(7)), (None, Some(1)), (Some(0.5), Some(600))]
            {
                for (format, tolerance) in [(Format::F32, 2e-6), (Format::F16, 2e-3), (Format::Q8, 2e-2)] {
                    let heads = Heads { softcap, window, ..heads(n_head, n_head_kv, head_dim) };
                    let case = Case::new(heads, format, &[70, 1100, 33]);
                    let spans = [(0, 70), (1, 1), (2, 12)];
                    let out = case.run(&spans, 2);
                    let mut rows = out.chunks_exact(n_head * head_dim);
                    for (index, len) in spans {
                        for position in case.len(index) - len..case.len(index) {
                            for (a, b) in rows.next().unwrap().iter().zip(case.exact(index, position)) {
                                let error = (f64::from(*a) - b).abs();
                                assert!(error < tolerance, "{:?} {format:?}: {a} for {b}", case.heads);
                            }
                        }
                    }
                }
            }
        }
    }

    /// A row's result is the same, bit by bit, alone and in any company, in chunks of any length, on any
    /// number of threads.
    #[test]
    fn rows_do_not_depend_on_the_batch() {
        for format in [Format::F32, Format::F16, Format::Q8] {
            for window in [None, Some(700)] {
                let case = Case::new(Heads { window, ..heads(6, 2, 32) }, format, &[1300, 2100, 40]);
                let width = 6 * 32;
                let whole = case.run(&[(0, 1300)], 1);
                let last = &whole[1299 * width..];
                for threads in [1, 2, 3] {
                    assert_eq!(case.run(&[(0, 1)], threads), last, "alone");
                    assert_eq!(&case.run(&[(0, 5)], threads)[4 * width..], last, "in a short chunk");
                    assert_eq!(case.run(&[(0, 1300)], threads), whole, "all on {threads} threads");
                    let acc = case.run(&[(1, 1), (0, 1), (2, 40)], threads);
                    assert_eq!(&acc[width..2 * width], last, "among others");
                    let acc = case.run(&[(1, 300), (0, 9), (2, 40)], threads);
                    assert_eq!(&acc[308 * width..309 * width], last, "among many");
                }
            }
        }
    }
}
