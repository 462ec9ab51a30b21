//! The gated MLP.

use super::host;
use super::linear::Linear;
use crate::compute::Compute;
use crate::kernels::elementwise::{gelu_gate, silu_gate};
use crate::models::Activation;
use candle_core::{CpuStorage, CustomOp1, D, InplaceOp2, Layout, Result, Shape, Tensor};

/// Values that one thread takes at a time.
const RUN: usize = 8192;

/// A gated MLP (Shazeer, arXiv:2002.05202): `down(activation(gate(x)) * up(x))`.
#[derive(Clone)]
pub(crate) struct Mlp {
    /// Gate and up projection.
    pub input: GateUp,
    /// Back to the hidden state.
    pub down: Linear,
    /// The gate's activation.
    pub activation: Activation,
}

/// Gate and up projection.
#[derive(Clone)]
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
    pub fn forward(&self, x: &Tensor, compute: &Compute) -> Result<Tensor> {
        let hidden = match &self.input {
            GateUp::Split { gate, up } => {
                let [gate, up] = Linear::forward_all([gate, up], x, compute)?;
                self.gate(gate, &up, compute)?
            }
            GateUp::Fused(both) => self.gate_fused(&both.forward(x, compute)?, compute)?,
        };
        self.down.forward(&hidden, compute)
    }

    fn gate(&self, gate: Tensor, up: &Tensor, compute: &Compute) -> Result<Tensor> {
        if gate.device().is_cpu() {
            gate.inplace_op2(up, &HostGate(self.activation, compute))?;
            return Ok(gate);
        }
        self.gate_composed(&gate, up)
    }

    fn gate_fused(&self, both: &Tensor, compute: &Compute) -> Result<Tensor> {
        if both.device().is_cpu() {
            return both.apply_op1_no_bwd(&HostFusedGate(self.activation, compute));
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
struct HostGate<'a>(Activation, &'a Compute);

impl InplaceOp2 for HostGate<'_> {
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
        let up: &[f32] = host::slice(up, up_layout)?;
        let activation = self.0;
        self.1.team().for_each_run(gate, RUN, |i, gate| apply(activation, gate, &up[i * RUN..]));
        Ok(())
    }
}

/// `activation(gate) * up` of rows that hold first the gate and then up.
struct HostFusedGate<'a>(Activation, &'a Compute);

impl CustomOp1 for HostFusedGate<'_> {
    fn name(&self) -> &'static str {
        "fused-gate"
    }

    fn cpu_fwd(&self, both: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        let n_ff = width / 2;
        let both = host::slice::<f32>(both, layout)?;
        let (activation, mut hidden) = (self.0, vec![0.0; rows * n_ff]);
        self.1.team().for_each_run(&mut hidden, n_ff, |row, hidden| {
            let (gate, up) = both[row * width..][..width].split_at(n_ff);
            hidden.copy_from_slice(gate);
            apply(activation, hidden, up);
        });
        Ok((CpuStorage::F32(hidden), Shape::from((rows, n_ff))))
    }
}

fn apply(activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Silu => silu_gate(gate, up),
        Activation::GeluTanh => gelu_gate(gate, up),
    }
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
        let compute = Compute::new(&Default::default()).unwrap();
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
            assert!(worst(&mlp.gate_fused(&both, &compute).unwrap(), &expected) < 1e-5);
            assert!(worst(&mlp.gate(gate, &up, &compute).unwrap(), &expected) < 1e-5);
        }
    }
}
