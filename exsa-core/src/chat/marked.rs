//! String operations that ignore markers.
//!
//! An operation of a template on a marked text has the same result as on the text without
//! [`markers`](super::markers); parts taken from the text keep their markers.

use super::markers::{Decoded, Mark, MarkKind, Marking};
use std::borrow::Cow;
use std::ops::Range;

/// A string of a template, decoded into plain text and markers.
pub(super) struct Marked<'a> {
    text: &'a str,
    marking: &'a Marking,
    /// `None` if there are no markers.
    decoded: Option<Decoded>,
}

impl<'a> Marked<'a> {
    pub(super) fn new(text: &'a str, marking: &'a Marking) -> Self {
        Self { text, marking, decoded: marking.decode(text) }
    }

    /// The text including markers.
    pub(super) fn text(&self) -> &str {
        self.text
    }

    /// The text without markers.
    pub(super) fn plain(&self) -> &str {
        self.decoded.as_ref().map_or(self.text, |decoded| &decoded.plain)
    }

    /// A part of [`plain`](Self::plain), with its marks.
    pub(super) fn part(&self, part: &str) -> Cow<'_, str> {
        let start = (part.as_ptr() as usize).wrapping_sub(self.plain().as_ptr() as usize);
        self.range(start..start.wrapping_add(part.len()))
    }

    /// The bytes `range` of [`plain`](Self::plain), with their marks; empty if the range is invalid.
    pub(super) fn range(&self, range: Range<usize>) -> Cow<'_, str> {
        let Some(part) = self.plain().get(range.clone()).filter(|part| !part.is_empty()) else {
            return Cow::Borrowed("");
        };
        let Some(Decoded { marks, .. }) = &self.decoded else { return Cow::Borrowed(part) };
        let Range { start, end } = range;
        let reach = self.marking.len_max();
        let first = marks.partition_point(|mark| mark.at < start.saturating_sub(reach));
        let near = marks.iter().skip(first).take_while(|mark| mark.at <= end.saturating_add(reach));
        let mut kept = Vec::new();
        let (mut cut_before, mut cut_after) = (false, false);
        for mark in near {
            if mark.kind == MarkKind::Edge {
                if (start..=end).contains(&mark.at) {
                    kept.push(*mark);
                }
                continue;
            }
            let Some((at, text)) = self.marking.control_text(self.plain(), *mark) else { continue };
            let (before, after) = (at < start, at + text.len() > end);
            if !before && !after {
                kept.push(*mark);
            } else if at < end && at + text.len() > start {
                cut_before |= before;
                cut_after |= after;
            }
        }
        let edge = |at| Mark { at, kind: MarkKind::Edge };
        kept.splice(0..0, cut_before.then(|| edge(start)));
        kept.extend(cut_after.then(|| edge(end)));
        kept.iter_mut().for_each(|mark| mark.at -= start);
        if kept.is_empty() { Cow::Borrowed(part) } else { Cow::Owned(self.marking.encode(part, &kept)) }
    }

    /// The index, in characters of the marked text, of the byte `at` of [`plain`](Self::plain), for slices.
    pub(super) fn char_index(&self, at: usize) -> usize {
        let chars = self.plain().get(..at).unwrap_or_default().chars().count();
        let marks = self.decoded.iter().flat_map(|decoded| decoded.marks.iter().zip(&decoded.mark_chars));
        chars + marks.take_while(|(mark, _)| mark.at <= at).map(|(_, chars)| chars).sum::<usize>()
    }

    /// The text with `new` in place of the first `count` occurrences of `old`.
    pub(super) fn replace(&self, old: &str, new: &str, count: usize) -> String {
        let plain = self.plain();
        let mut out = String::new();
        let mut done = 0;
        for (at, found) in plain.match_indices(old).take(count) {
            out.push_str(&self.range(done..at));
            out.push_str(new);
            done = at + found.len();
        }
        out.push_str(&self.range(done..plain.len()));
        out
    }
}
