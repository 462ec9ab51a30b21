//! Runs of characters of a set, with what is not in the set left between them.

use super::cursor::{look, run};
use super::letters::numbers_end;
use super::{Class, Set};

/// End of the run of `set` that starts at `at`.
pub(super) fn run_end(text: &str, at: usize, set: Set) -> Option<usize> {
    let end = run(text, at, |c| set.contains(c.c, c.class));
    (end > at).then_some(end)
}

/// End of the one character of `set` at `at`.
pub(super) fn one_end(text: &str, at: usize, set: Set) -> Option<usize> {
    let here = look(text, at);
    set.contains(here.c, here.class).then_some(at + here.len)
}

/// End of the run of `set` that starts at `at`, or behind one white-space character there.
pub(super) fn spaced_run_end(text: &str, at: usize, set: Set) -> Option<usize> {
    let here = look(text, at);
    let start = if here.class.any(Class::SPACE) { at + here.len } else { at };
    run_end(text, start, set)
}

/// End of the run of what is not in `set` that starts at `at`, or behind one space there.
pub(super) fn spaced_rest_end(text: &str, at: usize, set: Set) -> Option<usize> {
    let rest = |start| {
        let end = run(text, start, |c| !set.contains(c.c, c.class));
        (end > start).then_some(end)
    };
    let spaced = if look(text, at).c == ' ' { rest(at + 1) } else { None };
    spaced.or_else(|| rest(at))
}

/// End of up to three numbers at `at`.
pub(super) fn up_to_three_numbers_end(text: &str, at: usize) -> Option<usize> {
    let end = numbers_end(text, at, 3);
    (end > at).then_some(end)
}

/// End of three ASCII digits at `at`.
pub(super) fn three_digits_end(text: &str, at: usize) -> Option<usize> {
    let digits = text.as_bytes().get(at..at + 3)?;
    digits.iter().all(u8::is_ascii_digit).then_some(at + 3)
}

/// Cuts off the white space at the end of `text`.
pub(super) fn cut_trailing_spaces<'t>(text: &'t str, emit: &mut dyn FnMut(&'t str)) {
    let (body, spaces) = text.split_at(text.trim_end().len());
    for piece in [body, spaces] {
        if !piece.is_empty() {
            emit(piece);
        }
    }
}
