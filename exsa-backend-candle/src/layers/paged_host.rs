//! Attention over blocks in host memory, where they lie.
//!
//! A work item is a few consecutive tokens of one span with the query heads that share a head of keys and values, so that
//! a key read from memory serves all of them.

use super::host;
use super::paged::{Heads, PagedSpan};
use crate::compute::Compute;
use crate::kernels::attend::{self, Block, KEYS_MAX, Queries};
use crate::kv::{BLOCK_TOKENS, KvLayer};
use candle_core::{DType, Error, Result, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Query vectors that a work item has, unless a single token has more.
const ITEM_QUERIES: usize = 24;

/// Multiplications per score and sum below which other threads are left alone.
const SHARED_PRODUCTS_MIN: usize = 1 << 15;

const _: () = assert!(BLOCK_TOKENS <= KEYS_MAX);

/// Attends as [`paged::attend`](super::paged::attend) says.
pub(super) fn attend(
    queries: &Tensor,
    kv: &KvLayer,
    spans: &[PagedSpan<'_>],
    heads: &Heads,
    compute: &Compute,
) -> Result<Tensor> {
    let (tokens, _, _) = queries.dims3()?;
    let mut out = vec![0.0; tokens * heads.n_head * heads.head_dim];
    host::read(&queries.contiguous()?, |queries: &[f32]| match kv.keys.dtype() {
        DType::F32 => attend_as::<f32>(queries, kv, spans, heads, &mut out, compute),
        DType::F16 => attend_as::<f16>(queries, kv, spans, heads, &mut out, compute),
        other => Err(Error::Msg(format!("keys and values of type {other:?}"))),
    })??;
    Tensor::from_vec(out, (tokens, heads.n_head * heads.head_dim), queries.device())
}

/// A type that keys and values are held in.
trait KvValue: candle_core::WithDType {
    /// Of rows of `width` values, the parts from `start` on, in f32: a slice that begins with the first part, and the
    /// distance of two of them. `len` is the length of a part.
    fn part<'a>(
        rows: &'a [Self],
        width: usize,
        start: usize,
        len: usize,
        scratch: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize);
}

impl KvValue for f32 {
    fn part<'a>(
        rows: &'a [Self],
        width: usize,
        start: usize,
        _: usize,
        _: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        (&rows[start..], width)
    }
}

impl KvValue for f16 {
    fn part<'a>(
        rows: &'a [Self],
        width: usize,
        start: usize,
        len: usize,
        scratch: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        let rows = rows.chunks_exact(width);
        scratch.resize(rows.len() * len, 0.0);
        for (row, out) in rows.zip(scratch.chunks_exact_mut(len)) {
            row[start..start + len].convert_to_f32_slice(out);
        }
        (scratch, len)
    }
}

