//! From token ids to the text of an answer: incremental detokenization, stop strings and banned strings.

mod banned;
mod detokenizer;
mod kmp;
mod stop;

pub use banned::{BANNED_CHARS_MAX, BANNED_STRINGS_MAX};
pub(crate) use banned::{BannedMatcher, Found};
pub use detokenizer::Detokenizer;
pub(crate) use stop::Released;
pub use stop::{STOP_BYTES_MAX, STOP_STRINGS_MAX, StopError, StopMatcher};
