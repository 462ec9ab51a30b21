//! A decoder-only transformer, put together from the layers, and its forward pass over candle's tensors.
//!
//! [`HostExecutor`](crate::executor::HostExecutor) runs the same transformer on the CPU.

use crate::error::CandleError;
use crate::kv::KvStore;
use crate::layers::attention::{Attention, Placement, Rows};
use crate::layers::delta_net::DeltaNet;
use crate::layers::embedding::Embedding;
use crate::layers::experts::FeedForward;
use crate::layers::linear::Linear;
use crate::layers::norm::{Input, RmsNorm};
use crate::layers::rope::RopeTensors;
use crate::layers::short_conv::ShortConv;
use candle_core::{Result, Tensor};
use exsa_core::backend::Interrupt;
use exsa_core::error::StepError;
use exsa_models::LayerRope;

/// The weights of a model, ready to run.
pub(crate) struct Transformer {
    /// Token embeddings.
    pub embedding: Embedding,
    /// Layers, first to last.
    pub layers: Vec<Layer>,
    /// Norm before the output projection.
    pub norm: Input,
    /// Projection to logits, `[n_vocab, n_embd]`.
    pub output: Linear,
    /// Logits go through `cap * tanh(logit / cap)`.
    pub softcap: Option<f32>,
    /// Factor on the logits.
    pub logit_scale: Option<f32>,
}

/// Part of a layer that mixes tokens.
pub(crate) enum Mixer {
    /// Attention, with the index of its layer in the KV cache.
    Attention(Box<Attention>, usize),
    /// A gated delta net, with the index of its layer among those with a state.
    DeltaNet(Box<DeltaNet>, usize),
    /// A short convolution, with the index of its layer among those with a state.
    ShortConv(ShortConv, usize),
}

/// One layer: attention or another mixer and an MLP, added to the hidden state.
pub(crate) struct Layer {
    /// Input of the mixer.
    pub attention_input: Input,
    /// The mixer.
    pub mixer: Mixer,
    /// Norm of the mixer's output.
    pub post_attention_norm: Option<RmsNorm>,
    /// Input of the MLP.
    pub mlp_input: Input,
    /// The MLP.
    pub mlp: FeedForward,
    /// Norm of what the MLP gives.
    pub post_mlp_norm: Option<RmsNorm>,
    /// Factor on what attention and MLP give, before it is added.
    pub residual_scale: Option<f32>,
    /// Its RoPE.
    pub rope: LayerRope,
}

/// A batch on its way through the layers.
pub(crate) struct Step<'a> {
    /// Tokens of all spans, each below `n_vocab`.
    pub tokens: &'a [u32],
    /// Their spans and slots.
    pub placement: Placement<'a>,
    /// RoPE of global layers.
    pub rope: RopeTensors,
    /// RoPE of sliding-window layers.
    pub rope_sliding_window: RopeTensors,
    /// Rows that want logits.
    pub rows: Rows,
}

impl Transformer {
    /// Appends the batch's keys and values to `kv`; returns the hidden states of its rows, `[rows, n_embd]`
    /// f32, or `None` if it asks for none.
    pub fn layers(
        &self,
        step: &Step<'_>,
        kv: &KvStore,
        interrupt: &Interrupt,
    ) -> std::result::Result<Option<Tensor>, StepError> {
        let mut x = self.embedding.forward(step.tokens).step()?;
        for (index, layer) in self.layers.iter().enumerate() {
            if interrupt.is_raised() {
                return Err(StepError::Interrupted);
            }
            // After the last attention only the rows that want logits matter.
            let rows = (index + 1 == self.layers.len()).then_some(&step.rows);
            match layer.forward(&x, step, kv, rows).step()? {
                Some(y) => x = y,
                None => return Ok(None),
            }
        }
        Ok(Some(x))
    }

    /// The logits of hidden states, `[rows, n_vocab]` f32.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let mut logits = self.output.forward(&self.norm.forward(x, x)?)?;
        if let Some(scale) = self.logit_scale {
            logits = (logits * f64::from(scale))?;
        }
        match self.softcap.map(f64::from) {
            Some(cap) => (logits / cap)?.tanh()? * cap,
            None => Ok(logits),
        }
    }
}

impl Layer {
    fn forward(
        &self,
        x: &Tensor,
        step: &Step<'_>,
        kv: &KvStore,
        rows: Option<&Rows>,
    ) -> Result<Option<Tensor>> {
        let rope = match self.rope {
            LayerRope::Global => Some(&step.rope),
            LayerRope::SlidingWindow => Some(&step.rope_sliding_window),
            LayerRope::Absent => None,
        };
        let input = self.attention_input.forward(x, x)?;
        let Mixer::Attention(attention, kv_layer) = &self.mixer else {
            // Sessions of such models are refused.
            candle_core::bail!("layers with a state run on the CPU alone");
        };
        let Some(attended) = attention.forward(&input, rope, &step.placement, kv.layer(*kv_layer), rows)?
        else {
            return Ok(None);
        };
        let select = |x: &Tensor| match rows {
            Some(rows) => rows.select(x),
            None => Ok(x.clone()),
        };
        let x = (select(x)? + self.residual(attended, self.post_attention_norm.as_ref())?)?;
        let input = if matches!(self.mlp_input, Input::Shared) { select(&input)? } else { input };
        let y = self.mlp.forward(&self.mlp_input.forward(&x, &input)?)?;
        let y = self.residual(y, self.post_mlp_norm.as_ref())?;
        (x + y).map(Some)
    }

    /// The output of attention or MLP as it is added.
    fn residual(&self, y: Tensor, post: Option<&RmsNorm>) -> Result<Tensor> {
        let y = match post {
            Some(norm) => norm.forward(&y)?,
            None => y,
        };
        match self.residual_scale {
            Some(scale) => y * f64::from(scale),
            None => Ok(y),
        }
    }
}
