//! Download state beside the `.part` file, from which a later process resumes.

use super::ranges::Ranges;
use crate::error::HubError;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Maximum bytes read of a state file.
const BYTES_MAX: u64 = 1 << 20;
/// Format version of state files.
const VERSION: u32 = 1;

/// The part of a file that is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Length of the whole file.
    pub(super) total: u64,
    /// Validator of the version on the server, for `If-Range`.
    pub(super) validator: Option<String>,
    /// Ranges that are present.
    pub(super) done: Ranges,
}

#[derive(Deserialize, Serialize)]
struct Stored {
    version: u32,
    total: u64,
    validator: Option<String>,
    done: Vec<(u64, u64)>,
}

/// Path of the state file of a `.part` file.
pub(super) fn path_of(part: &Path) -> PathBuf {
    let mut path = part.to_owned().into_os_string();
    path.push(".json");
    path.into()
}

impl State {
    /// Reads the state of a `.part` file; `None` if there is no valid one.
    pub(super) fn read(part: &Path) -> Option<Self> {
        let mut text = String::new();
        std::fs::File::open(path_of(part)).ok()?.take(BYTES_MAX).read_to_string(&mut text).ok()?;
        let stored: Stored = serde_json::from_str(&text).ok()?;
        let done = Ranges::checked(&stored.done, stored.total)?;
        let last = stored.done.iter().map(|(_, end)| *end).max().unwrap_or(0);
        let length = std::fs::metadata(part).ok()?.len();
        (stored.version == VERSION && length >= last).then_some(Self {
            total: stored.total,
            validator: stored.validator,
            done,
        })
    }

    /// Writes the state atomically, with a rename.
    pub(super) fn write(&self, part: &Path) -> Result<(), HubError> {
        let path = path_of(part);
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let stored = Stored {
            version: VERSION,
            total: self.total,
            validator: self.validator.clone(),
            done: self.done.pairs().to_vec(),
        };
        let text = serde_json::to_string(&stored).unwrap_or_default();
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path)).map_err(HubError::io(&path))
    }

    /// Deletes the state.
    pub(super) fn remove(part: &Path) {
        // A leftover state without its file is ignored.
        let _ = std::fs::remove_file(path_of(part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_back_and_nonsense_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("a.part");
        let mut done = Ranges::default();
        done.insert(3, 9);
        let state = State { total: 20, validator: Some("\"x\"".into()), done };
        state.write(&part).unwrap();
        assert_eq!(State::read(&part), None, "the file itself is absent");
        std::fs::write(&part, [0; 9]).unwrap();
        assert_eq!(State::read(&part), Some(state));
        for text in [
            "",
            "{}",
            "[]",
            r#"{"version":1,"total":5,"validator":null,"done":[[0,6]]}"#,
            r#"{"version":1,"total":50,"validator":null,"done":[[0,10]]}"#,
            r#"{"version":2,"total":5,"validator":null,"done":[]}"#,
            "\u{0}",
        ] {
            std::fs::write(path_of(&part), text).unwrap();
            assert_eq!(State::read(&part), None, "{text}");
        }
    }
}
