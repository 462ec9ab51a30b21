//! The expression that Llama 3 and Qwen 2 share:
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//! ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`.

use super::Class;
use super::cursor::{contraction, look, run, spaces};

/// Differences between the models.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letters {
    /// Numbers in a word, at most: `\p{N}{1,3}` or `\p{N}`.
    pub(super) numbers_max: usize,
    /// Class of a letter: `\p{L}`, or `[\p{L}\p{M}]`.
    pub(super) letter: Class,
}

impl Letters {
    /// End of the word that starts at `at`.
    pub(super) fn word_end(self, text: &str, at: usize) -> usize {
        if let Some(len) = contraction(text, at, true) {
            return at + len;
        }
        let here = look(text, at);
        let next = at + here.len;
        if here.class.any(Class::NUMBER) {
            return numbers_end(text, at, self.numbers_max);
        }
        let starts_word = here.class.any(self.letter) || look(text, next).class.any(self.letter);
        if starts_word && !here.is_newline() {
            return run(text, next, |c| c.class.any(self.letter));
        }
        let word = self.letter.or(Class::NUMBER).or(Class::SPACE);
        let start = if here.c == ' ' { next } else { at };
        if look(text, start).is_none_of(word) {
            let end = run(text, start, |c| c.is_none_of(word));
            return run(text, end, |c| c.is_newline());
        }
        spaces(text, at).to_newline_or_before_word(text, at)
    }
}

/// End of the numbers from `at` on, `max` of them at most.
pub(super) fn numbers_end(text: &str, at: usize, max: usize) -> usize {
    let mut end = at;
    for _ in 0..max {
        let here = look(text, end);
        if !here.class.any(Class::NUMBER) {
            break;
        }
        end += here.len;
    }
    end
}
