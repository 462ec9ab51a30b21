//! Unread output of the model, with the texts of control tokens marked.

use std::collections::VecDeque;
use std::ops::Range;

/// Text to be parsed. The texts of control tokens are searched like other text, but hidden: they are left out
/// of output text.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    text: String,
    /// Number of consumed bytes of `text`.
    start: usize,
    /// Ranges of `text` that are texts of control tokens, ascending.
    hidden: VecDeque<Range<usize>>,
}

/// Text as the model wrote it, and its visible part.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// Including the texts of control tokens.
    pub(super) raw: String,
    /// Without the texts of control tokens.
    pub(super) visible: String,
}

impl Written {
    pub(super) fn clear(&mut self) {
        self.raw.clear();
        self.visible.clear();
    }
}

impl Input {
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(super) fn push_hidden(&mut self, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        self.hidden.push_back(start..self.text.len());
    }

    /// The text that was not consumed yet.
    pub(super) fn rest(&self) -> &str {
        self.text.get(self.start..).unwrap_or_default()
    }

    /// Whether the text begins with that of a control token.
    pub(super) fn is_hidden(&self) -> bool {
        self.hidden.front().is_some_and(|range| range.start <= self.start)
    }

    /// Moves `n` bytes to `out`.
    pub(super) fn take(&mut self, n: usize, out: &mut Written) {
        let end = (self.start + n).min(self.text.len());
        out.raw.push_str(self.text.get(self.start..end).unwrap_or_default());
        self.take_visible(n, &mut out.visible);
    }

    /// Consumes `n` bytes and appends those that are not hidden to `out`.
    pub(super) fn take_visible(&mut self, n: usize, out: &mut String) {
        let end = (self.start + n).min(self.text.len());
        while self.start < end {
            let (hidden_from, hidden_to) =
                self.hidden.front().map_or((end, end), |range| (range.start.min(end), range.end));
            out.push_str(self.text.get(self.start.min(hidden_from)..hidden_from).unwrap_or_default());
            self.start = hidden_from.max(self.start);
            if hidden_from < end {
                self.start = hidden_to.min(end);
                if hidden_to <= end {
                    self.hidden.pop_front();
                }
            }
        }
    }

    /// Drops `n` bytes.
    pub(super) fn skip(&mut self, n: usize) {
        self.start = (self.start + n).min(self.text.len());
        while self.hidden.front().is_some_and(|range| range.end <= self.start) {
            self.hidden.pop_front();
        }
    }

    /// Frees the memory of consumed text.
    pub(super) fn compact(&mut self) {
        self.text.drain(..self.start);
        for range in &mut self.hidden {
            *range = range.start.saturating_sub(self.start)..range.end - self.start;
        }
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_texts_are_found_and_not_shown() {
        let mut input = Input::default();
        input.push("ab");
        input.push_hidden("<x>");
        input.push("cd");
        input.push_hidden("<y>");
        assert_eq!(input.rest(), "ab<x>cd<y>");
        let mut written = Written::default();
        input.take(3, &mut written);
        input.compact();
        assert!(input.is_hidden());
        assert_eq!((&*written.raw, &*written.visible), ("ab<", "ab"));
        input.take(3, &mut written);
        assert!(!input.is_hidden());
        input.take(4, &mut written);
        assert_eq!((&*written.raw, &*written.visible), ("ab<x>cd<y>", "abcd"));
        assert_eq!(input.rest(), "");
    }
}
