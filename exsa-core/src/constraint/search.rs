//! The search for triggers in free text.

use super::environment::Unit;

/// Texts that are searched simultaneously.
#[derive(Debug)]
pub(super) struct Patterns {
    texts: Vec<Box<[Unit]>>,
    /// Length of the longest.
    len_max: usize,
}

impl Patterns {
    /// No text may be empty.
    pub(super) fn new(texts: Vec<Box<[Unit]>>) -> Self {
        let len_max = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        Self { texts, len_max }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[Unit]> {
        self.texts.iter().map(|text| &**text)
    }

    /// Start and end of the occurrence that ends first.
    pub(super) fn find(&self, text: &[Unit]) -> Option<(usize, usize)> {
        (1..=text.len()).find_map(|end| {
            let pattern = self.texts.iter().find(|pattern| text[..end].ends_with(pattern))?;
            Some((end - pattern.len(), end))
        })
    }

    /// Drops the units at the start of `text` that cannot be part of a future occurrence.
    pub(super) fn trim(&self, text: &mut Vec<Unit>) {
        let partial = |start: &usize| self.texts.iter().any(|pattern| pattern.starts_with(&text[*start..]));
        let from = text.len().saturating_sub(self.len_max.saturating_sub(1));
        let start = (from..text.len()).find(partial).unwrap_or(text.len());
        text.drain(..start);
    }
}
