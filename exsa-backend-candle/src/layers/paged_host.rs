//! Attention over blocks in host memory, where they lie.
//!
//! Scores, softmax and weighted sum in one pass over the keys, with a running maximum (Milakov and Gimelshein,
//! arXiv:1805.02867). A work item is a few consecutive tokens of one span with the query heads that share a head of keys
//! and values, so that a key read from memory serves all of them.

use super::host;
use super::paged::{Heads, PagedSpan};
use crate::compute::Compute;
use crate::kv::{BLOCK_TOKENS, KvLayer};
use candle_core::{DType, Error, Result, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::sync::{Mutex, PoisonError};

/// Query vectors that a work item has, unless a single token has more.
const ITEM_QUERIES: usize = 16;

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
    /// `values` as f32, in place or in `scratch`.
    fn widen<'a>(values: &'a [Self], scratch: &'a mut Vec<f32>) -> &'a [f32];
}

impl KvValue for f32 {
    fn widen<'a>(values: &'a [Self], _: &'a mut Vec<f32>) -> &'a [f32] {
        values
    }
}

impl KvValue for f16 {
    fn widen<'a>(values: &'a [Self], scratch: &'a mut Vec<f32>) -> &'a [f32] {
        scratch.resize(values.len(), 0.0);
        values.convert_to_f32_slice(scratch);
        scratch
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
    for span in spans {
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
            let grain = (items.len() / (compute.team().threads() * 8)).max(1);
            compute.team().for_each(items.len(), grain, |range| {
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
    /// Scaled queries, `[queries, head_dim]`, those of a token side by side.
    queries: Vec<f32>,
    /// Weighted sums of values so far, `[queries, head_dim]`.
    mixed: Vec<f32>,
    /// Largest score of each query so far.
    largest: Vec<f32>,
    /// Sum of each query's weights so far.
    total: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Work {
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
        self.largest.resize(n_queries, f32::NEG_INFINITY);
        self.total.clear();
        self.total.resize(n_queries, 0.0);
    }

    fn run<T: KvValue>(
        &mut self,
        keys: &[T],
        values: &[T],
        span: &PagedSpan<'_>,
        head: usize,
        heads: &Heads,
    ) {
        let &Heads { n_head, n_head_kv, head_dim, .. } = heads;
        let group = n_head / n_head_kv;
        let width = n_head_kv * head_dim;
        let end = span.position + span.len;
        let mut position = heads.first_seen(span.position);
        while position < end {
            let within = position % BLOCK_TOKENS;
            let len = (BLOCK_TOKENS - within).min(end - position);
            let slot = span.blocks[position / BLOCK_TOKENS] as usize * BLOCK_TOKENS + within;
            let slots = slot * width..(slot + len) * width;
            let keys = T::widen(&keys[slots.clone()], &mut self.keys);
            let values = T::widen(&values[slots], &mut self.values);
            for (i, query) in self.queries.chunks_exact(head_dim).enumerate() {
                let own = span.position + i / group;
                // Tokens of this block that the query sees.
                let from = heads.first_seen(own).saturating_sub(position);
                let to = (own + 1).saturating_sub(position).min(len);
                if from >= to {
                    continue;
                }
                let mut scores = [0.0; BLOCK_TOKENS];
                let scores = &mut scores[from..to];
                let rows = |all| rows(all, width, head * head_dim, head_dim).skip(from);
                for (score, key) in scores.iter_mut().zip(rows(keys)) {
                    *score = dot(query, key);
                }
                if let Some(cap) = heads.softcap {
                    scores.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
                }
                let mixed = &mut self.mixed[i * head_dim..(i + 1) * head_dim];
                let largest = scores.iter().copied().fold(self.largest[i], f32::max);
                if largest > self.largest[i] {
                    let shrink = (self.largest[i] - largest).exp();
                    mixed.iter_mut().for_each(|value| *value *= shrink);
                    self.total[i] *= shrink;
                    self.largest[i] = largest;
                }
                for (score, value) in scores.iter().zip(rows(values)) {
                    let weight = (score - largest).exp();
                    self.total[i] += weight;
                    mixed.iter_mut().zip(value).for_each(|(mixed, value)| *mixed += weight * value);
                }
            }
            position += len;
        }
        for (mixed, total) in self.mixed.chunks_exact_mut(head_dim).zip(&self.total) {
            mixed.iter_mut().for_each(|value| *value /= total);
        }
    }
}

/// The part `[start, start + len)` of every row of `width` values.
fn rows(all: &[f32], width: usize, start: usize, len: usize) -> impl Iterator<Item = &[f32]> {
    all.chunks_exact(width).map(move |row| &row[start..start + len])
}

/// In eight partial sums, so that the processor can add them side by side.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}
