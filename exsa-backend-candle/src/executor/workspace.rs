//! Workspace and batch metadata of passes on the host, sized once for the largest batch.

use crate::config::Config;
use crate::kernels::float::AttentionSpan;
use crate::kv::BlockTables;
use crate::layers::rope::HostRopeTable;
use crate::shape::{BLOCK_TOKENS, BlockId, Slot};
use exsa_core::batch::Batch;
use exsa_core::error::LoadError;

/// Activation buffers. Pages that no batch has touched are not resident.
pub(super) struct Workspace {
    /// Hidden states, `[tokens, n_embd]`.
    pub x: Vec<f32>,
    /// The same, normalized.
    pub normed: Vec<f32>,
    /// Queries, keys and values: `[tokens, (n_head + 2 * n_head_kv) * head_dim]` from one matrix, else three
    /// matrices one after the other.
    pub qkv: Vec<f32>,
    /// Output of attention, `[tokens, n_head * head_dim]`.
    pub attended: Vec<f32>,
    /// Output of attention and MLP after their last projection, `[tokens, n_embd]`.
    pub projected: Vec<f32>,
    /// Gate and up, `[tokens, 2 * n_ff]` from one matrix, else two matrices one after the other.
    pub hidden: Vec<f32>,
}

impl Workspace {
    /// Workspace for batches of up to `tokens` tokens.
    pub fn new(config: &Config, tokens: usize) -> Result<Self, LoadError> {
        let &Config { n_embd, n_head, n_head_kv, head_dim, n_ff, .. } = config;
        let buffer = |width: usize| zeroed(tokens.saturating_mul(width));
        Ok(Self {
            x: buffer(n_embd)?,
            normed: buffer(n_embd)?,
            qkv: buffer((n_head + 2 * n_head_kv) * head_dim)?,
            attended: buffer(n_head * head_dim)?,
            projected: buffer(n_embd)?,
            hidden: buffer(2 * n_ff)?,
        })
    }
}

/// `len` zeros, which take no memory yet. A batch size that no system has memory for is an error and not the end.
fn zeroed(len: usize) -> Result<Vec<f32>, LoadError> {
    let memory = |_| LoadError::Memory {
        what: "a pass of batch_tokens_max tokens",
        needed: len as u64 * 4,
        available: 0,
    };
    Vec::<f32>::new().try_reserve_exact(len).map_err(memory)?;
    Ok(vec![0.0; len])
}

/// Batch metadata, the same for all layers: spans, blocks, slots and RoPE of its rows.
pub(super) struct BatchMetadata {
    /// The spans.
    pub spans: Vec<AttentionSpan>,
    /// Spans of the rows that want logits alone, numbered among themselves.
    pub wanted: Vec<AttentionSpan>,
    /// Blocks of all spans.
    pub blocks: Vec<BlockId>,
    /// Slot of each row.
    pub slots: Vec<Slot>,
    /// Rows that want logits, ascending.
    pub rows: Vec<u32>,
    /// RoPE of global layers, for each row.
    pub rope: HostRopeTable,
    /// RoPE of sliding-window layers, for each row.
    pub rope_sliding_window: HostRopeTable,
}

impl BatchMetadata {
    /// Fills in all but RoPE for `batch`.
    pub fn fill(&mut self, batch: &Batch, tables: &BlockTables) {
        self.spans.clear();
        self.wanted.clear();
        self.blocks.clear();
        self.slots.clear();
        self.rows.clear();
        for span in batch.spans() {
            let (row, first) = (self.slots.len(), self.blocks.len());
            self.blocks.extend_from_slice(tables.blocks(span.seq));
            let blocks = first..self.blocks.len();
            for position in span.position..span.end() {
                let block = self.blocks[first + position / BLOCK_TOKENS];
                self.slots.push(Slot { block, token: position % BLOCK_TOKENS });
            }
            if span.rows > 0 {
                let position = span.end() - span.rows;
                let wanted =
                    AttentionSpan { row: self.rows.len(), len: span.rows, position, blocks: blocks.clone() };
                self.wanted.push(wanted);
            }
            let end = (row + span.len()) as u32;
            self.rows.extend(end - span.rows as u32..end);
            self.spans.push(AttentionSpan { row, len: span.len(), position: span.position, blocks });
        }
    }
}
