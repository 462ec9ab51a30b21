//! Checks that report a [`Failure`] with clause, input, expectation and result.

use crate::failure::{Clause, Failure};
use crate::logits::Rows;
use std::fmt::Debug;

/// A clause under test with one input.
pub(crate) struct Check {
    clause: Clause,
    input: String,
}

/// Tests `clause` with `input`, a description of the operation.
pub(crate) fn check(clause: Clause, input: impl Into<String>) -> Check {
    Check { clause, input: input.into() }
}

impl Check {
    pub fn fail(&self, expected: impl Into<String>, found: impl Into<String>) -> Failure {
        let (expected, found) = (short(expected.into()), short(found.into()));
        Failure { clause: self.clause, input: short(self.input.clone()), expected, found }
    }

    /// Requires `holds`.
    pub fn holds(&self, holds: bool, expected: &str, found: impl Debug) -> Result<(), Failure> {
        if holds { Ok(()) } else { Err(self.fail(expected, format!("{found:?}"))) }
    }

    pub fn equal<T: PartialEq + Debug>(&self, found: T, expected: T) -> Result<(), Failure> {
        if found == expected { Ok(()) } else { Err(self.fail(format!("{expected:?}"), format!("{found:?}"))) }
    }

    /// Requires success.
    pub fn works<T, E: std::error::Error>(&self, result: Result<T, E>) -> Result<T, Failure> {
        result.map_err(|error| self.fail("success", format!("the error '{error}'")))
    }

    /// Requires a refusal with an error that satisfies `wanted`; `words` describe the error.
    pub fn refused<T, E: std::error::Error>(
        &self,
        result: Result<T, E>,
        words: &str,
        wanted: impl FnOnce(&E) -> bool,
    ) -> Result<(), Failure> {
        match result {
            Ok(_) => Err(self.fail(words, "it was accepted")),
            Err(error) if error.to_string().trim().is_empty() => {
                Err(self.fail(words, format!("an error without a message: {error:?}")))
            }
            Err(error) if wanted(&error) => Ok(()),
            Err(error) => Err(self.fail(words, format!("'{error}' ({error:?})"))),
        }
    }

    /// Requires two lists of rows to be equal within `tolerance`,
    /// relative to the row's largest logit if that is over 1.
    pub fn same(&self, found: &Rows, expected: &Rows, tolerance: f32) -> Result<(), Failure> {
        if found.len() != expected.len() {
            return Err(
                self.fail(format!("{} rows of logits", expected.len()), format!("{} rows", found.len()))
            );
        }
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            if found.len() != expected.len() {
                return Err(self.fail(format!("rows of {} values", expected.len()), found.len().to_string()));
            }
            let difference = crate::logits::difference(found, expected);
            if difference.is_nan() || difference > tolerance {
                return Err(self.fail(
                    format!("the logits of the plain run, within {tolerance:e}"),
                    format!("row {i} differs by {difference:e}"),
                ));
            }
        }
        Ok(())
    }
}

/// Shortens long lists of ids.
fn short(text: String) -> String {
    const CHARS: usize = 300;
    match text.char_indices().nth(CHARS) {
        Some((at, _)) => format!("{}… ({} bytes in all)", &text[..at], text.len()),
        None => text,
    }
}
