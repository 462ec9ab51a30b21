//! Stop strings in a text that comes in pieces.

/// Stop strings that one request may have.
pub const STOP_STRINGS_MAX: usize = 64;

/// Bytes that one stop string may have.
pub const STOP_BYTES_MAX: usize = 4096;

/// Finds stop strings across pieces of text and lets through what comes before.
///
/// Text that may be the beginning of a stop string is held back, and released as soon as it cannot be one any more.
/// Of several stop strings in the text the one that begins first counts. Where one is complete
/// but another that began before it may yet become so, the matcher waits for the outcome.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text not given out yet: what the longest partial match covers.
    held: String,
    /// The stop string that was found, once it is certain.
    matched: Option<usize>,
}

#[derive(Clone, Debug)]
struct Stop {
    text: Box<str>,
}

/// Stop strings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// There are more than [`STOP_STRINGS_MAX`].
    #[error("{count} stop strings, but at most {STOP_STRINGS_MAX} are allowed")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// One is longer than [`STOP_BYTES_MAX`].
    #[error("stop string {index} has {bytes} bytes, but at most {STOP_BYTES_MAX} are allowed")]
    TooLong {
        /// Which one.
        index: usize,
        /// Its length in bytes.
        bytes: usize,
    },
    /// One is empty, and would stop everything before it begins.
    #[error("stop string {index} is empty")]
    Empty {
        /// Which one.
        index: usize,
    },
}

impl StopMatcher {
    /// A matcher for `stops`, which may be none.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Result<Self, StopError> {
        if stops.len() > STOP_STRINGS_MAX {
            return Err(StopError::TooMany { count: stops.len() });
        }
        let stops =
            stops.iter().map(AsRef::as_ref).enumerate().map(|(index, text): (usize, &str)| {
                match text.len() {
                    0 => Err(StopError::Empty { index }),
                    bytes if bytes > STOP_BYTES_MAX => Err(StopError::TooLong { index, bytes }),
                    _ => Ok(Stop { text: text.into() }),
                }
            });
        Ok(Self { stops: stops.collect::<Result<_, _>>()?, ..Self::default() })
    }

    /// Takes the next piece of the text and appends to `out` what certainly comes before any stop string.
    ///
    /// Returns the index of the stop string once one was found; the text before it is then all in `out`, and
    /// further calls take and give nothing.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.matched.is_none() {
            self.held.push_str(text);
            let found =
                self.stops.iter().enumerate().filter_map(|(i, s)| Some((self.held.find(&*s.text)?, i))).min();
            if let Some((start, index)) = found {
                out.push_str(&self.held[..start]);
                self.held.clear();
                self.matched = Some(index);
            }
        }
        self.matched
    }

    /// Ends the text: appends what is still held back to `out`, up to a stop string that was complete but had to wait
    /// for another, whose index is returned.
    pub fn finish(&mut self, out: &mut String) -> Option<usize> {
        out.push_str(&self.held);
        self.held.clear();
        self.matched
    }
}
