//! A forward pass: the commands of one batch, in one stream.

use super::angles::Angles;
use super::cache::KvCache;
use super::metadata::Metadata;
use super::scratch::{Scratch, ScratchSizes};
use crate::device::{Device, DeviceError, Stream};
use crate::kernel::launch::{At, AttentionKernels};
use crate::kernel::params::{
    AddParams, AttendParams, CombineParams, EmbedParams, GATE_GELU, GATE_SILU, GateParams, GatherParams,
    HEADS_INTERLEAVED, HEADS_KEY_NORM, HEADS_QUERY_NORM, HeadsParams, LogitParams, NORM_ADD, NORM_BIAS,
    NORM_LAYER, NormParams, ProductParams,
};
use crate::model::{Attention, GateUp, HeadNorm, Input, Layer, Linear, Loaded, Mlp, NormWeights, Qkv};
use exsa_core::backend::Interrupt;
use exsa_core::error::StepError;
use exsa_models::architecture::Activation;
use exsa_models::{LayerRope, RopePairs};

/// Tokens of a batch from which every layer is waited for, so that an interrupt ends the pass soon.
const WAIT_TOKENS: usize = 64;

/// Tokens of a split of attention, at least.
const SPLIT_TOKENS: usize = 128;

/// Operands of a pass.
pub(super) struct Pass<'a, D: Device> {
    pub model: &'a Loaded<D>,
    pub stream: &'a mut D::Stream,
    pub kernels: &'a AttentionKernels<D>,
    pub cache: &'a KvCache<D>,
    pub scratch: &'a Scratch<D>,
    pub sizes: &'a ScratchSizes,
    pub metadata: &'a Metadata<D>,
    /// Of global layers and of sliding-window layers.
    pub angles: [&'a Angles<D>; 2],
    pub interrupt: &'a Interrupt,
}

/// Hidden states and inputs of projections: which of the two buffers of each, and rows.
#[derive(Clone, Copy)]
struct Rows {
    buffer: usize,
    n: usize,
}

