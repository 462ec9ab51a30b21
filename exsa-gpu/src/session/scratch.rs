//! Memory of passes on the device, allocated once.

use crate::device::{Device, DeviceError, Limits};
use exsa_core::backend::Capabilities;
use exsa_models::Config;

/// Bytes of logits that are computed at once, about.
const LOGIT_BYTES: usize = 16 << 20;

/// Sizes of the memory of passes, in values of 4 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScratchSizes {
    /// Tokens of a batch.
    tokens: usize,
    n_embd: usize,
    qkv: usize,
    attended: usize,
    hidden: usize,
    n_ff: usize,
    /// Rows of logits that are computed at once.
    pub logit_rows: usize,
    n_vocab: usize,
    /// Threadgroups of attention that a pass is split into at most, or the rows of a batch.
    pub split_groups: usize,
    parts: usize,
}

/// Memory of passes. Rows are those of the batch.
#[derive(Debug)]
pub(crate) struct Scratch<D: Device> {
    /// Hidden states, `[tokens, n_embd]`, and memory for those of chosen rows.
    pub x: [D::Buffer; 2],
    /// Inputs of projections, `[tokens, n_embd]`, and memory for those of chosen rows.
    pub input: [D::Buffer; 2],
    /// Queries, keys and values, `[tokens, (n_head + 2 * n_head_kv) * head_dim]`.
    pub qkv: D::Buffer,
    /// Outputs of the heads, `[tokens, n_head * head_dim]`.
    pub attended: D::Buffer,
    /// Sums for the hidden states, `[tokens, n_embd]`.
    pub projected: D::Buffer,
    /// Gates and values of the MLP, `[tokens, 2 * n_ff]`.
    pub hidden: D::Buffer,
    /// Their product, `[tokens, n_ff]`.
    pub active: D::Buffer,
    /// `[logit_rows, n_vocab]`.
    pub logits: D::Buffer,
    /// Parts of attention that is split.
    pub parts: D::Buffer,
}

impl ScratchSizes {
    pub fn new(config: &Config, n_vocab: usize, limits: Limits, capabilities: &Capabilities) -> Self {
        let tokens = capabilities.batch_tokens_max;
        let &Config { n_embd, n_head, n_head_kv, head_dim, n_ff, .. } = config;
        let logit_rows = (LOGIT_BYTES / 4 / n_vocab.max(1)).clamp(1, tokens);
        let split_groups = (limits.groups_wanted as usize).max(1);
        Self {
            tokens,
            n_embd,
            qkv: (n_head + 2 * n_head_kv) * head_dim,
            attended: n_head * head_dim,
            hidden: 2 * n_ff,
            n_ff,
            logit_rows,
            n_vocab,
            split_groups,
            parts: n_head * (head_dim + 2),
        }
    }

    /// Bytes of each buffer, in the order of [`Scratch`].
    fn buffers(&self) -> [u64; 11] {
        let rows = |rows: usize, width: usize| 4 * (rows as u64).saturating_mul(width as u64);
        let of_tokens = |width| rows(self.tokens, width);
        [
            of_tokens(self.n_embd),
            of_tokens(self.n_embd),
            of_tokens(self.n_embd),
            of_tokens(self.n_embd),
            of_tokens(self.qkv),
            of_tokens(self.attended),
            of_tokens(self.n_embd),
            of_tokens(self.hidden),
            of_tokens(self.n_ff),
            rows(self.logit_rows, self.n_vocab),
            rows(self.split_groups, self.parts),
        ]
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.buffers().into_iter().fold(0, u64::saturating_add)
    }
}

impl<D: Device> Scratch<D> {
    pub fn new(device: &D, sizes: &ScratchSizes) -> Result<Self, DeviceError> {
        let [x, chosen, input, shared, qkv, attended, projected, hidden, active, logits, parts] =
            sizes.buffers();
        Ok(Self {
            x: [device.allocate(x)?, device.allocate(chosen)?],
            input: [device.allocate(input)?, device.allocate(shared)?],
            qkv: device.allocate(qkv)?,
            attended: device.allocate(attended)?,
            projected: device.allocate(projected)?,
            hidden: device.allocate(hidden)?,
            active: device.allocate(active)?,
            logits: device.allocate(logits)?,
            parts: device.allocate(parts)?,
        })
    }
}
