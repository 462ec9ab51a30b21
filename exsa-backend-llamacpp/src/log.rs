//! llama.cpp's log: line by line to `tracing`, and the errors of a call to its caller.

use std::cell::RefCell;

/// Target of the events.
const TARGET: &str = "llama.cpp";

/// Maximum length in bytes of an unfinished line, and of collected errors.
const BYTES_MAX: usize = 4096;

/// Severity of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

thread_local! {
    static LINE: RefCell<(Option<Level>, String)> = const { RefCell::new((None, String::new())) };
    static ERRORS: RefCell<Option<String>> = const { RefCell::new(None) };
    #[cfg(test)]
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Appends a piece of the log; without a level it continues the line before. A line ends with `\n`.
pub(crate) fn append(level: Option<Level>, text: &str) {
    let done = LINE.with_borrow_mut(|(current, line)| {
        let unfinished = (level.is_some() && !line.is_empty()).then(|| std::mem::take(line));
        let before = unfinished.map(|line| (current.unwrap_or(Level::Info), line));
        if level.is_some() {
            *current = level;
        }
        if line.len() < BYTES_MAX {
            line.push_str(text);
        }
        let ended = text.ends_with('\n').then(|| (current.unwrap_or(Level::Info), std::mem::take(line)));
        [before, ended]
    });
    for (level, line) in done.into_iter().flatten() {
        emit(level, line.trim_end());
    }
}

fn emit(level: Level, line: &str) {
    if line.is_empty() {
        return;
    }
    #[cfg(test)]
    LINES.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.push(line.to_owned())));
    match level {
        Level::Debug => tracing::debug!(target: TARGET, "{line}"),
        Level::Info => tracing::info!(target: TARGET, "{line}"),
        Level::Warn => tracing::warn!(target: TARGET, "{line}"),
        Level::Error => tracing::error!(target: TARGET, "{line}"),
    }
    if level == Level::Error {
        ERRORS.with_borrow_mut(|errors| {
            if let Some(errors) = errors.as_mut().filter(|errors| errors.len() < BYTES_MAX) {
                if !errors.is_empty() {
                    errors.push_str("; ");
                }
                errors.push_str(line);
            }
        });
    }
}

/// Runs `work`; returns its result and the errors that llama.cpp logged on this thread meanwhile.
pub(crate) fn with_errors<T>(work: impl FnOnce() -> T) -> (T, String) {
    ERRORS.set(Some(String::new()));
    let result = work();
    let errors = ERRORS.take().unwrap_or_default();
    (result, errors)
}

/// Runs `work`; returns its result and all lines that llama.cpp logged on this thread meanwhile.
#[cfg(test)]
pub(crate) fn with_lines<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    LINES.set(Some(Vec::new()));
    let result = work();
    (result, LINES.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_collected_by_line() {
        let ((), errors) = with_errors(|| {
            append(Some(Level::Error), "one ");
            append(None, "line\n");
            append(Some(Level::Info), "not this\n");
            append(Some(Level::Error), "unfinished");
            append(Some(Level::Error), "two\n");
        });
        assert_eq!(errors, "one line; unfinished; two");
        append(Some(Level::Error), "later\n");
        assert_eq!(with_errors(|| ()).1, "");
    }
}
