//! How backends that ran in turn compare.

use crate::case::Case;
use crate::measure::Measured;
use crate::percentile::{median, range};
use serde::Serialize;

/// One JSON line: how many times as fast one backend was as another. Above 1 the former is faster.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Name of the backend.
    pub ratio_of: String,
    /// Name of the one that it is compared with.
    pub to: String,
    /// The model's file as it was given.
    pub model: String,
    /// The case in words.
    pub case: String,
    /// Prompt tokens per second.
    pub prefill: Option<Ratio>,
    /// Tokens generated per second.
    pub decode: Option<Ratio>,
    /// Tokens of prompts and answers per second.
    pub total: Option<Ratio>,
}

/// Ratios of rates that were measured in the same rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The median over the rounds.
    pub median: f64,
    /// The least and the greatest.
    pub range: [f64; 2],
}

impl Comparison {
    /// Compares what `ours` and `theirs`, names and figures, gave in the same case.
    pub fn new(model: &str, case: &Case, ours: (&str, &Measured), theirs: (&str, &Measured)) -> Self {
        Self {
            ratio_of: ours.0.into(),
            to: theirs.0.into(),
            model: model.into(),
            case: case.to_string(),
            prefill: Ratio::new(&ours.1.prefill, &theirs.1.prefill),
            decode: Ratio::new(&ours.1.decode, &theirs.1.decode),
            total: Ratio::new(&ours.1.total, &theirs.1.total),
        }
    }
}

impl Ratio {
    /// Of rates by round; `None` without any.
    pub fn new(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratios: Vec<_> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Some(Self { median: median(&ratios)?, range: range(&ratios)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine was slow in the second round, for both.
        let ratio = Ratio::new(&[20.0, 11.0, 22.0], &[10.0, 5.0, 10.0]).unwrap();
        assert_eq!(ratio, Ratio { median: 2.2, range: [2.0, 2.2] });
        assert_eq!(Ratio::new(&[], &[]), None);
    }
}
