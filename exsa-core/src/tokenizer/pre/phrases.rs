//! EXAONE MoE's expression, in which words of letters that single spaces part are one piece:
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|
//! ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+`.

use super::Class;
use super::cursor::{At, contraction, look, run, spaces};

/// End of the piece that starts at `at`.
pub(super) fn word_end(text: &str, at: usize) -> usize {
    if let Some(len) = contraction(text, at, true) {
        return at + len;
    }
    let here = look(text, at);
    let next = at + here.len;
    if here.class.any(Class::NUMBER) {
        return next;
    }
    if here.class.any(Class::LETTER) {
        return phrase_end(text, at);
    }
    if !here.is_newline() && look(text, next).class.any(Class::LETTER) {
        return phrase_end(text, next);
    }
    let start = if here.c == ' ' { next } else { at };
    if look(text, start).is_other() {
        let end = run(text, start, At::is_other);
        let tail = look(text, end);
        return if tail.is_newline() || tail.c == '/' { end + tail.len } else { end };
    }
    spaces(text, at).to_newline_or_before_word(text, at)
}

/// End of the letters with their marks from `at` on, single spaces between letters included.
fn phrase_end(text: &str, at: usize) -> usize {
    let mut end = at;
    loop {
        let here = look(text, end);
        let letter = if here.c == ' ' { end + 1 } else { end };
        let first = look(text, letter);
        if !first.class.any(Class::LETTER) {
            return end;
        }
        end = run(text, letter + first.len, |c| c.class.any(Class::MARK));
    }
}
