//! Chameleon: marks of images and indentation, which stand alone.

use super::cursor::look;

/// End of `<sentinel:[0-9]+>` at `at`.
pub(super) fn sentinel_end(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix("<sentinel:")?;
    let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_mark = behind.len() < rest.len() && behind.starts_with('>');
    is_mark.then(|| text.len() - behind.len() + 1)
}

/// End of `IMGIMG[A-I]{1,4}Z` at `at`.
pub(super) fn image_mark_end(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix("IMGIMG")?;
    let letters = rest.bytes().take_while(|b| matches!(b, b'A'..=b'I')).count();
    let is_mark = (1..=4).contains(&letters) && rest.as_bytes().get(letters) == Some(&b'Z');
    is_mark.then(|| text.len() - rest.len() + letters + 1)
}

/// End of a tab, a newline, four spaces or two at `at`.
pub(super) fn indent_end(text: &str, at: usize) -> Option<usize> {
    if matches!(look(text, at).c, '\t' | '\n') {
        return Some(at + 1);
    }
    let rest = text.get(at..)?;
    ["    ", "  "].iter().find(|spaces| rest.starts_with(**spaces)).map(|spaces| at + spaces.len())
}
