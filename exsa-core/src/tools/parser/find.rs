//! Search for markers in incomplete text.

/// Result of a search for markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The marker of this index begins at `at`.
    Marker { at: usize, index: usize },
    /// The text from `at` on may be the beginning of a marker.
    Partial { at: usize },
    /// No marker.
    None,
}

/// Finds the first of `markers` in `text`; of several at the same position, the longest. With `ended`, no
/// more text follows, so an incomplete marker is not reported. Takes time proportional to the length of the
/// text, times the length of markers with common prefixes.
pub(super) fn find(text: &str, markers: &[&str], ended: bool) -> Found {
    let bytes = text.as_bytes();
    for at in 0..bytes.len() {
        let rest = &bytes[at..];
        let mut best: Option<(usize, usize)> = None;
        let mut partial = false;
        for (index, marker) in markers.iter().enumerate() {
            let marker = marker.as_bytes();
            if marker.first() != rest.first() {
                continue;
            }
            if rest.starts_with(marker) {
                if best.is_none_or(|(len, _)| marker.len() > len) {
                    best = Some((marker.len(), index));
                }
            } else if marker.starts_with(rest) {
                partial = true;
            }
        }
        // A longer marker may still be completed.
        if partial && !ended {
            return Found::Partial { at };
        }
        if let Some((_, index)) = best {
            return Found::Marker { at, index };
        }
    }
    Found::None
}

/// Whether `text` begins with `marker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Yes,
    No,
    /// The text is too short to decide.
    Unknown,
}

pub(super) fn starts(text: &str, marker: &str, ended: bool) -> Start {
    if text.starts_with(marker) {
        Start::Yes
    } else if !ended && marker.starts_with(text) {
        Start::Unknown
    } else {
        Start::No
    }
}

/// Length of the white space that `text` begins with.
pub(super) fn space_len(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_longest_wins() {
        let markers = ["<a>", "<a>b", "c"];
        assert_eq!(find("x<a>bc", &markers, false), Found::Marker { at: 1, index: 1 });
        assert_eq!(find("x<a>", &markers, false), Found::Partial { at: 1 });
        assert_eq!(find("x<a>", &markers, true), Found::Marker { at: 1, index: 0 });
        assert_eq!(find("x<a>d", &markers, false), Found::Marker { at: 1, index: 0 });
        assert_eq!(find("x<", &markers, false), Found::Partial { at: 1 });
        assert_eq!(find("x<", &markers, true), Found::None);
        assert_eq!(find("<b<ac", &markers, false), Found::Marker { at: 4, index: 2 });
    }
}
