//! Looking at text character by character, and the two loops that every stage is made of.

use super::Class;

/// A character of a text, or its end.
#[derive(Clone, Copy)]
pub(super) struct At {
    /// The character; NUL at the end.
    pub(super) c: char,
    /// Its classes; none at the end.
    pub(super) class: Class,
    /// Its length in bytes; 0 at the end.
    pub(super) len: usize,
}

impl At {
    /// Whether there is a character, and it is neither a letter, nor a number, nor white space.
    pub(super) fn is_other(self) -> bool {
        self.is_none_of(Class::LETTER.or(Class::NUMBER).or(Class::SPACE))
    }

    /// Whether there is a character, and it is none of `classes`.
    pub(super) fn is_none_of(self, classes: Class) -> bool {
        self.len > 0 && !self.class.any(classes)
    }

    pub(super) fn is_newline(self) -> bool {
        matches!(self.c, '\r' | '\n')
    }
}

/// The character of `text` that starts at byte `at`.
#[inline]
pub(super) fn look(text: &str, at: usize) -> At {
    match text.get(at..).and_then(|rest| rest.chars().next()) {
        Some(c) => At { c, class: Class::of(c), len: c.len_utf8() },
        None => At { c: '\0', class: Class::NONE, len: 0 },
    }
}

/// End of the run of characters from `at` on that satisfy `is`.
#[inline]
pub(super) fn run(text: &str, mut at: usize, is: impl Fn(At) -> bool) -> usize {
    loop {
        let here = look(text, at);
        if here.len == 0 || !is(here) {
            return at;
        }
        at += here.len;
    }
}

/// Cuts `text` into words, where `word_end` gives the end of the word that starts at a position.
pub(super) fn words<'t>(
    text: &'t str,
    word_end: impl Fn(&str, usize) -> usize,
    emit: &mut dyn FnMut(&'t str),
) {
    let mut at = 0;
    while at < text.len() {
        let end = word_end(text, at).max(at + look(text, at).len.max(1));
        emit(text.get(at..end).unwrap_or_default());
        at = end;
    }
}

/// Cuts `text` into matches and what lies between them, where `match_end` gives the end of the match that
/// starts at a position, if there is one.
pub(super) fn matches<'t>(
    text: &'t str,
    match_end: impl Fn(&str, usize) -> Option<usize>,
    emit: &mut dyn FnMut(&'t str),
) {
    let (mut gap, mut at) = (0, 0);
    while at < text.len() {
        match match_end(text, at) {
            Some(end) if end > at => {
                if gap < at {
                    emit(text.get(gap..at).unwrap_or_default());
                }
                emit(text.get(at..end).unwrap_or_default());
                (gap, at) = (end, end);
            }
            _ => at += look(text, at).len.max(1),
        }
    }
    if gap < at {
        emit(text.get(gap..at).unwrap_or_default());
    }
}

/// Length of the English contraction at `at`: one of `'s 't 'm 'd 're 've 'll`.
pub(super) fn contraction(text: &str, at: usize, any_case: bool) -> Option<usize> {
    let bytes = text.as_bytes().get(at..)?;
    let (b'\'', rest) = bytes.split_first()? else { return None };
    let letter = |i: usize| match rest.get(i) {
        Some(b) if any_case => b.to_ascii_lowercase(),
        Some(b) => *b,
        None => 0,
    };
    match (letter(0), letter(1)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', b'e') | (b'l', b'l') => Some(3),
        _ => None,
    }
}

/// A run of white space.
pub(super) struct Spaces {
    /// Its end; the place of the search if there is none.
    pub(super) end: usize,
    /// Start of its last character.
    last: usize,
    /// End of the last newline in it.
    newline_end: Option<usize>,
}

/// The white space from `start` on.
pub(super) fn spaces(text: &str, start: usize) -> Spaces {
    let mut spaces = Spaces { end: start, last: start, newline_end: None };
    loop {
        let here = look(text, spaces.end);
        if !here.class.any(Class::SPACE) {
            return spaces;
        }
        spaces.last = spaces.end;
        spaces.end += here.len;
        if here.is_newline() {
            spaces.newline_end = Some(spaces.end);
        }
    }
}

impl Spaces {
    /// End of `\s+(?!\S)|\s+`: all of it, but one character is left for a word that follows.
    pub(super) fn before_word(&self, text: &str, start: usize) -> usize {
        if self.end < text.len() && self.last > start { self.last } else { self.end }
    }

    /// Whether there is a newline in it.
    pub(super) fn has_newline(&self) -> bool {
        self.newline_end.is_some()
    }

    /// End of `\s*[\r\n]+|\s+(?!\S)|\s+`: as far as the last newline, if there is one.
    pub(super) fn to_newline_or_before_word(&self, text: &str, start: usize) -> usize {
        self.newline_end.unwrap_or_else(|| self.before_word(text, start))
    }
}
