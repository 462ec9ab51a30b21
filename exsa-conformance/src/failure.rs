//! Results of cases.

use std::fmt;

/// A sentence of the contract, printed by a failing case.
///
/// The text follows the documentation of [`exsa_core::backend`], shortened to the tested part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Documented item: `Session::truncate`.
    pub place: &'static str,
    /// Text of the clause.
    pub text: &'static str,
}

/// A violation of a clause: clause, input, expectation and result.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// The violated clause.
    pub clause: Clause,
    /// The operation under test.
    pub input: String,
    /// The result required by the clause.
    pub expected: String,
    /// The actual result.
    pub found: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clause: Clause { place, text }, input, expected, found } = self;
        write!(
            f,
            "a clause of the contract is violated\n  clause:   {place}: {text}\n  input:    {input}\n  \
             expected: {expected}\n  found:    {found}"
        )
    }
}

/// The test harness prints errors by `Debug`, so `Debug` prints the readable form.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}

/// Outcome of a case without a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All checks passed.
    Passed,
    /// The backend does not support the tested operation, or the fixture lacks a prerequisite.
    Skipped(String),
}

/// Result of a case.
pub type CaseResult = Result<Outcome, Failure>;
