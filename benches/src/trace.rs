//! Events of one run, and the figures that follow from them.

use std::time::Duration;

/// When each token came, as time since the first submission. All tokens of one step have the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// By stream, the times of its tokens, ascending; every stream has at least one.
    pub streams: Vec<Vec<Duration>>,
}

impl Trace {
    /// When the last stream got its first token: all prompts are computed.
    pub fn prefilled(&self) -> Duration {
        self.streams.iter().filter_map(|stream| stream.first()).max().copied().unwrap_or_default()
    }

    /// When the last token came.
    pub fn end(&self) -> Duration {
        self.streams.iter().filter_map(|stream| stream.last()).max().copied().unwrap_or_default()
    }

    /// Tokens generated, over all streams.
    pub fn tokens(&self) -> usize {
        self.streams.iter().map(Vec::len).sum()
    }

    /// By stream, how long its first token took, in milliseconds.
    pub fn first_tokens_ms(&self) -> impl Iterator<Item = f64> {
        self.streams.iter().filter_map(|stream| stream.first()).map(|time| milliseconds(*time))
    }

    /// The times between tokens that follow one another, of all streams, in milliseconds.
    pub fn gaps_ms(&self) -> impl Iterator<Item = f64> {
        let pairs = self.streams.iter().flat_map(|stream| stream.windows(2));
        pairs.map(|pair| milliseconds(pair[1].saturating_sub(pair[0])))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(streams: &[&[u64]]) -> Trace {
        let stream = |times: &&[u64]| times.iter().map(|ms| Duration::from_millis(*ms)).collect();
        Trace { streams: streams.iter().map(stream).collect() }
    }

    #[test]
    fn a_run_is_prefilled_with_the_last_first_token_and_ends_with_the_last() {
        let trace = trace(&[&[10, 20, 30, 35, 40], &[30, 35, 40, 45, 50]]);
        assert_eq!((trace.prefilled().as_millis(), trace.end().as_millis(), trace.tokens()), (30, 50, 10));
        assert_eq!(Trace::default().end(), Duration::ZERO);
    }

    #[test]
    fn latencies() {
        let trace = trace(&[&[10, 20, 35], &[30]]);
        assert_eq!(trace.first_tokens_ms().collect::<Vec<_>>(), [10.0, 30.0]);
        assert_eq!(trace.gaps_ms().collect::<Vec<_>>(), [10.0, 15.0]);
    }
}
