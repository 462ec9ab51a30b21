//! Hooks for benchmarks: products by themselves. Not part of the interface: it may change or go at any time.

#![allow(missing_docs, reason = "hidden from the documentation, for this project's benchmarks alone")]

use crate::kernels::float::packed::{
    FloatActivations, FloatMatrix, FloatProduct, FloatType, fma_peak, multiply_floats,
};
use crate::kernels::memory::pages::{self, Arena};
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::activations::Activations;
use crate::kernels::quantized::{Isa, PackedMatrix, roofline};
use exsa_core::gguf::GgmlType;
use half::{bf16, f16};

/// Bytes of packed weights and of KV that the process holds.
pub fn page_bytes() -> usize {
    pages::held()
}

/// Threads, and the limits of what they can do.
pub struct Machine {
    team: Team,
    isa: Isa,
}

impl Machine {
    /// With the instruction set of that name, the best one without; `None` where the processor has none of
    /// that name.
    pub fn new(threads: usize, isa: Option<&str>) -> std::io::Result<Option<Self>> {
        let isa = match isa {
            None => Some(Isa::detect()),
            Some(name) => Isa::named(name),
        };
        isa.map(|isa| Ok(Self { team: Team::new(threads)?, isa })).transpose()
    }

    /// Billions of int8 operations a second from registers, by vector dot products and by tiles.
    pub fn peaks(&mut self) -> (Option<f64>, Option<f64>) {
        (roofline::vector_peak(&mut self.team), roofline::tile_peak(&mut self.team))
    }

    /// Billions of f32 operations a second from registers, by multiply-adds.
    pub fn fma_peak(&mut self) -> f64 {
        fma_peak(self.isa, &mut self.team)
    }
}

/// A matrix in the form that its type is multiplied in.
enum Matrix {
    Quantized(PackedMatrix),
    Float(FloatMatrix),
}

impl Matrix {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Quantized(matrix) => matrix.bytes(),
            Self::Float(matrix) => matrix.bytes(),
        }
    }

    /// Rows and columns.
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Quantized(matrix) => (matrix.n(), matrix.k()),
            Self::Float(matrix) => (matrix.n(), matrix.k()),
        }
    }
}

/// Some matrices of one shape and type, enough of them that no cache holds them all.
pub struct Products {
    matrices: Vec<Matrix>,
    isa: Isa,
    activations: Activations,
    float_activations: FloatActivations,
    x: Vec<f32>,
    out: Vec<f32>,
}

impl Products {
    /// `copies` matrices `[n, k]` of type `dtype`; `None` if it has no packed form.
    pub fn new(
        dtype: GgmlType,
        n: usize,
        k: usize,
        copies: usize,
        machine: &mut Machine,
    ) -> std::io::Result<Option<Self>> {
        let isa = machine.isa;
        let bytes = dtype.block_bytes() as usize * (k / dtype.block_len() as usize) * n;
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let mut value = || f32::from(random()) / 128.0 - 1.0;
        let mut data: Vec<u8> = match FloatType::of(dtype) {
            Some(FloatType::F32) => (0..n * k).flat_map(|_| value().to_le_bytes()).collect(),
            Some(FloatType::F16) => (0..n * k).flat_map(|_| f16::from_f32(value()).to_le_bytes()).collect(),
            Some(FloatType::BF16) => (0..n * k).flat_map(|_| bf16::from_f32(value()).to_le_bytes()).collect(),
            // Any quants will do; no scale is infinite or no number.
            None => (0..bytes).map(|_| random() & 0x37).collect(),
        };
        if dtype == GgmlType::Mxfp4 {
            // Exponents of ordinary size: products with subnormal numbers are slow.
            data.iter_mut().step_by(dtype.block_bytes() as usize).for_each(|exponent| *exponent |= 0x40);
        }
        let (mut matrices, mut memory) = (Vec::new(), Arena::default());
        for _ in 0..copies {
            let team = &mut machine.team;
            let matrix = if FloatType::of(dtype).is_some() {
                FloatMatrix::pack(dtype, &data, n, k, team, &mut memory)?.map(Matrix::Float)
            } else {
                PackedMatrix::pack(dtype, &data, n, k, team, &mut memory)?.map(Matrix::Quantized)
            };
            match matrix {
                Some(matrix) => matrices.push(matrix),
                None => return Ok(None),
            }
        }
        let (activations, float_activations) = (Activations::default(), FloatActivations::default());
        Ok(Some(Self { matrices, isa, activations, float_activations, x: Vec::new(), out: Vec::new() }))
    }

    /// Bytes of each matrix.
    pub fn bytes(&self) -> usize {
        self.matrices.first().map_or(0, |matrix| matrix.bytes().len())
    }

    /// Prepares rows to multiply.
    pub fn rows(&mut self, m: usize) {
        let (n, k) = self.matrices.first().map_or((0, 0), Matrix::shape);
        self.x = (0..m * k).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
        self.out = vec![0.0; m * n];
    }

    /// Multiplies the rows, which were quantized or reordered, by matrix `i`, counted round and round.
    pub fn multiply(&mut self, i: usize, machine: &mut Machine) {
        let (team, out) = (&mut machine.team, self.out.as_mut_slice());
        match &self.matrices[i % self.matrices.len()] {
            Matrix::Quantized(matrix) => matrix.multiply(self.isa, &mut self.activations, team, out),
            Matrix::Float(matrix) => {
                let products = [Some(FloatProduct::new(matrix, out))];
                multiply_floats(self.isa, &products, &mut self.float_activations, team);
            }
        }
    }

    /// Quantizes the rows, or reorders them for products with floats.
    pub fn quantize(&mut self, machine: &mut Machine) {
        let team = &mut machine.team;
        match &self.matrices[0] {
            Matrix::Quantized(matrix) => matrix.quantize(&self.x, team, &mut self.activations),
            Matrix::Float(matrix) => self.float_activations.fill(&self.x, matrix.k(), self.isa, team),
        }
    }

    /// Reads matrix `i` and does nothing with it.
    pub fn read(&self, i: usize, machine: &mut Machine) {
        roofline::read(self.matrices[i % self.matrices.len()].bytes(), &mut machine.team);
    }
}
