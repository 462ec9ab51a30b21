//! The result of one case, as it is printed.

use crate::kernels::int8_peak::Int8Peak;
use crate::measure::Measured;
use crate::percentile::{median, percentile, range};
use crate::weights::Weights;
use serde::Serialize;

/// One JSON line. What could not be measured is null.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the backend.
    pub backend: String,
    /// Name of the device, where the backend has one to tell.
    pub device: Option<String>,
    /// The model's file as it was given, or the name of a built-in one.
    pub model: String,
    /// The model's own name.
    pub model_name: String,
    /// Its architecture.
    pub architecture: String,
    /// Type of its weights, as files are named: `Q8_0`.
    pub quantization: String,
    /// Number of its weights.
    pub parameters: u64,
    /// Threads that compute.
    pub threads: usize,
    /// Tokens of a prompt; the mean, rounded, where they differ.
    pub prompt: usize,
    /// Tokens of the shortest and of the longest prompt.
    pub prompt_range: [usize; 2],
    /// Tokens that each stream generates in a round.
    pub generate: usize,
    /// Streams that run together.
    pub parallel: usize,
    /// Measured figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// The conditions under which it was measured.
    #[serde(flatten)]
    pub settings: Settings,
}

/// Measured figures; `figures.md` defines them.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Figures {
    pub prefill_tokens_per_second: Option<f64>,
    pub prefill_tokens_per_second_range: Option<[f64; 2]>,
    pub decode_tokens_per_second: Option<f64>,
    pub decode_tokens_per_second_range: Option<[f64; 2]>,
    pub total_tokens_per_second: Option<f64>,
    pub total_tokens_per_second_range: Option<[f64; 2]>,
    pub ttft_ms_p50: Option<f64>,
    pub ttft_ms_p95: Option<f64>,
    pub itl_ms_p50: Option<f64>,
    pub itl_ms_p95: Option<f64>,
    pub peak_rss_bytes: Option<u64>,
    pub weights_bytes_per_step: Option<u64>,
    pub bandwidth_bytes_per_second: f64,
    pub decode_bandwidth_share: Option<f64>,
    pub int8_peak: Option<Int8Peak>,
    pub prefill_int8_share: Option<f64>,
    pub decode_int8_share: Option<f64>,
}

/// The conditions: with them and the same model a line can be measured again.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Times measured.
    pub rounds: usize,
    /// Times that the prompts alone were measured.
    pub prefill_rounds: usize,
    /// Warm-up runs before.
    pub warmup: usize,
    /// Tokens in a batch at most.
    pub batch: usize,
    /// Tokens of one prompt in a batch at most.
    pub prefill_chunk: usize,
    /// Tokens of KV over all streams.
    pub kv_tokens: usize,
    /// Times that a stream lost its KV to another and had to be computed again.
    pub preemptions: u64,
    /// Seed of the prompts.
    pub seed: u64,
    /// Version of Exsa.
    pub version: &'static str,
}

/// Limits of the machine, measured beside the case.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Bytes that a plain read takes in a second.
    pub bandwidth: f64,
    /// 8-bit operations in a second, where there is a loop for this processor.
    pub int8: Option<Int8Peak>,
}

impl Figures {
    /// Sums up what was `measured` with prompts of `lengths`.
    pub fn new(
        measured: &Measured,
        lengths: &[usize],
        peak_rss_bytes: Option<u64>,
        weights: Option<Weights>,
        machine: Machine,
    ) -> Self {
        let (tokens, streams) = (lengths.iter().sum::<usize>() as f64, lengths.len() as f64);
        let prefill = median(&measured.prefill);
        let steps = median(&measured.decode_steps);
        let share = |rate: Option<f64>, operations: &dyn Fn(Weights) -> f64| {
            Some(rate? * operations(weights?) / machine.int8?.operations_per_second)
        };
        let moved = weights.zip(steps).map(|(weights, steps)| weights.bytes(streams) * steps);
        Self {
            prefill_tokens_per_second: prefill,
            prefill_tokens_per_second_range: range(&measured.prefill),
            decode_tokens_per_second: median(&measured.decode),
            decode_tokens_per_second_range: range(&measured.decode),
            total_tokens_per_second: median(&measured.total),
            total_tokens_per_second_range: range(&measured.total),
            ttft_ms_p50: percentile(&measured.first_tokens_ms, 50.0),
            ttft_ms_p95: percentile(&measured.first_tokens_ms, 95.0),
            itl_ms_p50: percentile(&measured.gaps_ms, 50.0),
            itl_ms_p95: percentile(&measured.gaps_ms, 95.0),
            peak_rss_bytes,
            weights_bytes_per_step: weights.map(|weights| weights.bytes(streams) as u64),
            bandwidth_bytes_per_second: machine.bandwidth,
            decode_bandwidth_share: moved.map(|bytes| bytes / machine.bandwidth),
            int8_peak: machine.int8,
            // Of a prompt, one row of logits is wanted.
            prefill_int8_share: share(prefill, &|weights| weights.operations(1.0, streams / tokens)),
            decode_int8_share: share(steps, &|weights| weights.operations(streams, streams)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_what_is_moved_and_computed_over_what_could_be() {
        let measured = Measured {
            prefill: vec![10.0, 30.0, 20.0],
            decode: vec![8.0],
            decode_steps: vec![2.0],
            ..Measured::default()
        };
        let weights = Weights { bytes_per_step: 100, layers: 50, output: 30, ..Weights::default() };
        let int8 = Int8Peak { operations_per_second: 10_000.0, instructions: "none" };
        let machine = Machine { bandwidth: 1000.0, int8: Some(int8) };
        let figures = Figures::new(&measured, &[5; 4], None, Some(weights), machine);
        assert_eq!(figures.decode_bandwidth_share, Some(0.2));
        assert_eq!(figures.prefill_tokens_per_second, Some(20.0));
        assert_eq!(figures.prefill_tokens_per_second_range, Some([10.0, 30.0]));
        assert_eq!((figures.itl_ms_p50, figures.peak_rss_bytes), (None, None));
        // 20 tokens a second at 2 x (50 + 30/5) operations, 2 steps of 4 rows at 2 x 80.
        assert!((figures.prefill_int8_share.unwrap() - 0.224).abs() < 1e-9);
        assert!((figures.decode_int8_share.unwrap() - 0.128).abs() < 1e-9);
        let figures = Figures::new(&measured, &[5], None, None, machine);
        assert_eq!((figures.decode_bandwidth_share, figures.decode_int8_share), (None, None));
    }
}
