//! One layer of an encoder.

use super::activation::activate;
use super::attention::Attention;
use super::workspace::Workspace;
use crate::error::CandleError;
use crate::kernels::float::rows::{self, HeadNorm, HeadRows, Residual, RopeTable};
use crate::kernels::memory::team::Team;
use crate::layers::attention::Qkv;
use crate::layers::linear::Linear;
use crate::layers::mlp::GateUp;
use crate::layers::norm::{Input, RmsNorm};
use exsa_core::error::StepError;
use exsa_models::EncoderConfig;
use exsa_models::encoder::EncoderActivation;

/// Weights of a layer, in the order in which they are used.
pub(super) struct EncoderLayer {
    /// Norm of the attention's input, else the hidden state as it is.
    pub attention_input: Input,
    pub qkv: Qkv,
    /// RMSNorms of each head of queries and of keys.
    pub head_norms: Option<(RmsNorm, RmsNorm)>,
    /// Norms of all heads of queries and of keys at once.
    pub whole_norms: (Option<Input>, Option<Input>),
    pub attention_output: Linear,
    /// Norm of the attention's output before it is added.
    pub post_attention: Option<RmsNorm>,
    /// Norm behind the addition, whose result goes on as hidden state.
    pub after_attention: Option<Input>,
    /// Norm behind a second addition of the layer's input.
    pub after_attention_2: Option<Input>,
    /// Norm of the MLP's input.
    pub mlp_input: Input,
    pub mlp: GateUp,
    pub activation: EncoderActivation,
    pub down: Linear,
    /// Norm of the MLP's output before it is added.
    pub post_mlp: Option<RmsNorm>,
    /// Norm behind the addition.
    pub after_mlp: Option<Input>,
    /// Greatest distance of tokens that see each other.
    pub window: Option<usize>,
}

/// Operands that all layers of a pass share.
pub(super) struct Pass<'a> {
    pub config: &'a EncoderConfig,
    pub slopes: &'a [f32],
    /// RoPE of layers without a window, and of those with one.
    pub ropes: Option<[RopeTable<'a>; 2]>,
    /// Tokens.
    pub n: usize,
}

impl EncoderLayer {
    /// Turns the hidden states of `space` into those of the next layer.
    pub fn forward(&self, pass: &Pass<'_>, space: &mut Workspace, team: &mut Team) -> Result<(), StepError> {
        let width = pass.config.n_embd;
        let len = pass.n * width;
        rows::input(self.attention_input.host(), &space.x[..len], width, &mut space.input[..len], team);
        self.attend(pass, space, team)?;
        let Workspace { x, input, y, .. } = space;
        let (x, input, y) = (&mut x[..len], &mut input[..len], &mut y[..len]);
        match &self.after_attention {
            // The sum is normalized, and is the hidden state from here on.
            Some(norm) => {
                let before = self.after_attention_2.as_ref().map(|norm| (norm, x.to_vec()));
                rows::add(x, y, plain(None), norm.host(), width, input, team);
                if let Some((norm, mut before)) = before {
                    rows::add(input, &mut before, plain(None), norm.host(), width, x, team);
                    input.copy_from_slice(x);
                }
                x.copy_from_slice(input);
            }
            None => {
                let residual = plain(self.post_attention.as_ref());
                rows::add(x, y, residual, self.mlp_input.host(), width, input, team);
            }
        }
        self.mlp(pass, space, team)?;
        let Workspace { x, input, y, .. } = space;
        let (x, input, y) = (&mut x[..len], &mut input[..len], &mut y[..len]);
        let next = self.after_mlp.as_ref().map_or(rows::Input::Keep, Input::host);
        rows::add(x, y, plain(self.post_mlp.as_ref()), next, width, input, team);
        if self.after_mlp.is_some() {
            x.copy_from_slice(input);
        }
        Ok(())
    }

