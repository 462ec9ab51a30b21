//! Problems of a configuration, with their locations.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Maximum characters of a quoted line on either side of the location.
const CONTEXT_CHARS: usize = 80;

/// Origin of an invalid value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A location in the file.
    File {
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// The line's text, shortened around the location.
        text: String,
        /// The location within `text`, in characters.
        marked: Range<usize>,
    },
    /// A command-line flag or its environment variable.
    Flag(&'static str),
    /// A default, or the configuration as a whole.
    Unknown,
}

/// An invalid value, or a syntax error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The setting, such as `listen.port`; empty for syntax errors.
    pub setting: String,
    /// The error and the allowed values.
    pub message: String,
    /// The location of the value.
    pub place: Place,
}

/// Collects the problems found by validation.
#[derive(Debug, Default)]
pub struct Problems {
    pub(super) found: Vec<Problem>,
}

impl Problems {
    /// Adds a problem of a setting, given as a path of keys and indices: `models.1.name`.
    pub fn add(&mut self, setting: impl Into<String>, message: impl fmt::Display) {
        let problem =
            Problem { setting: setting.into(), message: message.to_string(), place: Place::Unknown };
        self.found.push(problem);
    }
}

/// An invalid configuration, with all its problems.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The problems in order of their locations; at least one.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(file: Option<&Path>, problems: Vec<Problem>) -> Self {
        Self { file: file.map(Path::to_owned), problems }
    }

    pub(super) fn whole(file: Option<&Path>, message: impl fmt::Display) -> Self {
        let mut problems = Problems::default();
        problems.add("", message);
        Self::new(file, problems.found)
    }
}

impl Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().map_or("configuration".into(), |file| file.display().to_string());
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            problem.write(&file, out)?;
        }
        Ok(())
    }
}

impl Problem {
    fn write(&self, file: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.setting.is_empty() { "" } else { ": " };
        let described = format!("{}{colon}{}", self.setting, self.message);
        match &self.place {
            Place::File { line, column, text, marked } => {
                let gutter = " ".repeat(line.to_string().len());
                // Tabs are kept, so that the markers are below their characters.
                let before: String =
                    text.chars().take(marked.start).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                let marks = "^".repeat(marked.len().max(1));
                writeln!(out, "{file}:{line}:{column}: {described}")?;
                writeln!(out, "{gutter} |")?;
                writeln!(out, "{line} | {text}")?;
                write!(out, "{gutter} | {before}{marks}")
            }
            Place::Flag(flag) => write!(out, "{flag}: {described}"),
            Place::Unknown => write!(out, "{file}: {described}"),
        }
    }
}

impl Place {
    /// Returns the location of a byte range in a file's text.
    pub(super) fn of(text: &str, span: Range<usize>) -> Self {
        let bound = |mut at: usize| {
            at = at.min(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (start, end) = (bound(span.start), bound(span.end.max(span.start)));
        let head = text.get(..start).unwrap_or_default();
        let line_start = head.rfind('\n').map_or(0, |newline| newline + 1);
        let rest = text.get(start..).unwrap_or_default();
        let line_end = start + rest.find(['\n', '\r']).unwrap_or(rest.len());
        let count = |from: usize, to: usize| text.get(from..to).map_or(0, |part| part.chars().count());
        let (before, within) = (count(line_start, start), count(start, end.min(line_end)));
        let skipped = before.saturating_sub(CONTEXT_CHARS);
        let within = within.min(CONTEXT_CHARS);
        let quoted = text.get(line_start..line_end).unwrap_or_default().chars().skip(skipped);
        // Control characters of a file must not reach a terminal.
        let shown = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let quoted = quoted.take(before - skipped + within + CONTEXT_CHARS).map(shown).collect();
        let at = before - skipped;
        Self::File {
            line: head.matches('\n').count() + 1,
            column: before + 1,
            text: quoted,
            marked: at..at + within,
        }
    }
}
