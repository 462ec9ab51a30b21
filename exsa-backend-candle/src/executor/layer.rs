//! One layer of a pass on the CPU.

use super::adapters::{AdapterBatch, RowsOf};
use super::states::States;
use super::workspace::{BatchMetadata, Workspace};
use crate::adapters::{Place, Projection};
use crate::error::CandleError;
use crate::kernels::float::Inputs;
use crate::kernels::float::attention::AttentionKernel;
use crate::kernels::float::convolution::{self, Convolution};
use crate::kernels::float::delta_rule::{self, DeltaInputs};
use crate::kernels::float::elementwise::silu;
use crate::kernels::float::rows::{self, Cache, HeadNorm, HeadRows, Residual, RopeTable};
use crate::kernels::memory::team::Team;
use crate::kv::HostKv;
use crate::layers::attention::{Attention, Qkv};
use crate::layers::delta_net::DeltaNet;
use crate::layers::experts::{Experts, FeedForward};
use crate::layers::linear::{Activations, Linear};
use crate::layers::mlp::{GateUp, Mlp};
use crate::layers::norm::{Input, RmsNorm};
use crate::layers::short_conv::ShortConv;
use crate::transformer::{Layer, Mixer};
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
    pub kv: &'a mut HostKv,
    pub states: &'a mut States,
    pub attention: &'a mut AttentionKernel,
    pub activations: &'a mut Activations,
    pub adapters: &'a mut AdapterBatch,
    pub team: &'a mut Team,
    pub interrupt: &'a Interrupt,
    /// Rows to go on with after keys and values are written, if not all.
    pub wanted: Option<&'a [u32]>,
}

