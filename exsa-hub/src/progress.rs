//! Progress of downloads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time over which the speed is averaged.
const WINDOW: Duration = Duration::from_secs(10);
/// Interval between two samples.
const SAMPLE: Duration = Duration::from_millis(100);

/// A phase of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Another process is downloading the same file.
    Waiting,
    /// Bytes are being received.
    Downloading,
    /// The SHA-256 is being computed.
    Verifying,
    /// The file is complete and in place.
    Done,
}

/// State of one file of a download. Bytes return to 0 if a file must be downloaded again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Path of the file in its repository, or the last part of its address.
    pub file: &'a str,
    /// Index of the file, from 0.
    pub index: usize,
    /// Number of files.
    pub files: usize,
    /// The phase.
    pub phase: Phase,
    /// Bytes present, or verified.
    pub bytes: u64,
    /// File size, if the server states it.
    pub total: Option<u64>,
    /// SHA-256 of the file in hexadecimal, if known in advance.
    pub sha256: Option<&'a str>,
}

/// Speed and remaining time over the last ten seconds.
///
/// ```
/// use exsa_hub::Rate;
/// use std::time::{Duration, Instant};
///
/// let (mut rate, begin) = (Rate::new(), Instant::now());
/// rate.record(begin, 0);
/// rate.record(begin + Duration::from_secs(2), 4_000);
/// assert_eq!(rate.bytes_per_second(), Some(2_000.0));
/// assert_eq!(rate.time_left(4_000, 10_000), Some(Duration::from_secs(3)));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// Creates a rate without samples.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the bytes present at a time. A lower count than before restarts the rate.
    pub fn record(&mut self, now: Instant, bytes: u64) {
        if self.samples.back().is_some_and(|(_, last)| *last > bytes) {
            self.samples.clear();
        }
        // The newest sample is replaced until it is far enough from the previous one.
        if self.samples.len() > 1 {
            let before = self.samples[self.samples.len() - 2].0;
            if now.saturating_duration_since(before) < SAMPLE {
                self.samples.pop_back();
            }
        }
        self.samples.push_back((now, bytes));
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW)
        {
            self.samples.pop_front();
        }
    }

    /// Bytes per second; `None` before the second sample.
    #[must_use]
    pub fn bytes_per_second(&self) -> Option<f64> {
        let ((begin, first), (end, last)) = (self.samples.front()?, self.samples.back()?);
        let seconds = end.saturating_duration_since(*begin).as_secs_f64();
        (seconds > 0.0).then(|| last.saturating_sub(*first) as f64 / seconds)
    }

    /// Remaining time until `total` bytes are present; `None` without progress.
    #[must_use]
    pub fn time_left(&self, bytes: u64, total: u64) -> Option<Duration> {
        let speed = self.bytes_per_second().filter(|speed| *speed > 0.0)?;
        Duration::try_from_secs_f64(total.saturating_sub(bytes) as f64 / speed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_window() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut rate = Rate::new();
        assert_eq!(rate.bytes_per_second(), None);
        for second in 0..=20 {
            // 100 bytes per second, later 300.
            rate.record(at(second), if second <= 10 { second * 100 } else { 1000 + (second - 10) * 300 });
        }
        assert_eq!(rate.bytes_per_second(), Some(300.0));
        rate.record(at(21), 10);
        assert_eq!(rate.bytes_per_second(), None, "a download that begins anew has no speed yet");
        rate.record(at(22), 10);
        assert_eq!(rate.time_left(10, 20), None, "nothing moves");
    }

    #[test]
    fn samples_are_few() {
        let begin = Instant::now();
        let mut rate = Rate::new();
        for millis in 0..100_000 {
            rate.record(begin + Duration::from_millis(millis), millis);
        }
        assert!(rate.samples.len() < 300, "{}", rate.samples.len());
        assert!((rate.bytes_per_second().unwrap() - 1000.0).abs() < 1.0);
    }
}