    /// Attention over `space.input`, with its result in `space.y`.
    fn attend(&self, pass: &Pass<'_>, space: &mut Workspace, team: &mut Team) -> Result<(), StepError> {
        let &EncoderConfig { n_embd, n_head, n_head_kv, head_dim, .. } = pass.config;
        let (width, width_kv, n) = (n_head * head_dim, n_head_kv * head_dim, pass.n);
        let Workspace { input, y, qkv, queries, keys, values, heads, texts, activations, .. } = space;
        let input = &input[..n * n_embd];
        let queries = &mut queries[..n * width];
        let (keys, values) = (&mut keys[..n * width_kv], &mut values[..n * width_kv]);
        let heads = &mut heads[..n * width];
        match &self.qkv {
            Qkv::Fused(linear) => {
                let all = width + 2 * width_kv;
                let qkv = &mut qkv[..n * all];
                Linear::multiply([(linear, &mut *qkv)], input, n, team, activations).step()?;
                for (row, all) in qkv.chunks_exact(all).enumerate() {
                    let (query, rest) = all.split_at(width);
                    let (key, value) = rest.split_at(width_kv);
                    queries[row * width..][..width].copy_from_slice(query);
                    keys[row * width_kv..][..width_kv].copy_from_slice(key);
                    values[row * width_kv..][..width_kv].copy_from_slice(value);
                }
            }
            Qkv::Split { query, key, value } => {
                let outputs = [(query, &mut *queries), (key, &mut *keys), (value, &mut *values)];
                Linear::multiply(outputs, input, n, team, activations).step()?;
            }
        }
        for (norm, matrix, width) in
            [(&self.whole_norms.0, &mut *queries, width), (&self.whole_norms.1, &mut *keys, width_kv)]
        {
            if let Some(norm) = norm {
                let normed = &mut heads[..matrix.len()];
                rows::input(norm.host(), matrix, width, normed, team);
                matrix.copy_from_slice(normed);
            }
        }
        let rope = pass.ropes.as_ref().map(|ropes| ropes[usize::from(self.window.is_some())]);
        if let Some(rope) = rope {
            let norms = self.head_norms.as_ref().map(|(query, key)| [query, key]);
            for (i, (matrix, heads)) in
                [(&mut *queries, n_head), (&mut *keys, n_head_kv)].into_iter().enumerate()
            {
                let norm = norms.map_or(HeadNorm::Absent, |norms| HeadNorm::Each(norms[i].host()));
                let rows = HeadRows { start: 0, stride: heads * head_dim, heads, head_dim, norm };
                rows::apply_rope(matrix, rows, n, None, rope, team);
            }
        }
        let attention = Attention {
            queries,
            keys,
            values,
            stride_kv: width_kv,
            n_head,
            n_head_kv,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            slopes: pass.slopes,
            window: self.window,
            texts,
        };
        attention.run(heads, team);
        let y = &mut y[..n * n_embd];
        Linear::multiply([(&self.attention_output, y)], heads, n, team, activations).step()
    }

    /// The MLP over `space.input`, with its result in `space.y`.
    fn mlp(&self, pass: &Pass<'_>, space: &mut Workspace, team: &mut Team) -> Result<(), StepError> {
        let &EncoderConfig { n_embd, n_ff, .. } = pass.config;
        let n = pass.n;
        let Workspace { input, y, gate, up, activations, .. } = space;
        let (input, up) = (&input[..n * n_embd], &mut up[..n * n_ff]);
        let activation = self.activation;
        match &self.mlp {
            GateUp::Ungated(linear) => {
                Linear::multiply([(linear, &mut *up)], input, n, team, activations).step()?;
                team.for_each_run(up, n_ff, |_, up| activate(activation, up));
            }
            GateUp::Split { gate: gate_linear, up: up_linear } => {
                let gate = &mut gate[..n * n_ff];
                let outputs = [(gate_linear, &mut *gate), (up_linear, &mut *up)];
                Linear::multiply(outputs, input, n, team, activations).step()?;
                team.for_each_run(gate, n_ff, |_, gate| activate(activation, gate));
                let gate = &*gate;
                team.for_each_run(up, n_ff, |row, up| multiply(up, &gate[row * n_ff..]));
            }
            GateUp::Fused(linear) => {
                let gate = &mut gate[..2 * n * n_ff];
                Linear::multiply([(linear, &mut *gate)], input, n, team, activations).step()?;
                let gate = &*gate;
                team.for_each_run(up, n_ff, |row, up| {
                    let (first, second) = gate[2 * row * n_ff..][..2 * n_ff].split_at(n_ff);
                    up.copy_from_slice(first);
                    activate(activation, up);
                    multiply(up, second);
                });
            }
        }
        let y = &mut y[..n * n_embd];
        Linear::multiply([(&self.down, y)], up, n, team, activations).step()
    }
}

/// `x *= y`.
fn multiply(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x *= y);
}

/// An addition with `norm` of what is added.
fn plain(norm: Option<&RmsNorm>) -> Residual<'_> {
    Residual { norm: norm.map(RmsNorm::host), scale: None }
}