fn attend_as<T: KvValue>(
    queries: &[f32],
    kv: &KvLayer,
    spans: &[PagedSpan<'_>],
    heads: &Heads,
    out: &mut [f32],
    compute: &Compute,
) -> Result<()> {
    let group = heads.n_head / heads.n_head_kv;
    let item_tokens = (ITEM_QUERIES / group).max(1);
    let mut items = Vec::new();
    let mut pairs = 0;
    for span in spans {
        let seen = heads.window.unwrap_or(usize::MAX).min(span.position + span.len);
        pairs += span.len * seen;
        for start in (0..span.len).step_by(item_tokens) {
            let len = item_tokens.min(span.len - start);
            let part = PagedSpan { row: span.row + start, position: span.position + start, len, ..*span };
            items.extend((0..heads.n_head_kv).map(|head| (part, head)));
        }
    }
    // What one token and one head of keys and values gives is a run of its own.
    let outputs: Vec<Mutex<&mut [f32]>> = out.chunks_mut(group * heads.head_dim).map(Mutex::new).collect();
    host::read(&kv.keys, |keys: &[T]| {
        host::read(&kv.values, |values: &[T]| {
            let mut team = compute.team();
            let small = pairs * heads.n_head * heads.head_dim < SHARED_PRODUCTS_MIN;
            let grain = if small { items.len() } else { items.len() / (team.threads() * 8) };
            team.for_each(items.len(), grain, |range| {
                let mut work = Work::default();
                for (span, head) in &items[range] {
                    work.load(queries, span, *head, heads);
                    work.run(keys, values, span, *head, heads);
                    for (token, mixed) in work.mixed.chunks_exact(group * heads.head_dim).enumerate() {
                        let index = (span.row + token) * heads.n_head_kv + head;
                        let mut output = outputs[index].lock().unwrap_or_else(PoisonError::into_inner);
                        output.copy_from_slice(mixed);
                    }
                }
            });
        })
    })?
}

/// Memory of one thread.
#[derive(Default)]
struct Work {
    queries: Vec<f32>,
    mixed: Vec<f32>,
    largest: Vec<f32>,
    total: Vec<f32>,
    scores: Vec<f32>,
    visible: Vec<Range<usize>>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Work {
    /// Takes the queries of a work item, those of a token side by side.
    fn load(&mut self, queries: &[f32], span: &PagedSpan<'_>, head: usize, heads: &Heads) {
        let width = heads.n_head * heads.head_dim;
        let run = width / heads.n_head_kv;
        self.queries.clear();
        for token in 0..span.len {
            let start = (span.row + token) * width + head * run;
            self.queries.extend(queries[start..start + run].iter().map(|q| q * heads.scale));
        }
        let n_queries = self.queries.len() / heads.head_dim;
        self.mixed.clear();
        self.mixed.resize(self.queries.len(), 0.0);
        self.largest.clear();
        // Not infinity, so that the difference of two of them is a number.
        self.largest.resize(n_queries, f32::MIN);
        self.total.clear();
        self.total.resize(n_queries, 0.0);
        self.scores.resize(n_queries * KEYS_MAX, 0.0);
    }

    /// Attends to everything that the work item sees, block by block.
    fn run<T: KvValue>(
        &mut self,
        keys: &[T],
        values: &[T],
        span: &PagedSpan<'_>,
        head: usize,
        heads: &Heads,
    ) {
        let &Heads { n_head, n_head_kv, head_dim, softcap, .. } = heads;
        let group = n_head / n_head_kv;
        let width = n_head_kv * head_dim;
        let end = span.position + span.len;
        // Blocks are cut where they begin, whatever the span, so that a token's sums have one order only.
        let first = heads.first_seen(span.position) / BLOCK_TOKENS * BLOCK_TOKENS;
        for position in (first..end).step_by(BLOCK_TOKENS) {
            let len = BLOCK_TOKENS.min(end - position);
            let slot = span.blocks[position / BLOCK_TOKENS] as usize * BLOCK_TOKENS;
            let slots = slot * width..(slot + len) * width;
            let (keys, stride) =
                T::part(&keys[slots.clone()], width, head * head_dim, head_dim, &mut self.keys);
            let (values, _) = T::part(&values[slots], width, head * head_dim, head_dim, &mut self.values);
            self.visible.clear();
            self.visible.extend((span.position..end).flat_map(|own| {
                let from = heads.first_seen(own).saturating_sub(position);
                let to = (own + 1).saturating_sub(position).min(len);
                std::iter::repeat_n(from.min(to)..to, group)
            }));
            let mut queries = Queries {
                queries: &self.queries,
                mixed: &mut self.mixed,
                largest: &mut self.largest,
                total: &mut self.total,
                scores: &mut self.scores,
            };
            let visible = &self.visible;
            attend::attend(&mut queries, &Block { keys, values, stride, len, head_dim, softcap, visible });
        }
        for (mixed, total) in self.mixed.chunks_exact_mut(head_dim).zip(&self.total) {
            mixed.iter_mut().for_each(|value| *value /= total);
        }
    }
}
