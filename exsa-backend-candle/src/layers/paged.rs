//! Attention over keys and values that lie in blocks.

use super::paged_host;
use crate::compute::Compute;
use crate::kv::{BLOCK_TOKENS, BlockId, KvLayer};
use candle_core::{D, DType, Result, Tensor};

/// The heads of a layer, and what their scores go through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Heads of queries.
    pub n_head: usize,
    /// Heads of keys and values; `n_head / n_head_kv` consecutive heads of queries share one.
    pub n_head_kv: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Scores go through `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Tokens that a token sees, itself included; `None` for all.
    pub window: Option<usize>,
}

impl Heads {
    /// Position of the first token that a token at `position` sees.
    pub fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

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

/// For each row of `queries`, `[tokens, n_head, head_dim]` f32, the mean of the values that it sees, weighted by the softmax
/// of its scores: `[tokens, n_head * head_dim]` f32. The tokens' own keys and values are in `kv` already.
pub(crate) fn attend(
    queries: &Tensor,
    kv: &KvLayer,
    spans: &[PagedSpan<'_>],
    heads: &Heads,
    compute: &Compute,
) -> Result<Tensor> {
    if queries.device().is_cpu() {
        paged_host::attend(queries, kv, spans, heads, compute)
    } else {
        attend_composed(queries, kv, spans, heads)
    }
}

/// [`attend`] in candle's operations, span by span; the keys and values of a sequence are gathered first.
fn attend_composed(queries: &Tensor, kv: &KvLayer, spans: &[PagedSpan<'_>], heads: &Heads) -> Result<Tensor> {
    let &Heads { n_head, n_head_kv, head_dim, .. } = heads;
    let group = n_head / n_head_kv;
    let device = queries.device();
    let mut outputs = Vec::with_capacity(spans.len());
    for span in spans {
        let end = span.position + span.len;
        // Blocks that no token of the span sees stay behind.
        let first_block = heads.first_seen(span.position) / BLOCK_TOKENS;
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
            let visible = heads.first_seen(position)..=position;
            mask.extend((first..end).map(|key| if visible.contains(&key) { 0.0 } else { f32::NEG_INFINITY }));
        }
        let mask = Tensor::from_vec(mask, (1, 1, span.len, seen), device)?;
        let scores = scores.reshape((n_head_kv, group, span.len, seen))?.broadcast_add(&mask)?;
        let weights = softmax(&scores)?.reshape((n_head_kv, group * span.len, seen))?;
        let mixed = weights
            .matmul(&values)?
            .reshape((n_head_kv, group, span.len, head_dim))?
            .permute((2, 0, 1, 3))?
            .reshape((span.len, n_head * head_dim))?;
        outputs.push(mixed);
    }
    Tensor::cat(&outputs, 0)
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn heads(n_head: usize, n_head_kv: usize, head_dim: usize) -> Heads {
        Heads { n_head, n_head_kv, head_dim, scale: 0.3, softcap: None, window: None }
    }

    fn layer(slots: usize, heads: &Heads, dtype: DType) -> KvLayer {
        let random = || {
            let shape = (slots, heads.n_head_kv, heads.head_dim);
            Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
        };
        KvLayer { keys: random(), values: random() }
    }

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn both_ways_agree() {
        let compute = Compute::new(&Default::default()).unwrap();
        let blocks: Vec<BlockId> = vec![6, 1, 3, 0, 5, 2];
        let spans = [
            PagedSpan { row: 0, len: 70, position: 0, blocks: &blocks[..3] },
            PagedSpan { row: 70, len: 1, position: 95, blocks: &blocks[1..4] },
            PagedSpan { row: 71, len: 33, position: 61, blocks: &blocks[3..] },
        ];
        for (n_head, n_head_kv, head_dim) in [(4, 4, 8), (6, 2, 20), (5, 1, 3), (40, 2, 16)] {
            for (softcap, window) in
                [(None, None), (Some(2.0), Some(7)), (None, Some(1)), (Some(0.5), Some(64))]
            {
                for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 1e-5)] {
                    let heads = Heads { softcap, window, ..heads(n_head, n_head_kv, head_dim) };
                    let kv = layer(7 * BLOCK_TOKENS, &heads, dtype);
                    let q = Tensor::randn(0f32, 1.0, (104, n_head, head_dim), &Device::Cpu).unwrap();
                    let host = paged_host::attend(&q, &kv, &spans, &heads, &compute).unwrap();
                    let composed = attend_composed(&q, &kv, &spans, &heads).unwrap();
                    assert!(worst(&host, &composed) < tolerance, "{heads:?} {dtype:?}");
                }
            }
        }
    }

    #[test]
    fn a_window_of_one_sees_its_own_value() {
        let compute = Compute::new(&Default::default()).unwrap();
        let heads = Heads { window: Some(1), ..heads(2, 1, 4) };
        let kv = layer(BLOCK_TOKENS, &heads, DType::F32);
        let q = Tensor::randn(0f32, 1.0, (3, 2, 4), &Device::Cpu).unwrap();
        let spans = [PagedSpan { row: 0, len: 3, position: 5, blocks: &[0] }];
        let out = attend(&q, &kv, &spans, &heads, &compute).unwrap().reshape((3, 2, 4)).unwrap();
        let values = kv.values.narrow(0, 5, 3).unwrap();
        assert!(worst(&out.narrow(1, 1, 1).unwrap(), &values) < 1e-6);
    }
}
