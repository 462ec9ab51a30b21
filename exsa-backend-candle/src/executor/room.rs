//! Memory of the host's passes, sized once for the largest batch.

use crate::config::Config;
use crate::kernels::float::AttendSpan;
use crate::kv::BlockTables;
use crate::layers::rope::HostTable;
use crate::shape::{BLOCK_TOKENS, BlockId, Slot};
use exsa_core::batch::Batch;
use exsa_core::error::LoadError;

/// Hidden states and what is between them. Pages that no batch has come to take no memory.
pub(super) struct Room {
    /// Hidden states, `[tokens, n_embd]`.
    pub x: Vec<f32>,
    /// The same, normalized.
    pub normed: Vec<f32>,
    /// Queries, keys and values: `[tokens, (n_head + 2 * n_head_kv) * head_dim]` from one matrix, else three matrices one after the other.
    pub qkv: Vec<f32>,
    /// What attention gives, `[tokens, n_head * head_dim]`.
    pub mixed: Vec<f32>,
    /// What attention and MLP give after their last projection, `[tokens, n_embd]`.
    pub projected: Vec<f32>,
    /// Gate and up, `[tokens, 2 * n_ff]` from one matrix, else two matrices one after the other.
    pub hidden: Vec<f32>,
}

impl Room {
    /// Room for batches of up to `tokens` tokens.
    pub fn new(config: &Config, tokens: usize) -> Result<Self, LoadError> {
        let &Config { n_embd, n_head, n_head_kv, head_dim, n_ff, .. } = config;
        let room = |width: usize| zeroed(tokens.saturating_mul(width));
        Ok(Self {
            x: room(n_embd)?,
            normed: room(n_embd)?,
            qkv: room((n_head + 2 * n_head_kv) * head_dim)?,
            mixed: room(n_head * head_dim)?,
            projected: room(n_embd)?,
            hidden: room(2 * n_ff)?,
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

/// Where the rows of a batch belong, the same for all layers.
pub(super) struct Placed {
    /// The spans.
    pub spans: Vec<AttendSpan>,
    /// What the rows that want logits are of the spans, numbered by themselves.
    pub wanted: Vec<AttendSpan>,
    /// Blocks of all spans.
    pub blocks: Vec<BlockId>,
    /// Slot of each row.
    pub slots: Vec<Slot>,
    /// Rows that want logits, ascending.
    pub rows: Vec<u32>,
    /// RoPE of the layers that see everything, for each row.
    pub rope: HostTable,
    /// RoPE of the layers with a window, for each row.
    pub rope_windowed: HostTable,
}

impl Placed {
    /// Looks up everything about `batch` but RoPE.
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
                    AttendSpan { row: self.rows.len(), len: span.rows, position, blocks: blocks.clone() };
                self.wanted.push(wanted);
            }
            let end = (row + span.len()) as u32;
            self.rows.extend(end - span.rows as u32..end);
            self.spans.push(AttendSpan { row, len: span.len(), position: span.position, blocks });
        }
    }
}
