//! Logits and greedy tokens of models against the candle backend on the CPU.

use crate::Named;
use crate::report::Found;
use exsa_backend_candle::CandleBackend;
use exsa_benches::progress::say;
use exsa_conformance::{Comparison, compare};
use exsa_gpu::GpuBackend;
use exsa_gpu::device::Devices;
use serde_json::json;

/// Difference of logits allowed, relative to the largest one: the CPU quantizes activations to 8 bits.
const LIMIT: f32 = 0.05;

/// Compares each model.
pub fn check<P: Devices + Clone>(devices: &P, models: &[Named]) -> Result<Found, String> {
    let (gpu, cpu) = (GpuBackend::new(devices.clone()), CandleBackend::new());
    let (mut found, mut passed) = (Vec::new(), true);
    for (name, source) in models {
        let (value, is_right) = match compare(&gpu, &cpu, source) {
            Ok(Comparison { difference, equal_tokens, .. }) => (
                json!({ "model": name, "difference": difference, "equal_greedy_tokens": equal_tokens }),
                difference <= LIMIT,
            ),
            Err(error) => (json!({ "model": name, "error": error }), false),
        };
        if !is_right {
            say(&value);
        }
        passed &= is_right;
        found.push(value);
    }
    let value = json!({ "limit": LIMIT, "of_greedy_tokens": Comparison::GREEDY, "models": found });
    Ok(Found { value, passed })
}
