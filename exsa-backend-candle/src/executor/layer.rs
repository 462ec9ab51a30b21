//! One layer of a pass on the CPU.

use super::adapters::{AdapterBatch, RowsOf};
use super::workspace::{BatchMetadata, Workspace};
use crate::adapters::{Place, Projection};
use crate::error::CandleError;
use crate::kernels::float::Inputs;
use crate::kernels::float::attention::AttentionKernel;
use crate::kernels::float::kv_layout::HeadLayout;
use crate::kernels::float::rows::{self, Cache, HeadNorm, HeadRows, Residual, RopeTable};
use crate::kernels::memory::team::Team;
use crate::layers::attention::Qkv;
use crate::layers::linear::{Activations, Linear};
use crate::layers::mlp::GateUp;
use crate::layers::norm::{Input, RmsNorm};
use crate::transformer::Layer;
use exsa_core::backend::Interrupt;
use exsa_core::error::StepError;
use exsa_models::Config;

/// Operands of a layer. `workspace.normed` holds the input of its attention, and at the end that of the next.
pub(super) struct Pass<'a> {
    pub index: usize,
    pub layer: &'a Layer,
    pub config: &'a Config,
    pub workspace: &'a mut Workspace,
    pub metadata: &'a BatchMetadata,
    pub rope: RopeTable<'a>,
    pub layout: HeadLayout,
    pub cache: &'a mut [u8],
    pub attention: &'a mut AttentionKernel,
    pub activations: &'a mut Activations,
    pub adapters: &'a mut AdapterBatch,
    pub team: &'a mut Team,
    pub interrupt: &'a Interrupt,
    /// Rows to go on with after keys and values are written, if not all.
    pub wanted: Option<&'a [u32]>,
}

