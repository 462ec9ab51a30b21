//! GPT-2's expression: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.

use super::Class;
use super::cursor::{At, contraction, look, run, spaces};

/// End of the word that starts at `at`.
pub(super) fn word_end(text: &str, at: usize) -> usize {
    if let Some(len) = contraction(text, at, false) {
        return at + len;
    }
    let here = look(text, at);
    let (start, first) = if here.c == ' ' { (at + 1, look(text, at + 1)) } else { (at, here) };
    if first.class.any(Class::LETTER) {
        run(text, start, |c| c.class.any(Class::LETTER))
    } else if first.class.any(Class::NUMBER) {
        run(text, start, |c| c.class.any(Class::NUMBER))
    } else if first.is_other() {
        run(text, start, At::is_other)
    } else {
        spaces(text, at).before_word(text, at)
    }
}
