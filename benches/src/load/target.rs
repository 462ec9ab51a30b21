//! Whatever answers requests.

use crate::error::BenchError;
use crate::load::answer::Tokens;
use crate::load::workload::Planned;

/// Something that answers requests, from many threads at a time.
pub trait Target: Sync {
    /// Its name in the results.
    fn name(&self) -> &str;

    /// Sends `request`, calls `piece` whenever a piece of the answer's text comes, and gives what it took.
    ///
    /// A target whose answer does not have exactly the tokens asked for has to return an error: answers of
    /// other lengths could not be compared.
    fn answer(&self, request: &Planned, piece: &mut dyn FnMut()) -> Result<Tokens, BenchError>;
}
