//! Workspace and batch metadata of passes on the host, sized once for the largest batch.

use super::Ropes;
use super::experts::{ExpertSizes, ExpertWorkspace};
use crate::kernels::float::AttentionSpan;
use crate::kernels::float::delta_rule::DeltaHeads;
use crate::kv::BlockTables;
use crate::layers::delta_net::DeltaNet;
use crate::layers::rope::HostRopeTable;
use crate::plan::SessionPlan;
use crate::shape::{BLOCK_TOKENS, BlockId, Slot};
use exsa_core::batch::Batch;
use exsa_core::error::LoadError;
use exsa_models::Config;
use exsa_models::architecture::MlpKind;

/// Purpose of the buffers of a pass, for errors.
pub(super) const PASS: &str = "a pass of batch_tokens_max tokens";

/// Activation buffers. Pages that no batch has touched are not resident.
pub(super) struct Workspace {
    /// Hidden states, `[tokens, n_embd]`.
    pub x: Vec<f32>,
    /// Input of the next attention, MLP or output projection, made of them.
    pub normed: Vec<f32>,
    /// Queries, keys and values: `[tokens, (n_head + 2 * n_head_kv) * head_dim]` from one matrix, else three
    /// matrices one after the other, and queries with their gates, `[tokens, 2 * n_head * head_dim]`, behind.
    /// Or the input projection of a short convolution, `[tokens, 3 * n_embd]`; or the inputs of a delta net.
    pub qkv: Vec<f32>,
    /// Output of attention, `[tokens, n_head * head_dim]`, or of another mixer.
    pub attended: Vec<f32>,
    /// Output of attention and MLP after their last projection, `[tokens, n_embd]`.
    pub projected: Vec<f32>,
    /// Gate and up, `[tokens, 2 * n_ff]` from one matrix, else two matrices one after the other; without a
    /// gate `[tokens, n_ff]`.
    pub hidden: Vec<f32>,
    /// Of mixtures of experts.
    pub experts: ExpertWorkspace,
}

impl Workspace {
    /// Workspace for batches of up to `tokens` tokens.
    pub fn new(config: &Config, tokens: usize) -> Result<Self, LoadError> {
        let [x, normed, qkv, attended, projected, hidden] = widths(config).map(|width| width * tokens);
        Ok(Self {
            x: zeroed(x, PASS)?,
            normed: zeroed(normed, PASS)?,
            qkv: zeroed(qkv, PASS)?,
            attended: zeroed(attended, PASS)?,
            projected: zeroed(projected, PASS)?,
            hidden: zeroed(hidden, PASS)?,
            experts: ExpertWorkspace::new(ExpertSizes::of(config), tokens)?,
        })
    }

    /// Bytes of it.
    pub fn bytes(config: &Config, tokens: usize) -> u64 {
        let buffers: u64 = widths(config).iter().map(|width| float_bytes(width * tokens)).sum();
        buffers.saturating_add(ExpertWorkspace::bytes(ExpertSizes::of(config), tokens))
    }
}

/// Values of a token in the buffers, in their order. A product with the tokens of a batch fits into `usize`.
fn widths(config: &Config) -> [usize; 6] {
    let &Config { architecture, n_embd, n_head, n_head_kv, head_dim, .. } = config;
    let n_ff = config.mlp_width();
    let hidden = if architecture.mlp == MlpKind::Ungated { n_ff } else { 2 * n_ff };
    let (mut qkv, mut attended) = ((n_head + 2 * n_head_kv) * head_dim, n_head * head_dim);
    if architecture.attention_gate {
        qkv += 2 * n_head * head_dim;
    }
    if let Some(heads) = config.delta_net.map(DeltaHeads::of) {
        qkv = qkv.max(DeltaNet::row_width(heads));
        attended = attended.max(heads.value_width());
    } else if config.is_recurrent() {
        (qkv, attended) = (qkv.max(3 * n_embd), attended.max(n_embd));
    }
    [n_embd, n_embd, qkv, attended, n_embd, hidden]
}

pub(super) fn float_bytes(len: usize) -> u64 {
    len as u64 * size_of::<f32>() as u64
}

/// `len` zeros, which take no memory yet. A batch size that no system has memory for is an error and not the
/// end.
pub(super) fn zeroed(len: usize, what: &'static str) -> Result<Vec<f32>, LoadError> {
    let memory = |_| LoadError::Memory { what, needed: float_bytes(len), available: 0 };
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

/// Lengths that [`BatchMetadata`] has room for.
struct Capacities {
    spans: usize,
    /// Those that sequences share are in the metadata several times; then they grow once.
    blocks: usize,
    tokens: usize,
}

impl Capacities {
    fn of(plan: &SessionPlan) -> Self {
        let tokens = plan.capabilities.batch_tokens_max;
        Self { spans: plan.capabilities.sequences_max.min(tokens), blocks: plan.n_blocks as usize, tokens }
    }
}

impl BatchMetadata {
    /// Room for the batches of a session by `plan`.
    pub fn new(plan: &SessionPlan, ropes: &Ropes) -> Self {
        let Capacities { spans, blocks, tokens } = Capacities::of(plan);
        Self {
            spans: Vec::with_capacity(spans),
            wanted: Vec::with_capacity(spans),
            blocks: Vec::with_capacity(blocks),
            slots: Vec::with_capacity(tokens),
            rows: Vec::with_capacity(tokens),
            rope: ropes.global.host_table_for(tokens),
            rope_sliding_window: ropes.sliding_window.host_table_for(tokens),
        }
    }

    /// Bytes of it.
    pub fn bytes(plan: &SessionPlan, config: &Config) -> u64 {
        let Capacities { spans, blocks, tokens } = Capacities::of(plan);
        let lists = 2 * spans * size_of::<AttentionSpan>()
            + blocks * size_of::<BlockId>()
            + tokens * (size_of::<Slot>() + size_of::<u32>());
        let ropes = [&config.rope, &config.rope_sliding_window];
        lists as u64 + ropes.map(|rope| HostRopeTable::bytes(tokens, rope.dims / 2)).iter().sum::<u64>()
    }

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
