//! The expression of Tekken and GPT-4o, which cuts words where an upper-case letter follows a lower-case one:
//! `[^\r\n\p{L}\p{N}]?U*W+|[^\r\n\p{L}\p{N}]?U+W*|\p{N}{1,3}|
//! ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`, where `U` is any letter but `a-z`, and `W` any but
//! `A-Z`. That is how GGUF files are tokenized in practice: the models' own expressions tell the cases of all
//! letters apart, not of ASCII alone.

use super::Class;
use super::cursor::{At, contraction, look, run, spaces};
use super::letters::numbers_end;

/// Differences between the models.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cased {
    /// Numbers in a word, at most.
    pub(super) numbers_max: usize,
    /// Whether `'s`, `'ll` and the like belong to the word before them.
    pub(super) contractions: bool,
    /// Class of a letter: `\p{L}`, or `[\p{L}\p{M}]`.
    pub(super) letter: Class,
    /// Whether words are cut where the case changes. Without it both alternatives are a run of letters.
    pub(super) by_case: bool,
}

impl Cased {
    /// End of the word that starts at `at`.
    pub(super) fn word_end(self, text: &str, at: usize) -> usize {
        let here = look(text, at);
        let next = at + here.len;
        let can_lead = here.is_none_of(Class::LETTER.or(Class::NUMBER)) && !here.is_newline();
        // A mark may lead a word, and be a letter of it.
        let starts = [can_lead.then_some(next), here.class.any(self.letter).then_some(at)];
        let starts = || starts.into_iter().flatten();
        let first = || starts().find_map(|start| self.lower_end(text, start));
        if let Some(end) = first().or_else(|| starts().find_map(|start| self.upper_end(text, start))) {
            let tail = if self.contractions { contraction(text, end, true) } else { None };
            return end + tail.unwrap_or(0);
        }
        if here.class.any(Class::NUMBER) {
            return numbers_end(text, at, self.numbers_max);
        }
        let start = if here.c == ' ' { next } else { at };
        if look(text, start).is_other() {
            let end = run(text, start, At::is_other);
            return run(text, end, |c| c.is_newline() || c.c == '/');
        }
        spaces(text, at).to_newline_or_before_word(text, at)
    }

    /// End of `U*W+` from `start` on; `None` if there is no match.
    ///
    /// `U*` first takes all it can. If a lower-case letter stops it, `W+` goes on from there. If not, `U*`
    /// gives back letters until the one it gave back last is a `W`.
    fn lower_end(self, text: &str, start: usize) -> Option<usize> {
        let mut end = start;
        let mut after_last_w = None;
        let stop = loop {
            let here = look(text, end);
            if !here.class.any(self.letter) || self.by_case && here.c.is_ascii_lowercase() {
                break here;
            }
            end += here.len;
            if !self.by_case || !here.c.is_ascii_uppercase() {
                after_last_w = Some(end);
            }
        };
        if stop.class.any(self.letter) {
            return Some(run(text, end, |c| c.class.any(self.letter) && !c.c.is_ascii_uppercase()));
        }
        after_last_w
    }

    /// End of `U+W*` from `start` on where `U*W+` does not match: only upper-case letters of ASCII are there.
    fn upper_end(self, text: &str, start: usize) -> Option<usize> {
        let end = run(text, start, |c| c.class.any(self.letter) && !c.c.is_ascii_lowercase());
        (end > start).then_some(end)
    }
}
