//! Numbers in groups of three from the right, as in 1 234 567.

use super::Class;
use super::cursor::{look, run};

/// Cuts each run of numbers into groups of three from the right. The text before a run belongs to its first
/// group: that is how GGUF files of these models are tokenized, and later stages part the two.
pub(super) fn from_right<'t>(text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    let (mut from, mut at) = (0, 0);
    while at < text.len() {
        let end = run(text, at, |c| c.class.any(Class::NUMBER));
        let mut left = text.get(at..end).unwrap_or_default().chars().count();
        while left > 0 {
            let group = match left % 3 {
                0 => 3,
                rest => rest,
            };
            for _ in 0..group {
                at += look(text, at).len;
            }
            left -= group;
            emit(text.get(from..at).unwrap_or_default());
            from = at;
        }
        at += look(text, at).len;
    }
    if from < text.len() {
        emit(text.get(from..).unwrap_or_default());
    }
}

/// Cuts runs of ASCII digits before each group of three, counted from the right.
pub(super) fn before_thousands<'t>(text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    let bytes = text.as_bytes();
    let digits =
        |from: usize| bytes.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count();
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        let len = digits(at);
        for place in (at..at + len).filter(|place| (at + len - place).is_multiple_of(3)) {
            if place > from {
                emit(text.get(from..place).unwrap_or_default());
                from = place;
            }
        }
        at += len.max(1);
    }
    if from < text.len() {
        emit(text.get(from..).unwrap_or_default());
    }
}
