//! Mirostat 2: keeps tokens whose surprise is below a bound, which feedback adjusts so that the surprise of
//! the text approaches a target (Basu, Ramachandran, Keskar, Varshney: "Mirostat: a neural text decoding
//! algorithm that directly controls perplexity", 2021, arXiv:2007.14966; version 2 of the authors' code).

use super::surprise::Surprise;
use crate::sampler::candidates::Candidates;
use crate::sampler::exp::exp;
use crate::sampler::transform::{Accepted, Step, Transform};
use std::f32::consts::LN_2;

#[derive(Debug)]
pub(in crate::sampler) struct MirostatV2 {
    pub surprise: Surprise,
}

impl Transform for MirostatV2 {
    fn apply(&mut self, candidates: &mut Candidates<'_>, _step: &mut Step<'_>) {
        let bound = self.surprise.bound();
        let least = if bound > 0.0 { exp(-bound * LN_2) } else { 1.0 };
        candidates.keep_probable(f64::from(least));
    }

    fn accept(&mut self, accepted: &Accepted) {
        self.surprise.accept(accepted);
    }

    fn rollback(&mut self, n: usize) {
        self.surprise.rollback(n);
    }

    fn needs_logprob(&self) -> bool {
        true
    }

    fn observations(&self) -> Option<&[f32]> {
        Some(self.surprise.observations())
    }

    fn restore(&mut self, observations: &[f32]) {
        self.surprise.restore(observations);
    }
}
