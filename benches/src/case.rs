//! Cases to measure: numbers of streams, and their lengths.

use crate::options::Options;
use crate::random::Random;

/// Lengths of the prompts of one case, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptLength {
    /// All the same.
    Fixed(usize),
    /// Each somewhere in this range, both ends included.
    Ragged {
        /// The shortest that may come.
        low: usize,
        /// The longest that may come.
        high: usize,
    },
}

impl PromptLength {
    /// The option that asks for these prompts, and its value.
    pub fn argument(self) -> (&'static str, String) {
        match self {
            Self::Fixed(n) => ("--prompt", n.to_string()),
            Self::Ragged { low, high } => ("--ragged", format!("{low},{high}")),
        }
    }
}

/// One line of results: so many streams at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Lengths of the prompts.
    pub prompt: PromptLength,
    /// Tokens that each stream generates in a round.
    pub generate: usize,
    /// Streams that run together.
    pub parallel: usize,
}

impl Case {
    /// The cases that `options` ask for: every prompt length with every number of streams.
    pub fn all(options: &Options) -> Vec<Self> {
        let prompts: Vec<_> = match options.ragged {
            Some((low, high)) => vec![PromptLength::Ragged { low, high }],
            None => options.prompt.iter().map(|n| PromptLength::Fixed(*n)).collect(),
        };
        let generate = options.generate;
        let case = |prompt| options.parallel.iter().map(move |&parallel| Self { prompt, generate, parallel });
        prompts.into_iter().flat_map(case).collect()
    }

    /// Whether prompts of several lengths run, so that some decode while others are computed.
    pub fn is_mixed(&self) -> bool {
        matches!(self.prompt, PromptLength::Ragged { .. })
    }

    /// The prompts' lengths, one for each stream; the same for the same seed.
    pub fn lengths(&self, seed: u64) -> Vec<usize> {
        let mut random = Random::new(seed);
        let length = |_| match self.prompt {
            PromptLength::Fixed(n) => n,
            PromptLength::Ragged { low, high } => low + random.below((high - low).saturating_add(1)),
        };
        (0..self.parallel).map(length).collect()
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.prompt {
            PromptLength::Fixed(n) => write!(f, "prompt {n}")?,
            PromptLength::Ragged { low, high } => write!(f, "prompts of {low} to {high}")?,
        }
        write!(f, ", generate {}, parallel {}", self.generate, self.parallel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ragged_lengths_cover_their_range_and_repeat_by_seed() {
        let case = Case { prompt: PromptLength::Ragged { low: 3, high: 6 }, generate: 1, parallel: 200 };
        let lengths = case.lengths(5);
        assert_eq!(lengths.iter().min(), Some(&3));
        assert_eq!(lengths.iter().max(), Some(&6));
        assert_eq!(lengths, case.lengths(5));
        assert_ne!(lengths, case.lengths(6));
        let case = Case { prompt: PromptLength::Ragged { low: 4, high: 4 }, ..case };
        assert!(case.lengths(1).iter().all(|n| *n == 4));
        let case = Case { prompt: PromptLength::Fixed(9), ..case };
        assert_eq!(case.lengths(1), [9; 200]);
    }
}