impl Pass<'_> {
    /// Adds what attention gives to the hidden states of `n` rows, or of those that are wanted, and makes the
    /// input of the MLP. Returns how many rows that are.
    pub fn attention(&mut self, n: usize) -> Result<usize, StepError> {
        let Self { layer, wanted, index, .. } = *self;
        let place = |projection| Place::Layer(index, projection);
        let rows_after = if wanted.is_some() { RowsOf::Wanted } else { RowsOf::Batch };
        let attention = &layer.attention;
        let heads = &attention.heads;
        let (width, width_kv) = (heads.n_head * heads.head_dim, heads.n_head_kv * heads.head_dim);
        let all = width + 2 * width_kv;
        let n_embd = self.config.n_embd;
        let m = wanted.map_or(n, <[u32]>::len);
        let head_rows = |start, stride, heads, norm| HeadRows {
            start,
            stride,
            heads,
            head_dim: attention.heads.head_dim,
            norm,
        };
        let Workspace { x, normed, qkv, attended, projected, .. } = &mut *self.workspace;
        let (x, normed) = (&mut x[..n * n_embd], &mut normed[..n * n_embd]);
        let (team, activations, adapters) = (&mut *self.team, &mut *self.activations, &mut *self.adapters);
        let qkv = &mut qkv[..n * all];
        // Starts and row strides of queries, keys and values.
        let (starts, strides) = match &attention.input {
            Qkv::Split { query, key, value } => {
                let (q, kv) = qkv.split_at_mut(n * width);
                let (k, v) = kv.split_at_mut(n * width_kv);
                match wanted {
                    None => {
                        let outputs = [(query, &mut *q), (key, &mut *k), (value, &mut *v)];
                        Linear::multiply(outputs, normed, n, team, activations).step()?;
                        let outputs = [
                            (place(Projection::Query), q),
                            (place(Projection::Key), k),
                            (place(Projection::Value), v),
                        ];
                        adapters.add(outputs, normed, n_embd, RowsOf::Batch, team);
                    }
                    Some(rows) => {
                        let outputs = [(key, &mut *k), (value, &mut *v)];
                        Linear::multiply(outputs, normed, n, team, activations).step()?;
                        let outputs = [(place(Projection::Key), k), (place(Projection::Value), v)];
                        adapters.add(outputs, normed, n_embd, RowsOf::Batch, team);
                        rows::pack(normed, n_embd, n_embd, Some(rows));
                        if m > 0 {
                            let (q, normed) = (&mut q[..m * width], &normed[..m * n_embd]);
                            Linear::multiply([(query, &mut *q)], normed, m, team, activations).step()?;
                            let output = [(place(Projection::Query), q)];
                            adapters.add(output, normed, n_embd, RowsOf::Wanted, team);
                        }
                    }
                }
                ([0, n * width, n * (width + width_kv)], [width, width_kv])
            }
            Qkv::Fused(input) => {
                Linear::multiply([(input, &mut *qkv)], normed, n, team, activations).step()?;
                let output = [(place(Projection::Query), &mut *qkv)];
                adapters.add(output, normed, n_embd, RowsOf::Batch, team);
                ([0, width, width + width_kv], [all, all])
            }
        };
        let keys = head_rows(starts[1], strides[1], heads.n_head_kv, attention.key_norm.host());
        let values = head_rows(starts[2], strides[1], heads.n_head_kv, HeadNorm::Absent);
        let cache = Cache { bytes: &mut *self.cache, layout: self.layout, slots: &self.metadata.slots };
        rows::write_keys(qkv, keys, values, self.rope, cache, team);
        if m == 0 {
            return Ok(0);
        }
        if let Some(rows) = wanted {
            rows::pack(x, n_embd, n_embd, Some(rows));
            if let Qkv::Fused(_) = &attention.input {
                rows::pack(qkv, all, all, Some(rows));
                if let Input::Shared = &layer.mlp_input {
                    rows::pack(normed, n_embd, n_embd, Some(rows));
                }
            }
        }
        let queries = head_rows(0, strides[0], heads.n_head, attention.query_norm.host());
        rows::apply_rope(qkv, queries, m, wanted, self.rope, team);
        let inputs = Inputs {
            queries: qkv,
            stride: strides[0],
            spans: if wanted.is_some() { &self.metadata.wanted } else { &self.metadata.spans },
            blocks: &self.metadata.blocks,
            cache: self.cache,
            layout: self.layout,
            heads,
            interrupt: self.interrupt,
        };
        let (attended, projected) = (&mut attended[..m * width], &mut projected[..m * n_embd]);
        if !self.attention.run(inputs, team, attended) {
            return Err(StepError::Interrupted);
        }
        let output = [(&attention.output, &mut *projected)];
        Linear::multiply(output, attended, m, team, activations).step()?;
        let output = [(place(Projection::AttentionOutput), &mut *projected)];
        adapters.add(output, attended, width, rows_after, team);
        let norm = layer.post_attention_norm.as_ref().map(RmsNorm::host);
        let residual = Residual { norm, scale: layer.residual_scale };
        let (x, normed) = (&mut x[..m * n_embd], &mut normed[..m * n_embd]);
        rows::add(x, projected, residual, layer.mlp_input.host(), n_embd, normed, team);
        Ok(m)
    }

    /// Adds what the MLP gives to the hidden states of the rows that attention left, and makes the input
    /// `next` of them.
    pub fn mlp(&mut self, next: &Input) -> Result<(), StepError> {
        let (mlp, index) = (&self.layer.mlp, self.index);
        let place = |projection| Place::Layer(index, projection);
        let rows_of = if self.wanted.is_some() { RowsOf::Wanted } else { RowsOf::Batch };
        let (n_embd, n_ff) = (self.config.n_embd, mlp.n_ff);
        let m = self.wanted.map_or(self.metadata.slots.len(), <[u32]>::len);
        let Workspace { x, normed, projected, hidden, .. } = &mut *self.workspace;
        let (x, normed) = (&mut x[..m * n_embd], &mut normed[..m * n_embd]);
        let (team, activations, adapters) = (&mut *self.team, &mut *self.activations, &mut *self.adapters);
        let hidden = &mut hidden[..m * mlp.hidden_width()];
        match &mlp.input {
            GateUp::Split { gate, up } => {
                let (g, u) = hidden.split_at_mut(m * n_ff);
                let outputs = [(gate, &mut *g), (up, &mut *u)];
                Linear::multiply(outputs, normed, m, team, activations).step()?;
                let outputs = [(place(Projection::Gate), &mut *g), (place(Projection::Up), &mut *u)];
                adapters.add(outputs, normed, n_embd, rows_of, team);
                rows::gate(mlp.activation, g, Some(u), n_ff, team);
            }
            GateUp::Fused(both) => {
                Linear::multiply([(both, &mut *hidden)], normed, m, team, activations).step()?;
                let output = [(place(Projection::Up), &mut *hidden)];
                adapters.add(output, normed, n_embd, rows_of, team);
                rows::gate(mlp.activation, hidden, None, n_ff, team);
            }
            GateUp::Ungated(up) => {
                let hidden = &mut hidden[..m * n_ff];
                Linear::multiply([(up, &mut *hidden)], normed, m, team, activations).step()?;
                let output = [(place(Projection::Up), &mut *hidden)];
                adapters.add(output, normed, n_embd, rows_of, team);
                rows::activate(mlp.activation, hidden, team);
            }
        }
        let projected = &mut projected[..m * n_embd];
        let output = [(&mlp.down, &mut *projected)];
        Linear::multiply(output, &hidden[..m * n_ff], m, team, activations).step()?;
        let output = [(place(Projection::Down), &mut *projected)];
        adapters.add(output, &hidden[..m * n_ff], n_ff, rows_of, team);
        let norm = self.layer.post_mlp_norm.as_ref().map(RmsNorm::host);
        let residual = Residual { norm, scale: self.layer.residual_scale };
        rows::add(x, projected, residual, next.host(), n_embd, normed, team);
        Ok(())
    }
}
