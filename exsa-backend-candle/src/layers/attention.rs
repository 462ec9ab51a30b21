//! Self-attention: projections, norms and RoPE around [`paged`] attention.

use super::linear::Linear;
use super::norm::RmsNorm;
use super::paged::{self, PagedSpan};
use super::rope::RopeTensors;
use crate::kernels::float::rows;
use crate::kv::{KvLayer, SlotRun};
use candle_core::{D, Result, Tensor};
use exsa_models::Heads;

/// Grouped-query self-attention (Ainslie et al., arXiv:2305.13245).
#[derive(Clone)]
pub(crate) struct Attention {
    /// Projections to queries, keys and values.
    pub input: Qkv,
    /// Norm of the queries.
    pub query_norm: HeadNorm,
    /// Norm of the keys.
    pub key_norm: HeadNorm,
    /// Whether `query` has, head by head, `head_dim` values of a gate behind those of the query: the head's
    /// output is multiplied by the gate's sigmoid.
    pub gated: bool,
    /// Projection back to the hidden state.
    pub output: Linear,
    /// Heads and what their scores go through.
    pub heads: Heads,
    /// The sink of each head: a score that has a part in the softmax, and no value.
    pub sinks: Option<Vec<f32>>,
}

/// Projections to queries, keys and values.
#[derive(Clone)]
pub(crate) enum Qkv {
    /// By three matrices.
    Split {
        /// `[n_head * head_dim, n_embd]`.
        query: Linear,
        /// `[n_head_kv * head_dim, n_embd]`.
        key: Linear,
        /// `[n_head_kv * head_dim, n_embd]`.
        value: Linear,
    },
    /// By one, which has the rows of the three one after the other.
    Fused(Linear),
}

/// Norm of queries or keys, before RoPE.
#[derive(Clone)]
pub(crate) enum HeadNorm {
    /// None.
    Absent,
    /// Of each head, by the same weight, `[head_dim]`.
    Each(RmsNorm),
    /// Of all heads at once, by a weight of `[heads * head_dim]`.
    Whole(RmsNorm),
}

impl HeadNorm {
    /// Normalizes `x`, `[tokens, heads, head_dim]`.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Absent => Ok(x),
            Self::Each(norm) => norm.forward(&x),
            Self::Whole(norm) => norm.forward(&x.flatten_from(1)?)?.reshape(x.shape()),
        }
    }

    /// For the host's kernels.
    pub fn host(&self) -> rows::HeadNorm<'_> {
        match self {
            Self::Absent => rows::HeadNorm::Absent,
            Self::Each(norm) => rows::HeadNorm::Each(norm.host()),
            Self::Whole(norm) => rows::HeadNorm::Whole(norm.host()),
        }
    }
}

/// Spans and slots of the rows of a batch, the same for all layers.
pub(crate) struct Placement<'a> {
    /// The spans with their blocks.
    pub spans: Vec<PagedSpan<'a>>,
    /// Slots that the new keys and values go to.
    pub runs: Vec<SlotRun>,
}

impl Attention {
    /// Appends the keys and values of `x`, `[tokens, n_embd]`, to `kv` and attends to all that each token
    /// sees. Without `rope` the heads keep no position.
    ///
    /// Returns `[tokens, n_embd]`, or only the rows listed in `rows`; `None` if these are none.
    pub fn forward(
        &self,
        x: &Tensor,
        rope: Option<&RopeTensors>,
        placement: &Placement<'_>,
        kv: &KvLayer,
        rows: Option<&Rows>,
    ) -> Result<Option<Tensor>> {
        if self.sinks.is_some() {
            candle_core::bail!("attention sinks in a pass over tensors");
        }
        let (query, key, value) = self.project(x)?;
        let rotate = |x: Tensor| match rope {
            Some(rope) => rope.apply(&x),
            None => Ok(x),
        };
        kv.write(&placement.runs, &rotate(self.key_norm.forward(key)?)?, &value)?;
        if rows.is_some_and(Rows::is_empty) {
            return Ok(None);
        }
        let query = rotate(self.query_norm.forward(query)?)?;
        let attended = paged::attention(&query, kv, &placement.spans, &self.heads)?;
        let attended = match rows {
            Some(rows) => rows.select(&attended)?,
            None => attended,
        };
        self.output.forward(&attended).map(Some)
    }

    /// Queries `[tokens, n_head, head_dim]`, keys and values `[tokens, n_head_kv, head_dim]`.
    fn project(&self, x: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let Heads { n_head, n_head_kv, head_dim, .. } = self.heads;
        let (query, key, value) = match &self.input {
            Qkv::Split { query, key, value } => (query.forward(x)?, key.forward(x)?, value.forward(x)?),
            Qkv::Fused(all) => {
                let all = all.forward(x)?;
                let part = |start: usize, heads: usize| {
                    all.narrow(D::Minus1, start * head_dim, heads * head_dim)?.contiguous()
                };
                (part(0, n_head)?, part(n_head, n_head_kv)?, part(n_head + n_head_kv, n_head_kv)?)
            }
        };
        let tokens = x.dim(0)?;
        Ok((
            query.reshape((tokens, n_head, head_dim))?,
            key.reshape((tokens, n_head_kv, head_dim))?,
            value.reshape((tokens, n_head_kv, head_dim))?,
        ))
    }
}

/// Rows of a batch to go on with.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    indices: Vec<u32>,
    /// Whether these are all rows of the batch.
    all: bool,
}

impl Rows {
    /// `indices` of a batch of `tokens` rows, ascending.
    pub fn new(indices: Vec<u32>, tokens: usize) -> Self {
        let all = indices.len() == tokens;
        Self { indices, all }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// These rows of `x`.
    pub fn select(&self, x: &Tensor) -> Result<Tensor> {
        if self.all {
            return Ok(x.clone());
        }
        x.index_select(&Tensor::new(self.indices.as_slice(), x.device())?, 0)
    }
}