impl Pass<'_> {
    /// Adds the output of the mixer to the hidden states of `n` rows, or of those that are wanted, and makes
    /// the input of the MLP. Returns how many rows that are.
    pub fn mixer(&mut self, n: usize) -> Result<usize, StepError> {
        let layer = self.layer;
        match &layer.mixer {
            Mixer::Attention(attention, kv_layer) => self.attention(attention, *kv_layer, n),
            Mixer::DeltaNet(net, state) => self.delta_net(net, *state, n),
            Mixer::ShortConv(conv, state) => self.short_conv(conv, *state, n),
        }
    }

    fn attention(&mut self, attention: &Attention, kv_layer: usize, n: usize) -> Result<usize, StepError> {
        let Self { layer, wanted, index, .. } = *self;
        let place = |projection| Place::Layer(index, projection);
        let layout = self.kv.layout();
        let kv = self.kv.layer_mut(kv_layer);
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
        let Workspace { x, normed, qkv, attended, .. } = &mut *self.workspace;
        let (x, normed) = (&mut x[..n * n_embd], &mut normed[..n * n_embd]);
        let (team, activations, adapters) = (&mut *self.team, &mut *self.activations, &mut *self.adapters);
        let (qkv, gates) = qkv.split_at_mut(n * all);
        // Queries with their gates, head by head.
        let gates = &mut gates[..if attention.gated { m * 2 * width } else { 0 }];
        // Starts and row strides of queries, keys and values.
        let (starts, strides) = match &attention.input {
            Qkv::Split { query, key, value } => {
                let (q, kv) = qkv.split_at_mut(n * width);
                let (k, v) = kv.split_at_mut(n * width_kv);
                match wanted {
                    None => {
                        let queries = if attention.gated { &mut *gates } else { &mut *q };
                        let outputs = [(query, &mut *queries), (key, &mut *k), (value, &mut *v)];
                        Linear::multiply(outputs, normed, n, team, activations).step()?;
                        let outputs = [
                            (place(Projection::Query), queries),
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
                            let queries = if attention.gated { &mut *gates } else { &mut q[..m * width] };
                            let normed = &normed[..m * n_embd];
                            Linear::multiply([(query, &mut *queries)], normed, m, team, activations)
                                .step()?;
                            let output = [(place(Projection::Query), queries)];
                            adapters.add(output, normed, n_embd, RowsOf::Wanted, team);
                        }
                    }
                }
                if attention.gated {
                    rows::take_queries(gates, &mut q[..m * width], heads.head_dim, team);
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
        let cache = Cache { bytes: &mut *kv, layout, slots: &self.metadata.slots };
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
            cache: kv,
            layout,
            heads,
            sinks: attention.sinks.as_deref(),
            interrupt: self.interrupt,
        };
        let attended = &mut attended[..m * width];
        if !self.attention.run(inputs, team, attended) {
            return Err(StepError::Interrupted);
        }
        if attention.gated {
            rows::gate_heads(attended, gates, heads.head_dim, team);
        }
        self.mixed(&attention.output, (Projection::AttentionOutput, width), m)
    }

    fn short_conv(&mut self, conv: &ShortConv, state: usize, n: usize) -> Result<usize, StepError> {
        let Self { wanted, index, .. } = *self;
        let place = |projection| Place::Layer(index, projection);
        let n_embd = self.config.n_embd;
        let m = wanted.map_or(n, <[u32]>::len);
        let Workspace { x, normed, qkv, attended, .. } = &mut *self.workspace;
        let (x, normed) = (&mut x[..n * n_embd], &normed[..n * n_embd]);
        let (bcx, convolved) = (&mut qkv[..n * 3 * n_embd], &mut attended[..n * n_embd]);
        let (team, activations, adapters) = (&mut *self.team, &mut *self.activations, &mut *self.adapters);
        Linear::multiply([(&conv.input, &mut *bcx)], normed, n, team, activations).step()?;
        let input = [(place(Projection::ConvInput), &mut *bcx)];
        adapters.add(input, normed, n_embd, RowsOf::Batch, team);
        let (mut states, spans) = self.states.layer(state);
        convolution::convolve_gated((&conv.kernel, n_embd), spans, bcx, &mut states, convolved, team);
        if m == 0 {
            return Ok(0);
        }
        if let Some(rows) = wanted {
            rows::pack(x, n_embd, n_embd, Some(rows));
            rows::pack(convolved, n_embd, n_embd, Some(rows));
        }
        self.mixed(&conv.output, (Projection::ConvOutput, n_embd), m)
    }

    fn delta_net(&mut self, net: &DeltaNet, state: usize, n: usize) -> Result<usize, StepError> {
        let Self { wanted, index, .. } = *self;
        let place = |projection| Place::Layer(index, projection);
        let (heads, n_embd) = (net.heads, self.config.n_embd);
        let (qkv_width, width) = (heads.qkv_width(), heads.value_width());
        let Workspace { x, normed, qkv, attended, .. } = &mut *self.workspace;
        let (x, normed) = (&mut x[..n * n_embd], &normed[..n * n_embd]);
        let (team, activations, adapters) = (&mut *self.team, &mut *self.activations, &mut *self.adapters);
        let (projected, rest) = qkv.split_at_mut(n * qkv_width);
        let (convolved, rest) = rest.split_at_mut(n * qkv_width);
        let (gate, rest) = rest.split_at_mut(n * width);
        let (beta, rest) = rest.split_at_mut(n * heads.n_value);
        let alpha = &mut rest[..n * heads.n_value];
        let outputs = [
            (&net.qkv, &mut *projected),
            (&net.gate, &mut *gate),
            (&net.beta, &mut *beta),
            (&net.alpha, &mut *alpha),
        ];
        Linear::multiply(outputs, normed, n, team, activations).step()?;
        let outputs =
            [(place(Projection::DeltaQkv), &mut *projected), (place(Projection::DeltaGate), &mut *gate)];
        adapters.add(outputs, normed, n_embd, RowsOf::Batch, team);
        let outputs =
            [(place(Projection::DeltaBeta), &mut *beta), (place(Projection::DeltaAlpha), &mut *alpha)];
        adapters.add(outputs, normed, n_embd, RowsOf::Batch, team);
        let (mut states, spans) = self.states.layer(state);
        let (kernel, input) = (&*net.kernel, &*projected);
        let convolution = Convolution { kernel, width: qkv_width, input, stride: qkv_width, spans };
        convolution::convolve(convolution, &mut states, convolved, |_, row| silu(row), team);
        let norm = net.norm.host();
        let inputs = DeltaInputs {
            heads,
            qkv: convolved,
            beta,
            alpha,
            alpha_bias: net.alpha_bias.values(),
            decay: net.decay.values(),
            gate,
            norm,
            epsilon: norm.epsilon,
            spans,
            state_offset: net.state_offset(),
        };
        let attended = &mut attended[..n * width];
        delta_rule::delta_rule(&inputs, &mut states, attended, team);
        let m = wanted.map_or(n, <[u32]>::len);
        if m == 0 {
            return Ok(0);
        }
        if let Some(rows) = wanted {
            rows::pack(x, n_embd, n_embd, Some(rows));
            rows::pack(attended, width, width, Some(rows));
        }
        self.mixed(&net.output, (Projection::DeltaOutput, width), m)
    }

    /// Adds `output` of the `m` rows of `attended`, of `width` values each, to the hidden states, and makes
    /// the input of the MLP.
    fn mixed(
        &mut self,
        output: &Linear,
        (projection, width): (Projection, usize),
        m: usize,
    ) -> Result<usize, StepError> {
        let Self { layer, wanted, index, .. } = *self;
        let n_embd = self.config.n_embd;
        let Workspace { x, normed, attended, projected, .. } = &mut *self.workspace;
        let (attended, projected) = (&attended[..m * width], &mut projected[..m * n_embd]);
        let (team, activations, adapters) = (&mut *self.team, &mut *self.activations, &mut *self.adapters);
        Linear::multiply([(output, &mut *projected)], attended, m, team, activations).step()?;
        let rows_of = if wanted.is_some() { RowsOf::Wanted } else { RowsOf::Batch };
        adapters.add([(Place::Layer(index, projection), &mut *projected)], attended, width, rows_of, team);
        let norm = layer.post_attention_norm.as_ref().map(RmsNorm::host);
        let residual = Residual { norm, scale: layer.residual_scale };
        let (x, normed) = (&mut x[..m * n_embd], &mut normed[..m * n_embd]);
        rows::add(x, projected, residual, layer.mlp_input.host(), n_embd, normed, team);
        Ok(m)
    }

    /// Adds what the MLP gives to the hidden states of the rows that attention left, and makes the input
    /// `next` of them.
    pub fn mlp(&mut self, next: &Input) -> Result<(), StepError> {
        let m = self.wanted.map_or(self.metadata.slots.len(), <[u32]>::len);
        match &self.layer.mlp {
            FeedForward::Dense(mlp) => self.dense(mlp, m)?,
            FeedForward::Experts(experts) => self.experts(experts, m)?,
        }
        let n_embd = self.config.n_embd;
        let Workspace { x, normed, projected, .. } = &mut *self.workspace;
        let (x, normed) = (&mut x[..m * n_embd], &mut normed[..m * n_embd]);
        let norm = self.layer.post_mlp_norm.as_ref().map(RmsNorm::host);
        let residual = Residual { norm, scale: self.layer.residual_scale };
        rows::add(x, &mut projected[..m * n_embd], residual, next.host(), n_embd, normed, self.team);
        Ok(())
    }

    /// Writes the output of `mlp` for `m` rows of its input to the workspace.
    fn dense(&mut self, mlp: &Mlp, m: usize) -> Result<(), StepError> {
        let n_embd = self.config.n_embd;
        let rows = if self.wanted.is_some() { RowsOf::Wanted } else { RowsOf::Batch };
        let Workspace { normed, projected, hidden, .. } = &mut *self.workspace;
        let (normed, projected) = (&normed[..m * n_embd], &mut projected[..m * n_embd]);
        let adapted = Adapted { adapters: &mut *self.adapters, layer: self.index, rows };
        run_mlp(mlp, normed, m, (hidden, projected), Some(adapted), self.team, self.activations).step()
    }

    /// The same of a mixture of experts, where no adapter has a place.
    fn experts(&mut self, experts: &Experts, m: usize) -> Result<(), StepError> {
        let n_embd = self.config.n_embd;
        let (team, activations) = (&mut *self.team, &mut *self.activations);
        let Workspace { normed, projected, hidden, experts: workspace, .. } = &mut *self.workspace;
        let (normed, projected) = (&normed[..m * n_embd], &mut projected[..m * n_embd]);
        workspace.run(experts, normed, (m, n_embd), projected, team, activations).step()?;
        if let Some(expert) = &experts.shared {
            let output = &mut workspace.outputs[..m * n_embd];
            run_mlp(&expert.mlp, normed, m, (hidden, output), None, team, activations).step()?;
            let gate = expert.gate.as_deref().map(|gate| (gate, normed));
            rows::add_gated(projected, output, gate, n_embd, team);
        }
        Ok(())
    }
}

/// Adapters of the projections of an MLP.
struct Adapted<'a> {
    adapters: &'a mut AdapterBatch,
    layer: usize,
    rows: RowsOf,
}

