//! Hooks for benchmarks: products by themselves. Not part of the interface: it may change or go at any time.

#![allow(missing_docs, reason = "hidden from the documentation, for this project's benchmarks alone")]

use crate::kernels::memory::pages::{self, Arena};
use crate::kernels::memory::team::Team;
use crate::kernels::quantized::activations::Activations;
use crate::kernels::quantized::{Isa, PackedMatrix, roofline};
use exsa_core::gguf::GgmlType;

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
}

/// Some matrices of one shape and type, enough of them that no cache holds them all.
pub struct Products {
    matrices: Vec<PackedMatrix>,
    isa: Isa,
    activations: Activations,
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
        // Any quants will do; no scale is infinite or no number.
        let data: Vec<u8> = (0..bytes)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8 & 0x37
            })
            .collect();
        let (mut matrices, mut memory) = (Vec::new(), Arena::default());
        for _ in 0..copies {
            match PackedMatrix::pack(dtype, &data, n, k, &mut machine.team, &mut memory)? {
                Some(matrix) => matrices.push(matrix),
                None => return Ok(None),
            }
        }
        Ok(Some(Self { matrices, isa, activations: Activations::default(), x: Vec::new(), out: Vec::new() }))
    }

    /// Bytes of each matrix.
    pub fn bytes(&self) -> usize {
        self.matrices.first().map_or(0, |matrix| matrix.bytes().len())
    }

    /// Prepares rows to multiply.
    pub fn rows(&mut self, m: usize) {
        let (n, k) = self.matrices.first().map_or((0, 0), |matrix| (matrix.n(), matrix.k()));
        self.x = (0..m * k).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
        self.out = vec![0.0; m * n];
    }

    /// Multiplies the rows, which were quantized, by matrix `i`, counted round and round.
    pub fn multiply(&mut self, i: usize, machine: &mut Machine) {
        let matrix = &self.matrices[i % self.matrices.len()];
        matrix.multiply(self.isa, &mut self.activations, &mut machine.team, &mut self.out);
    }

    /// Quantizes the rows.
    pub fn quantize(&mut self, machine: &mut Machine) {
        self.matrices[0].quantize(&self.x, &mut machine.team, &mut self.activations);
    }

    /// Reads matrix `i` and does nothing with it.
    pub fn read(&self, i: usize, machine: &mut Machine) {
        roofline::read(self.matrices[i % self.matrices.len()].bytes(), &mut machine.team);
    }
}
