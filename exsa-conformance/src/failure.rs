//! What a case says when it does not pass.

use std::fmt;

/// A sentence of the contract, as a failing case prints it.
///
/// The text is the contract's own, from the documentation of [`exsa_core::backend`], shortened to the part that is
/// tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Where it stands: `Session::truncate`.
    pub place: &'static str,
    /// What it says.
    pub text: &'static str,
}

/// A backend that broke a clause: which one, with what input, and what was expected of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// The clause.
    pub clause: Clause,
    /// What was done.
    pub input: String,
    /// What the clause promises.
    pub expected: String,
    /// What came instead.
    pub found: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clause: Clause { place, text }, input, expected, found } = self;
        write!(
            f,
            "a clause of the contract does not hold\n  clause:   {place}: {text}\n  input:    {input}\n  \
             expected: {expected}\n  found:    {found}"
        )
    }
}

/// The test harness prints errors by `Debug`, and a failure shall be readable there.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}

/// How a case ended that found nothing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was tried, and held.
    Passed,
    /// The backend does not offer what the case is about, or the fixture does not have what it needs.
    Skipped(String),
}

/// What a case gives.
pub type CaseResult = Result<Outcome, Failure>;
