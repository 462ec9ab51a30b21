//! Request timings in llama-server's format.

use exsa_core::Usage;
use exsa_core::stats::DraftStats;
use serde::Serialize;
use std::time::Duration;

/// Tokens and times of prompt and answer. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Timings {
    /// Prompt tokens whose KV was cached.
    cache_n: usize,
    /// Prompt tokens that were computed.
    prompt_n: usize,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: usize,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
    /// Drafts verified; omitted if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_n: Option<u64>,
    /// Drafts accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_n_accepted: Option<u64>,
}

impl From<&Usage> for Timings {
    fn from(usage: &Usage) -> Self {
        let first = usage.time_to_first_token.unwrap_or(usage.total_time);
        let prompt = first.saturating_sub(usage.queue_time.unwrap_or_default());
        let answer = usage.total_time.saturating_sub(first);
        let (prompt_n, predicted_n) =
            (usage.prompt_tokens.saturating_sub(usage.cached_tokens), usage.completion_tokens);
        let drafts = Some(&*usage.drafts).filter(|drafts| !drafts.is_empty());
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            cache_n: usage.cached_tokens,
            prompt_n,
            prompt_ms: milliseconds(prompt),
            prompt_per_token_ms: ratio(milliseconds(prompt), prompt_n as f64),
            prompt_per_second: ratio(prompt_n as f64, prompt.as_secs_f64()),
            predicted_n,
            predicted_ms: milliseconds(answer),
            predicted_per_token_ms: ratio(milliseconds(answer), predicted_n as f64),
            predicted_per_second: ratio(predicted_n as f64, answer.as_secs_f64()),
            draft_n: drafts.map(DraftStats::drafted),
            draft_n_accepted: drafts.map(DraftStats::accepted),
        }
    }
}

/// Returns a quotient, or 0 for a zero divisor, since JSON has no infinity.
fn ratio(value: f64, by: f64) -> f64 {
    if by > 0.0 { value / by } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::speculate::DraftSource;

    #[test]
    fn times_are_those_of_prompt_and_answer() {
        let usage = Usage::new(10, 4)
            .cached_tokens(6)
            .queue_time(Duration::from_millis(5))
            .time_to_first_token(Duration::from_millis(25))
            .total_time(Duration::from_millis(65));
        let timings = Timings::from(&usage);
        assert_eq!((timings.cache_n, timings.prompt_n, timings.predicted_n), (6, 4, 4));
        for (value, expected) in [
            (timings.prompt_ms, 20.0),
            (timings.predicted_ms, 40.0),
            (timings.prompt_per_second, 200.0),
            (timings.predicted_per_second, 100.0),
            (timings.predicted_per_token_ms, 10.0),
        ] {
            assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
        }
        assert_eq!(Timings::from(&Usage::default()), Timings::default());
        let fields = |usage: &Usage| serde_json::to_value(Timings::from(usage)).unwrap();
        assert!(fields(&usage).get("draft_n").is_none());
        let mut drafts = DraftStats::default();
        drafts.add_run(DraftSource::SuffixIndex, 5, 3);
        let timings = fields(&usage.drafts(drafts));
        assert_eq!((&timings["draft_n"], &timings["draft_n_accepted"]), (&5.into(), &3.into()));
    }
}
