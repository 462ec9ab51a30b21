//! From token ids to the text of an answer: incremental detokenization and stop strings.

mod detokenizer;
mod stop;

pub use detokenizer::Detokenizer;
pub(crate) use stop::Released;
pub use stop::{STOP_BYTES_MAX, STOP_STRINGS_MAX, StopError, StopMatcher};
