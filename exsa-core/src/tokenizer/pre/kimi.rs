//! Kimi K2's expression: runs of Chinese characters, words of other letters with their contraction, numbers
//! in groups of three, the rest. Marks are no letters, as in all GGUF files of the model.

use super::Class;
use super::cursor::{At, contraction, look, run, spaces};
use super::letters::numbers_end;

/// End of the word that starts at `at`.
pub(super) fn word_end(text: &str, at: usize) -> usize {
    let here = look(text, at);
    let next = at + here.len;
    if is_chinese(here) {
        return run(text, at, is_chinese);
    }
    let is_letter = |c: At| c.class.any(Class::LETTER) && !is_chinese(c);
    let can_lead = here.is_none_of(Class::LETTER.or(Class::NUMBER)) && !here.is_newline();
    if is_letter(here) || can_lead && is_letter(look(text, next)) {
        let end = run(text, next, is_letter);
        return end + contraction(text, end, true).unwrap_or(0);
    }
    if here.class.any(Class::NUMBER) {
        return numbers_end(text, at, 3);
    }
    let start = if here.c == ' ' { next } else { at };
    if look(text, start).is_other() {
        let end = run(text, start, At::is_other);
        return run(text, end, At::is_newline);
    }
    spaces(text, at).to_newline_or_before_word(text, at)
}

/// Chinese characters: the unified ideographs up to extension F, and the compatibility ideographs.
fn is_chinese(at: At) -> bool {
    matches!(at.c,
        '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2ebef}'
        | '\u{2f800}'..='\u{2fa1f}')
}
