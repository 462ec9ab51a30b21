//! The expression that Llama 3 and Qwen 2 share:
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//! ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`.

use super::Class;
use super::cursor::{At, contraction, look, run, spaces};

/// Differences between the models.
#[derive(Clone, Copy, Debug)]
pub(super) struct Letters {
    /// Numbers in a word, at most: `\p{N}{1,3}` or `\p{N}`.
    pub(super) numbers_max: usize,
    /// Class of a letter: `\p{L}`, or `[\p{L}\p{M}]`.
    pub(super) letter: Class,
    /// Whether contractions are words of their own.
    pub(super) contractions: bool,
    /// Whether newlines behind signs belong to them.
    pub(super) newlines_after_signs: bool,
    /// Whether white space before a word is cut into powers of two, 512 at most.
    pub(super) spaces_by_powers: bool,
}

impl Letters {
    /// Words of letters, with up to `numbers_max` numbers in a word.
    pub(super) const fn new(numbers_max: usize) -> Self {
        Self {
            numbers_max,
            letter: Class::LETTER,
            contractions: true,
            newlines_after_signs: true,
            spaces_by_powers: false,
        }
    }

    /// End of the word that starts at `at`.
    pub(super) fn word_end(self, text: &str, at: usize) -> usize {
        if self.contractions
            && let Some(len) = contraction(text, at, true)
        {
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
            return if self.newlines_after_signs { run(text, end, At::is_newline) } else { end };
        }
        let spaces = spaces(text, at);
        if self.spaces_by_powers && !spaces.has_newline() {
            return power_end(text, at, spaces.end);
        }
        spaces.to_newline_or_before_word(text, at)
    }
}

/// End of the largest of 512, 256 and so on to 4, 2 and 1 white-space characters from `at` on that leaves one
/// for a word behind `end`, the end of the white space.
fn power_end(text: &str, at: usize, end: usize) -> usize {
    const POWERS: [usize; 9] = [512, 256, 128, 64, 32, 16, 8, 4, 2];
    let spaces = text.get(at..end).unwrap_or_default();
    let count = spaces.chars().count();
    let free = if end < text.len() { count.saturating_sub(1) } else { count };
    let taken = POWERS.into_iter().find(|power| *power <= free).unwrap_or(1);
    spaces.char_indices().nth(taken).map_or(end, |(len, _)| at + len)
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
