//! The result of one case, as it is printed.

use crate::measure::Measured;
use crate::percentile::{median, percentile, range};
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
    /// Tokens that each stream generates.
    pub generate: usize,
    /// Streams that run together.
    pub parallel: usize,
    /// What was measured.
    #[serde(flatten)]
    pub figures: Figures,
    /// The conditions under which it was measured.
    #[serde(flatten)]
    pub settings: Settings,
}

/// What was measured; `figures.md` defines it.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Figures {
    pub prefill_tokens_per_second: Option<f64>,
    pub prefill_tokens_per_second_range: Option<[f64; 2]>,
    pub decode_tokens_per_second: Option<f64>,
    pub decode_tokens_per_second_range: Option<[f64; 2]>,
    pub total_tokens_per_second: Option<f64>,
    pub ttft_ms_p50: Option<f64>,
    pub ttft_ms_p95: Option<f64>,
    pub itl_ms_p50: Option<f64>,
    pub itl_ms_p95: Option<f64>,
    pub peak_rss_bytes: Option<u64>,
    pub weights_bytes_per_step: Option<u64>,
    pub bandwidth_bytes_per_second: f64,
    pub decode_bandwidth_share: Option<f64>,
}

/// The conditions: with them and the same model a line can be measured again.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Times measured.
    pub repetitions: usize,
    /// Warm-up runs before.
    pub warmup: usize,
    /// Tokens in a batch at most.
    pub batch: usize,
    /// Tokens of one prompt in a batch at most.
    pub prefill_chunk: usize,
    /// Tokens that a sequence may hold.
    pub context: usize,
    /// Tokens of KV over all streams.
    pub kv_tokens: usize,
    /// Times that a stream lost its KV to another and had to be computed again.
    pub preemptions: u64,
    /// Seed of the prompts.
    pub seed: u64,
    /// Version of Exsa.
    pub version: &'static str,
}

impl Figures {
    /// Sums up `measured`. `weights_bytes` is what a decode step reads, `bandwidth` in bytes per second.
    pub fn new(
        measured: &Measured,
        peak_rss_bytes: Option<u64>,
        weights_bytes: Option<u64>,
        bandwidth: f64,
    ) -> Self {
        let decode_steps = median(&measured.decode_steps);
        let moved = weights_bytes.zip(decode_steps).map(|(bytes, steps)| bytes as f64 * steps);
        Self {
            prefill_tokens_per_second: median(&measured.prefill),
            prefill_tokens_per_second_range: range(&measured.prefill),
            decode_tokens_per_second: median(&measured.decode),
            decode_tokens_per_second_range: range(&measured.decode),
            total_tokens_per_second: median(&measured.total),
            ttft_ms_p50: percentile(&measured.first_tokens_ms, 50.0),
            ttft_ms_p95: percentile(&measured.first_tokens_ms, 95.0),
            itl_ms_p50: percentile(&measured.gaps_ms, 50.0),
            itl_ms_p95: percentile(&measured.gaps_ms, 95.0),
            peak_rss_bytes,
            weights_bytes_per_step: weights_bytes,
            bandwidth_bytes_per_second: bandwidth,
            decode_bandwidth_share: moved.map(|bytes| bytes / bandwidth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_bytes_times_steps_over_bandwidth() {
        let measured = Measured {
            prefill: vec![10.0, 30.0, 20.0],
            decode: vec![8.0],
            decode_steps: vec![2.0],
            ..Measured::default()
        };
        let figures = Figures::new(&measured, None, Some(100), 1000.0);
        assert_eq!(figures.decode_bandwidth_share, Some(0.2));
        assert_eq!(figures.prefill_tokens_per_second, Some(20.0));
        assert_eq!(figures.prefill_tokens_per_second_range, Some([10.0, 30.0]));
        assert_eq!((figures.itl_ms_p50, figures.peak_rss_bytes), (None, None));
        assert_eq!(Figures::new(&measured, None, None, 1.0).decode_bandwidth_share, None);
    }
}
