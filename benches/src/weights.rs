//! Cost of a model's weights: the bytes that a decode step reads, and the multiply-adds of a token.

use exsa_core::error::LoadError;
use exsa_core::gguf::Gguf;
use std::fs::File;
use std::path::Path;

/// Costs of the matrix products; attention comes on top and grows with the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Bytes that a decode step reads, however many streams it serves: all tensors but those of experts, less
    /// the embedding table where there is an output matrix beside it. Of the table, a step reads but a row
    /// for each stream.
    pub bytes_per_step: u64,
    /// Bytes of all experts, of which a step reads those that its streams use.
    pub expert_bytes: u64,
    /// Experts of a layer, and of a token.
    pub experts: (u64, u64),
    /// Multiply-adds of one token in the layers.
    pub layers: u64,
    /// Multiply-adds of one row of logits.
    pub output: u64,
}

impl Weights {
    /// Reads the costs off the header of the GGUF at `path`.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let io = |source| LoadError::Io { path: path.into(), source };
        let gguf = Gguf::read(&mut File::open(path).map_err(io)?)?;
        let architecture: String = gguf.metadata().require("general.architecture")?;
        let number = |key: &str| gguf.metadata().get::<u64>(&format!("{architecture}.{key}"));
        let experts = (number("expert_count")?.unwrap_or(0), number("expert_used_count")?.unwrap_or(0));
        let tensors = gguf.tensors().iter();
        Ok(Self::new(experts, tensors.map(|t| (t.name.as_str(), t.shape.as_slice(), t.bytes))))
    }

    fn new<'a>(
        experts: (u64, u64),
        tensors: impl Iterator<Item = (&'a str, &'a [u64], u64)> + Clone,
    ) -> Self {
        let untied = tensors.clone().any(|(name, ..)| name == "output.weight");
        let output = if untied { "output.weight" } else { "token_embd.weight" };
        let mut weights = Self { experts, ..Self::default() };
        for (name, shape, bytes) in tensors {
            let stacked = shape.len() == 3;
            if stacked {
                weights.expert_bytes = weights.expert_bytes.saturating_add(bytes);
            } else if name == output || name != "token_embd.weight" {
                weights.bytes_per_step = weights.bytes_per_step.saturating_add(bytes);
            }
            let elements = shape.iter().fold(1, |product: u64, n| product.saturating_mul(*n));
            if name == output {
                weights.output = elements;
            } else if stacked {
                let used =
                    (u128::from(elements) * u128::from(experts.1) / u128::from(experts.0.max(1))) as u64;
                weights.layers = weights.layers.saturating_add(used);
            } else if name.starts_with("blk.") && shape.len() >= 2 {
                weights.layers = weights.layers.saturating_add(elements);
            }
        }
        weights
    }

    /// Bytes that a decode step of `streams` streams reads, where each chooses its experts by chance.
    pub fn bytes(&self, streams: f64) -> f64 {
        let share = self.experts.1 as f64 / self.experts.0.max(1) as f64;
        self.bytes_per_step as f64 + self.expert_bytes as f64 * (1.0 - (1.0 - share).powf(streams))
    }

    /// Operations (a multiply-add counts as two) that `tokens` tokens take of which `rows` give logits.
    pub fn operations(&self, tokens: f64, rows: f64) -> f64 {
        2.0 * (self.layers as f64 * tokens + self.output as f64 * rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_the_output_matrix_too_is_read() {
        let tied: [(&str, &[u64], u64); 3] = [
            ("token_embd.weight", &[4, 50], 100),
            ("blk.0.attn_q.weight", &[4, 4], 10),
            ("output_norm.weight", &[4], 1),
        ];
        assert_eq!(
            Weights::new((0, 0), tied.into_iter()),
            Weights { bytes_per_step: 111, layers: 16, output: 200, ..Weights::default() }
        );
        let untied: [(&str, &[u64], u64); 4] = [
            ("token_embd.weight", &[4, 50], 100),
            ("blk.0.attn_q.weight", &[4, 4], 10),
            ("blk.0.attn_norm.weight", &[4], 3),
            ("output.weight", &[4, 60], 120),
        ];
        let weights = Weights::new((0, 0), untied.into_iter());
        assert_eq!(weights, Weights { bytes_per_step: 133, layers: 16, output: 240, ..Weights::default() });
        assert!((weights.operations(10.0, 2.0) - 1280.0).abs() < 1e-9);
        assert_eq!(Weights::new((0, 0), [].into_iter()), Weights::default());
    }

    /// One stream reads its experts, and many read nearly all.
    #[test]
    fn a_step_reads_the_experts_of_its_streams() {
        let tensors: [(&str, &[u64], u64); 3] = [
            ("blk.0.ffn_gate_inp.weight", &[4, 8], 128),
            ("blk.0.ffn_up_exps.weight", &[4, 5, 8], 640),
            ("output.weight", &[4, 50], 100),
        ];
        let weights = Weights::new((8, 2), tensors.into_iter());
        assert_eq!((weights.bytes_per_step, weights.expert_bytes), (228, 640));
        assert_eq!((weights.layers, weights.output), (32 + 40, 200));
        assert!((weights.bytes(1.0) - 388.0).abs() < 1e-9);
        assert!((weights.bytes(2.0) - 508.0).abs() < 1e-9);
        assert!(weights.bytes(100.0) > 867.9 && weights.bytes(100.0) <= 868.0);
    }

    #[test]
    fn a_file_that_is_no_model_is_refused() {
        assert!(matches!(Weights::read(Path::new("nowhere.gguf")), Err(LoadError::Io { .. })));
        assert!(matches!(Weights::read(Path::new("Cargo.toml")), Err(LoadError::Gguf(_))));
    }
}