impl<D: Device> Pass<'_, D> {
    /// Runs all layers; the normalized hidden states of the rows with logits are at the front of the buffer
    /// of `scratch.input` that is returned.
    pub fn layers(&mut self) -> Result<Option<usize>, StepError> {
        let (model, scratch, metadata) = (self.model, self.scratch, self.metadata);
        let mut rows = Rows { buffer: 0, n: metadata.tokens };
        let params = EmbedParams { cols: self.width(), factor: model.config.embedding_scale };
        let embedding = &model.embedding;
        let operands = [At(&embedding.buffer, 0), metadata.token_ids(), At(&scratch.x[0], 0)];
        model.kernels.embed(self.stream, embedding.dtype, operands, rows.n, params)?;
        if let Some(first) = model.layers.first() {
            self.input(&first.attention_input, rows, false)?;
        }
        for (index, layer) in model.layers.iter().enumerate() {
            if self.interrupt.is_raised() {
                return Err(StepError::Interrupted);
            }
            let next = model.layers.get(index + 1);
            let chosen = next.is_none();
            let is_done = !self.attention(index, layer, &mut rows, chosen)?;
            if is_done {
                return Ok(None);
            }
            self.mlp(&layer.mlp, layer.mlp_input_is_plain(), rows)?;
            self.post_norm(layer.post_mlp_norm.as_ref(), rows)?;
            match next {
                Some(next) => self.input(&next.attention_input, rows, true)?,
                None => self.norm(&model.norm, rows, true)?,
            }
            if metadata.tokens >= WAIT_TOKENS {
                self.stream.synchronize()?;
            }
        }
        Ok(Some(rows.buffer))
    }

    /// Computes the logits of the rows that [`layers`](Self::layers) left, and reads them into `logits`.
    pub fn logits(&mut self, buffer: usize, logits: &mut [f32]) -> Result<(), StepError> {
        let (model, scratch) = (self.model, self.scratch);
        let (n_vocab, width) = (model.n_vocab, model.config.n_embd);
        let mut done = 0;
        for part in logits.chunks_mut(self.sizes.logit_rows.max(1) * n_vocab) {
            if self.interrupt.is_raised() {
                return Err(StepError::Interrupted);
            }
            let n = part.len() / n_vocab;
            let x = At::floats(&scratch.input[buffer], done * width);
            self.linear(&model.output, x, (At(&scratch.logits, 0), n_vocab), n)?;
            let (factor, softcap) = (model.config.logit_scale, model.config.logit_softcap);
            if factor.is_some() || softcap.is_some() {
                let params = LogitParams {
                    cols: word(n_vocab),
                    factor: factor.unwrap_or(1.0),
                    softcap: softcap.unwrap_or(0.0),
                };
                model.kernels.logits(self.stream, At(&scratch.logits, 0), n, params)?;
            }
            read_floats::<D>(self.stream, &scratch.logits, part)?;
            done += n;
        }
        Ok(())
    }

    /// Reads the states that [`layers`](Self::layers) left.
    pub fn states(&mut self, buffer: usize, states: &mut [f32]) -> Result<(), StepError> {
        Ok(read_floats::<D>(self.stream, &self.scratch.input[buffer], states)?)
    }

    /// Adds what attention gives to the hidden states, and makes the input of the MLP. With `chosen`, only
    /// rows with logits go on after keys and values are written; `false` if there are none.
    fn attention(
        &mut self,
        index: usize,
        layer: &Layer<D>,
        rows: &mut Rows,
        chosen: bool,
    ) -> Result<bool, StepError> {
        let (scratch, metadata) = (self.scratch, self.metadata);
        let attention = &layer.attention;
        let heads = &attention.heads;
        let width = heads.n_head * heads.head_dim;
        self.keys_and_values(index, attention, matches!(layer.attention_input, Input::Plain), *rows)?;
        if chosen {
            if metadata.rows == 0 {
                return Ok(false);
            }
            if metadata.rows < metadata.tokens {
                let params = GatherParams { cols: self.width() };
                for pair in [&scratch.x, &scratch.input] {
                    let operands = [At(&pair[0], 0), metadata.row_indices(), At(&pair[1], 0)];
                    self.model.kernels.gather(self.stream, operands, metadata.rows, params)?;
                }
                *rows = Rows { buffer: 1, n: metadata.rows };
            }
        }
        self.attend(index, attention, rows.buffer == 1)?;
        let attended = At(&scratch.attended, 0);
        debug_assert_eq!(attention.output.weight.cols as usize, width);
        let to = (At(&scratch.projected, 0), self.model.config.n_embd);
        self.linear(&attention.output, attended, to, rows.n)?;
        self.post_norm(layer.post_attention_norm.as_ref(), *rows)?;
        self.input(&layer.mlp_input, *rows, true)?;
        Ok(true)
    }

    /// Queries of all rows; their keys and values go to the cache.
    fn keys_and_values(
        &mut self,
        index: usize,
        attention: &Attention<D>,
        is_plain: bool,
        rows: Rows,
    ) -> Result<(), StepError> {
        let (scratch, metadata, config) = (self.scratch, self.metadata, &self.model.config);
        let heads = &attention.heads;
        let (width, width_kv) = (heads.n_head * heads.head_dim, heads.n_head_kv * heads.head_dim);
        let all = width + 2 * width_kv;
        let starts = [0, width, width + width_kv];
        let x = if is_plain { &scratch.x } else { &scratch.input };
        let x = At(&x[rows.buffer], 0);
        match &attention.input {
            Qkv::Fused(linear) => self.linear(linear, x, (At(&scratch.qkv, 0), all), rows.n)?,
            Qkv::Split(linears) => {
                for (linear, start) in linears.iter().zip(starts) {
                    self.linear(linear, x, (At::floats(&scratch.qkv, start), all), rows.n)?;
                }
            }
        }
        let mut flags = match config.architecture.rope_pairs {
            RopePairs::Interleaved => HEADS_INTERLEAVED,
            RopePairs::Neox => 0,
        };
        let mut weights = [&scratch.projected; 2];
        let parts = [
            (&attention.query_norm, width, HEADS_QUERY_NORM),
            (&attention.key_norm, width_kv, HEADS_KEY_NORM),
        ];
        for (i, (norm, cols, flag)) in parts.into_iter().enumerate() {
            match norm {
                HeadNorm::Absent => {}
                HeadNorm::Each(weight) => {
                    flags |= flag;
                    weights[i] = weight;
                }
                HeadNorm::Whole(weight) => {
                    let x = At::floats(&scratch.qkv, starts[i]);
                    let params = NormParams {
                        cols: word(cols),
                        stride: word(all),
                        flags: 0,
                        epsilon: config.norm_epsilon,
                        factor: 0.0,
                    };
                    let weight = At(weight, 0);
                    self.model.kernels.norm(self.stream, [x, weight, weight, weight, x], rows.n, params)?;
                }
            }
        }
        let angles = match attention.rope {
            LayerRope::SlidingWindow => self.angles[1],
            _ => self.angles[0],
        };
        let params = HeadsParams {
            heads: word(heads.n_head),
            kv_heads: word(heads.n_head_kv),
            dim: word(heads.head_dim),
            pairs: if attention.rope == LayerRope::Absent { 0 } else { angles.pairs },
            flags,
            epsilon: config.norm_epsilon,
        };
        let [keys, values] = &self.cache.layers[index];
        let operands = [
            At(&scratch.qkv, 0),
            At(weights[0], 0),
            At(weights[1], 0),
            At(&angles.table, 0),
            metadata.positions(),
            metadata.slots(),
            At(keys, 0),
            At(values, 0),
        ];
        Ok(self.kernels.heads(self.stream, operands, rows.n, params)?)
    }

    /// Attention of all rows, or of the chosen ones.
    fn attend(&mut self, index: usize, attention: &Attention<D>, chosen: bool) -> Result<(), StepError> {
        let (scratch, metadata) = (self.scratch, self.metadata);
        let heads = &attention.heads;
        let (n_head, n_head_kv, dim) = (word(heads.n_head), word(heads.n_head_kv), word(heads.head_dim));
        let seen = heads.window.map_or(metadata.longest, |window| window.min(metadata.longest));
        let [keys, values] = &self.cache.layers[index];
        for is_single in [true, false] {
            let (views, n) = metadata.views(chosen, is_single);
            if n == 0 {
                continue;
            }
            let groups = n * AttentionKernels::<D>::groups(n_head, n_head_kv) as usize;
            // The parts have room for as many views and splits as there are groups to be split into.
            let splits = match is_single {
                true => (self.sizes.split_groups / groups).min(seen.div_ceil(SPLIT_TOKENS)).max(1),
                false => 1,
            };
            let params = AttendParams {
                heads: n_head,
                kv_heads: n_head_kv,
                dim,
                stride: (n_head + 2 * n_head_kv) * dim,
                window: heads.window.map_or(0, |window| u32::try_from(window).unwrap_or(0)),
                splits: word(splits),
                scale: heads.scale,
                softcap: heads.softcap.unwrap_or(0.0),
            };
            let out = At(if splits == 1 { &scratch.attended } else { &scratch.parts }, 0);
            let operands = [At(&scratch.qkv, 0), At(keys, 0), At(values, 0), metadata.tables(), views, out];
            self.kernels.attend(self.stream, operands, (n, is_single), params)?;
            if splits > 1 {
                let operands = [At(&scratch.parts, 0), views, At(&scratch.attended, 0)];
                let params = CombineParams { heads: n_head, dim, splits: params.splits };
                self.model.kernels.combine(self.stream, operands, n, params)?;
            }
        }
        Ok(())
    }

    /// The MLP of the rows, into `scratch.projected`.
    fn mlp(&mut self, mlp: &Mlp<D>, is_plain: bool, rows: Rows) -> Result<(), StepError> {
        let scratch = self.scratch;
        let x = if is_plain { &scratch.x } else { &scratch.input };
        let x = At(&x[rows.buffer], 0);
        let n_ff = mlp.n_ff;
        let gated = match &mlp.input {
            GateUp::Fused(both) => {
                self.linear(both, x, (At(&scratch.hidden, 0), 2 * n_ff), rows.n)?;
                1
            }
            GateUp::Split(linears) => {
                for (linear, start) in linears.iter().zip([0, n_ff]) {
                    self.linear(linear, x, (At::floats(&scratch.hidden, start), 2 * n_ff), rows.n)?;
                }
                1
            }
            GateUp::Ungated(up) => {
                self.linear(up, x, (At(&scratch.hidden, 0), n_ff), rows.n)?;
                0
            }
        };
        let activation = match mlp.activation {
            Activation::Silu => GATE_SILU,
            Activation::GeluTanh => GATE_GELU,
        };
        let params = GateParams { cols: word(n_ff), activation, gated };
        let operands = [At(&scratch.hidden, 0), At(&scratch.active, 0)];
        self.model.kernels.gate(self.stream, operands, rows.n, params)?;
        let to = (At(&scratch.projected, 0), self.model.config.n_embd);
        self.linear(&mlp.down, At(&scratch.active, 0), to, rows.n)
    }

    /// Normalizes what attention or MLP gave.
    fn post_norm(&mut self, weight: Option<&D::Buffer>, rows: Rows) -> Result<(), StepError> {
        let Some(weight) = weight else { return Ok(()) };
        let x = At(&self.scratch.projected, 0);
        let weight = At(weight, 0);
        let params = self.norm_params(0);
        Ok(self.model.kernels.norm(self.stream, [x, weight, weight, weight, x], rows.n, params)?)
    }

    /// Adds what attention or MLP gave to the hidden states, if `add`, and makes the input of the next part.
    fn input(&mut self, input: &Input<D>, rows: Rows, add: bool) -> Result<(), StepError> {
        match input {
            Input::Normed(norm) => self.norm(norm, rows, add),
            Input::Plain | Input::Shared if add => {
                let (cols, factor) = (self.width(), self.residual());
                let params = AddParams { cols, stride: cols, factor };
                let operands = [At(&self.scratch.x[rows.buffer], 0), At(&self.scratch.projected, 0)];
                Ok(self.model.kernels.add_rows(self.stream, operands, rows.n, params)?)
            }
            Input::Plain | Input::Shared => Ok(()),
        }
    }

    fn norm(&mut self, norm: &NormWeights<D>, rows: Rows, add: bool) -> Result<(), StepError> {
        let scratch = self.scratch;
        let mut flags = if add { NORM_ADD } else { 0 };
        if norm.layer {
            flags |= NORM_LAYER;
        }
        if norm.bias.is_some() {
            flags |= NORM_BIAS;
        }
        let operands = [
            At(&scratch.x[rows.buffer], 0),
            At(&scratch.projected, 0),
            At(&norm.weight, 0),
            At(norm.bias.as_ref().unwrap_or(&norm.weight), 0),
            At(&scratch.input[rows.buffer], 0),
        ];
        let params = self.norm_params(flags);
        Ok(self.model.kernels.norm(self.stream, operands, rows.n, params)?)
    }

    fn norm_params(&self, flags: u32) -> NormParams {
        let (cols, epsilon) = (self.width(), self.model.config.norm_epsilon);
        NormParams { cols, stride: cols, flags, epsilon, factor: self.residual() }
    }

    /// Projects `m` rows of `x`, which follow each other, to rows of `y` that are `stride` values apart.
    fn linear(
        &mut self,
        linear: &Linear<D>,
        x: At<'_, D>,
        (y, stride): (At<'_, D>, usize),
        m: usize,
    ) -> Result<(), StepError> {
        let weight = &linear.weight;
        let params = ProductParams {
            rows: weight.rows,
            cols: weight.cols,
            m: word(m),
            x_stride: weight.cols,
            y_stride: word(stride),
        };
        let kernels = &self.model.kernels;
        kernels.product(self.stream, weight.dtype, [At(&weight.buffer, 0), x, y], params)?;
        if let Some(bias) = &linear.bias {
            let params = AddParams { cols: weight.rows, stride: params.y_stride, factor: 1.0 };
            kernels.add_bias(self.stream, [y, At(bias, 0)], m, params)?;
        }
        Ok(())
    }

    fn width(&self) -> u32 {
        word(self.model.config.n_embd)
    }

    fn residual(&self) -> f32 {
        self.model.config.residual_scale.unwrap_or(1.0)
    }
}

/// A size of a model, which its description keeps below 2^32.
fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Reads floats from the start of a buffer.
fn read_floats<D: Device>(
    stream: &mut D::Stream,
    buffer: &D::Buffer,
    out: &mut [f32],
) -> Result<(), DeviceError> {
    let mut bytes = vec![0; 4 * out.len()];
    stream.read(buffer, 0, &mut bytes)?;
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_ne_bytes(*bytes);
    }
    Ok(())
}