impl Adapted<'_> {
    fn add<const N: usize>(
        &mut self,
        outputs: [(Projection, &mut [f32]); N],
        x: &[f32],
        k: usize,
        team: &mut Team,
    ) {
        let outputs = outputs.map(|(projection, output)| (Place::Layer(self.layer, projection), output));
        self.adapters.add(outputs, x, k, self.rows, team);
    }
}

/// Writes the output of `mlp` for the `m` rows of `x` to `out`, with hidden values in `hidden`.
fn run_mlp(
    mlp: &Mlp,
    x: &[f32],
    m: usize,
    (hidden, out): (&mut [f32], &mut [f32]),
    mut adapted: Option<Adapted<'_>>,
    team: &mut Team,
    activations: &mut Activations,
) -> candle_core::Result<()> {
    let (width, n_ff) = (x.len() / m, mlp.n_ff);
    let hidden = &mut hidden[..m * mlp.hidden_width()];
    match &mlp.input {
        GateUp::Split { gate, up } => {
            let (g, u) = hidden.split_at_mut(m * n_ff);
            Linear::multiply([(gate, &mut *g), (up, &mut *u)], x, m, team, activations)?;
            if let Some(adapted) = &mut adapted {
                adapted.add([(Projection::Gate, &mut *g), (Projection::Up, &mut *u)], x, width, team);
            }
            rows::gate(mlp.activation, g, Some(u), n_ff, team);
        }
        GateUp::Fused(both) => {
            Linear::multiply([(both, &mut *hidden)], x, m, team, activations)?;
            if let Some(adapted) = &mut adapted {
                adapted.add([(Projection::Up, &mut *hidden)], x, width, team);
            }
            rows::gate(mlp.activation, hidden, None, n_ff, team);
        }
        GateUp::Ungated(up) => {
            let hidden = &mut hidden[..m * n_ff];
            Linear::multiply([(up, &mut *hidden)], x, m, team, activations)?;
            if let Some(adapted) = &mut adapted {
                adapted.add([(Projection::Up, &mut *hidden)], x, width, team);
            }
            rows::activate(mlp.activation, hidden, team);
        }
    }
    let hidden = &hidden[..m * n_ff];
    Linear::multiply([(&mlp.down, &mut *out)], hidden, m, team, activations)?;
    if let Some(adapted) = &mut adapted {
        adapted.add([(Projection::Down, out)], hidden, n_ff, team);
    }
    Ok(())
}
