//! What happened in one run, and what follows from it.

use std::time::Duration;

/// When each token came, as time since the first submission. All tokens of one step have the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// By stream, the times of its tokens, ascending; every stream has at least one.
    pub streams: Vec<Vec<Duration>>,
}

/// The part of a run in which every stream decodes and nothing else is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodePhase {
    /// Tokens generated, over all streams.
    pub tokens: usize,
    /// Steps, each of which reads the weights once.
    pub steps: usize,
    /// How long it took.
    pub time: Duration,
}

impl DecodePhase {
    /// Tokens in a second, over all streams.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64()
    }

    /// Steps in a second.
    pub fn steps_per_second(&self) -> f64 {
        self.steps as f64 / self.time.as_secs_f64()
    }
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

    /// The time from the last stream's first token to the first stream's last; `None` where nothing lies between.
    pub fn decode_phase(&self) -> Option<DecodePhase> {
        let start = self.prefilled();
        let end = self.streams.iter().filter_map(|stream| stream.last()).min().copied()?;
        let time = end.checked_sub(start).filter(|time| !time.is_zero())?;
        let within = |time: &&Duration| start < **time && **time <= end;
        let mut times: Vec<_> = self.streams.iter().flatten().filter(within).collect();
        let tokens = times.len();
        times.sort_unstable();
        times.dedup();
        Some(DecodePhase { tokens, steps: times.len(), time })
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
    fn the_decode_phase_begins_with_the_last_first_token_and_ends_with_the_first_end() {
        // The first stream decodes at 20 and 30 while the second one's prompt is computed.
        let trace = trace(&[&[10, 20, 30, 35, 40], &[30, 35, 40, 45, 50]]);
        let phase = trace.decode_phase().unwrap();
        assert_eq!((phase.tokens, phase.steps, phase.time.as_millis()), (4, 2, 10));
        assert!((phase.tokens_per_second() - 400.0).abs() < 1e-9);
        assert!((phase.steps_per_second() - 200.0).abs() < 1e-9);
        assert_eq!((trace.prefilled().as_millis(), trace.end().as_millis(), trace.tokens()), (30, 50, 10));
    }

    #[test]
    fn one_stream_decodes_from_its_first_token_on() {
        let phase = trace(&[&[100, 110, 120, 130]]).decode_phase().unwrap();
        assert_eq!((phase.tokens, phase.steps, phase.time.as_millis()), (3, 3, 30));
    }

    #[test]
    fn streams_that_never_decode_together_have_no_decode_phase() {
        assert_eq!(trace(&[&[10, 20], &[30, 40]]).decode_phase(), None);
        assert_eq!(trace(&[&[10, 20, 30], &[30, 40, 50]]).decode_phase(), None);
        assert_eq!(trace(&[&[10], &[10]]).decode_phase(), None);
        assert_eq!(Trace::default().decode_phase(), None);
    }

    #[test]
    fn latencies() {
        let trace = trace(&[&[10, 20, 35], &[30]]);
        assert_eq!(trace.first_tokens_ms().collect::<Vec<_>>(), [10.0, 30.0]);
        assert_eq!(trace.gaps_ms().collect::<Vec<_>>(), [10.0, 15.0]);
    }
}
