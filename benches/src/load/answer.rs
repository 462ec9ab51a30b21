//! Answers and their times.

use std::time::Duration;

/// One answer. All times are from the start of the round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Index of the user.
    pub user: usize,
    /// The user's name.
    pub user_name: String,
    /// When it was to be sent.
    pub arrived: Duration,
    /// When its pieces of text came; at least one.
    pub pieces: Vec<Duration>,
    /// Its tokens.
    pub usage: Tokens,
}

/// Tokens as the target counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub prompt: usize,
    /// Of these, computed before for somebody else; 0 where the target does not tell.
    pub cached: usize,
    /// Of the answer.
    pub generated: usize,
}

impl Answer {
    /// When the first piece came.
    pub fn first(&self) -> Duration {
        self.pieces.first().copied().unwrap_or(self.arrived)
    }

    /// When the last piece came.
    pub fn end(&self) -> Duration {
        self.pieces.last().copied().unwrap_or(self.arrived)
    }

    /// Tokens that were computed or came for it from `start` to `end`: the prompt's with the first piece, the
    /// answer's evenly with the pieces.
    pub fn service(&self, start: Duration, end: Duration) -> f64 {
        let within = |time: &Duration| start <= *time && *time <= end;
        let prompt = if within(&self.first()) { self.usage.prompt - self.usage.cached } else { 0 };
        let pieces = self.pieces.iter().filter(|time| within(time)).count();
        let share = pieces as f64 / self.pieces.len().max(1) as f64;
        prompt as f64 + self.usage.generated as f64 * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_what_falls_into_the_time() {
        let seconds = |s: &[u64]| s.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        let usage = Tokens { prompt: 100, cached: 40, generated: 8 };
        let answer = Answer { pieces: seconds(&[2, 3, 4, 5]), usage, ..Answer::default() };
        assert_eq!(answer.service(Duration::ZERO, Duration::from_secs(9)), 68.0);
        assert_eq!(answer.service(Duration::from_secs(3), Duration::from_secs(4)), 4.0);
        assert_eq!(answer.service(Duration::ZERO, Duration::from_secs(2)), 62.0);
        assert_eq!(Answer::default().service(Duration::ZERO, Duration::ZERO), 0.0);
    }
}
