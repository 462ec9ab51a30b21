//! Attention over keys and values that lie in blocks.

use crate::kv::KvLayer;
use crate::shape::{BLOCK_TOKENS, BlockId};
use candle_core::{D, DType, Result, Tensor};
use exsa_models::Heads;

/// A span of a batch, and where its sequence lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PagedSpan<'a> {
    /// Row of the batch that its first token is.
    pub row: usize,
    /// Number of tokens.
    pub len: usize,
    /// Position of its first token.
    pub position: usize,
    /// The blocks of its sequence, up to its last token at least.
    pub blocks: &'a [BlockId],
}

/// For each row of `queries`, `[tokens, n_head, head_dim]` f32, the mean of the values that it sees, weighted
/// by the softmax of its scores: `[tokens, n_head * head_dim]` f32. The tokens' own keys and values are in
/// `kv` already.
///
/// Span by span, in candle's operations; the keys and values of a sequence are gathered first.
pub(crate) fn attention(
    queries: &Tensor,
    kv: &KvLayer,
    spans: &[PagedSpan<'_>],
    heads: &Heads,
) -> Result<Tensor> {
    let &Heads { n_head, n_head_kv, head_dim, .. } = heads;
    let group = n_head / n_head_kv;
    let device = queries.device();
    let mut outputs = Vec::with_capacity(spans.len());
    for span in spans {
        let end = span.position + span.len;
        // Blocks that no token of the span sees stay behind.
        let first_block = heads.seen(span.position).start / BLOCK_TOKENS;
        let first = first_block * BLOCK_TOKENS;
        let seen = end - first;
        let blocks = Tensor::new(&span.blocks[first_block..end.div_ceil(BLOCK_TOKENS)], device)?;
        // [n_head_kv, seen, head_dim]
        let gather = |tensor: &Tensor| {
            let n_blocks = tensor.dim(0)? / BLOCK_TOKENS;
            tensor
                .reshape((n_blocks, BLOCK_TOKENS, n_head_kv, head_dim))?
                .index_select(&blocks, 0)?
                .flatten(0, 1)?
                .narrow(0, 0, seen)?
                .to_dtype(DType::F32)?
                .transpose(0, 1)?
                .contiguous()
        };
        let (keys, values) = (gather(&kv.keys)?, gather(&kv.values)?);
        // [n_head_kv, group * len, head_dim], the rows of a head side by side.
        let queries = queries
            .narrow(0, span.row, span.len)?
            .reshape((span.len, n_head_kv, group, head_dim))?
            .permute((1, 2, 0, 3))?
            .reshape((n_head_kv, group * span.len, head_dim))?
            .contiguous()?;
        let mut scores = (queries.matmul(&keys.t()?)? * f64::from(heads.scale))?;
        if let Some(cap) = heads.softcap {
            scores = ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?;
        }
        let mut mask = Vec::with_capacity(span.len * seen);
        for position in span.position..end {
            let visible = heads.seen(position);
            mask.extend((first..end).map(|key| if visible.contains(&key) { 0.0 } else { f32::NEG_INFINITY }));
        }
        let mask = Tensor::from_vec(mask, (1, 1, span.len, seen), device)?;
        let scores = scores.reshape((n_head_kv, group, span.len, seen))?.broadcast_add(&mask)?;
        let weights = softmax(&scores)?.reshape((n_head_kv, group * span.len, seen))?;
        let attended = weights
            .matmul(&values)?
            .reshape((n_head_kv, group, span.len, head_dim))?
            .permute((2, 0, 1, 3))?
            .reshape((span.len, n_head * head_dim))?;
        outputs.push(attended);
    }
    Tensor::cat(&outputs, 0)
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}
