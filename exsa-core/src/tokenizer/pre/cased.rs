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
}

impl Cased {
    /// End of the word that starts at `at`.
    pub(super) fn word_end(self, text: &str, at: usize) -> usize {
        let here = look(text, at);
        let next = at + here.len;
        let is_letter = here.class.any(Class::LETTER);
        if is_letter || !here.class.any(Class::NUMBER) && !here.is_newline() {
            let start = if is_letter { at } else { next };
            if let Some(end) = letters_end(text, start) {
                let tail = if self.contractions { contraction(text, end, true) } else { None };
                return end + tail.unwrap_or(0);
            }
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
}

/// End of `U*W+|U+W*` from `start` on; `None` if no letter is there.
///
/// `U*` first takes all it can. If a lower-case letter stops it, `W+` goes on from there. If not, `U*` gives
/// back letters until the one it gave back last is a `W`; where there is none the second alternative takes
/// all.
fn letters_end(text: &str, start: usize) -> Option<usize> {
    let mut end = start;
    let mut after_last_w = None;
    let stop = loop {
        let here = look(text, end);
        if !here.class.any(Class::LETTER) || here.c.is_ascii_lowercase() {
            break here;
        }
        end += here.len;
        if !here.c.is_ascii_uppercase() {
            after_last_w = Some(end);
        }
    };
    if stop.class.any(Class::LETTER) {
        return Some(run(text, end, |c| c.class.any(Class::LETTER) && !c.c.is_ascii_uppercase()));
    }
    after_last_w.or((end > start).then_some(end))
}
