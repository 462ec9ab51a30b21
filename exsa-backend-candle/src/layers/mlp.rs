//! The gated MLP.

use super::host;
use super::linear::Linear;
use crate::models::Activation;
use candle_core::{CpuStorage, CustomOp1, D, InplaceOp2, Layout, Result, Shape, Tensor};

/// A gated MLP (Shazeer, arXiv:2002.05202): `down(activation(gate(x)) * up(x))`.
#[derive(Clone, Debug)]
pub(crate) struct Mlp {
    /// Gate and up projection.
    pub input: GateUp,
    /// Back to the hidden state.
    pub down: Linear,
    /// The gate's activation.
    pub activation: Activation,
}

/// Gate and up projection.
#[derive(Clone, Debug)]
pub(crate) enum GateUp {
    /// Of two matrices.
    Split {
        /// `[n_ff, n_embd]`.
        gate: Linear,
        /// `[n_ff, n_embd]`.
        up: Linear,
    },
    /// Of one, `[2 * n_ff, n_embd]`, the gate first.
    Fused(Linear),
}

impl Mlp {
    /// `x` and the result are `[rows, n_embd]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = match &self.input {
            GateUp::Split { gate, up } => {
                let [gate, up] = Linear::forward_all([gate, up], x)?;
                self.gate(gate, &up)?
            }
            GateUp::Fused(both) => self.gate_fused(&both.forward(x)?)?,
        };
        self.down.forward(&hidden)
    }

    fn gate(&self, gate: Tensor, up: &Tensor) -> Result<Tensor> {
        if gate.device().is_cpu() {
            gate.inplace_op2(up, &HostGate(self.activation))?;
            return Ok(gate);
        }
        self.gate_composed(&gate, up)
    }

    fn gate_fused(&self, both: &Tensor) -> Result<Tensor> {
        if both.device().is_cpu() {
            return both.apply_op1_no_bwd(&HostFusedGate(self.activation));
        }
        let n_ff = both.dim(D::Minus1)? / 2;
        self.gate_composed(&both.narrow(D::Minus1, 0, n_ff)?, &both.narrow(D::Minus1, n_ff, n_ff)?)
    }

    fn gate_composed(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        match self.activation {
            Activation::Silu => gate.silu()? * up,
            Activation::GeluTanh => gate.gelu()? * up,
        }
    }
}

/// Replaces the gate by `activation(gate) * up`.
struct HostGate(Activation);

impl InplaceOp2 for HostGate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(
        &self,
        gate: &mut CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<()> {
        let gate = host::slice_mut(gate, gate_layout)?;
        apply(self.0, gate, host::slice(up, up_layout)?);
        Ok(())
    }
}

/// `activation(gate) * up` of rows that hold first the gate and then up.
struct HostFusedGate(Activation);

impl CustomOp1 for HostFusedGate {
    fn name(&self) -> &'static str {
        "fused-gate"
    }

    fn cpu_fwd(&self, both: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let n_ff = width / 2;
        let mut hidden = Vec::with_capacity(rows * n_ff);
        for row in host::slice::<f32>(both, layout)?.chunks_exact(width) {
            let (gate, up) = row.split_at(n_ff);
            let start = hidden.len();
            hidden.extend_from_slice(gate);
            apply(self.0, &mut hidden[start..], up);
        }
        Ok((CpuStorage::F32(hidden), Shape::from((rows, n_ff))))
    }
}

fn apply(activation: Activation, gate: &mut [f32], up: &[f32]) {
    let pairs = gate.iter_mut().zip(up);
    match activation {
        Activation::Silu => pairs.for_each(|(gate, up)| *gate = *gate / (1.0 + (-*gate).exp()) * up),
        Activation::GeluTanh => pairs.for_each(|(gate, up)| *gate = gelu_tanh(*gate) * up),
    }
}

fn gelu_tanh(x: f32) -> f32 {
    let root_two_over_pi = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    0.5 * x * (1.0 + (root_two_over_pi * (x + 0.044_715 * x * x * x)).tanh())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn worst(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn all_ways_agree() {
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let gate = Tensor::randn(0f32, 3.0, (3, 10), &Device::Cpu).unwrap();
            let up = Tensor::randn(0f32, 3.0, (3, 10), &Device::Cpu).unwrap();
            let both = Tensor::cat(&[&gate, &up], 1).unwrap();
            let identity = Tensor::eye(1, candle_core::DType::F32, &Device::Cpu).unwrap();
            let quantized =
                candle_core::quantized::QTensor::quantize(&identity, candle_core::quantized::GgmlDType::F32);
            let unused = Linear::new(quantized.unwrap().into(), None).unwrap();
            let mlp = Mlp { input: GateUp::Fused(unused.clone()), down: unused, activation };
            let expected = mlp.gate_composed(&gate, &up).unwrap();
            assert!(worst(&mlp.gate_fused(&both).unwrap(), &expected) < 1e-5);
            assert!(worst(&mlp.gate(gate, &up).unwrap(), &expected) < 1e-5);
        }
    }
}
