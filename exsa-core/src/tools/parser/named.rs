//! Calls with the name before the arguments.

use super::find::{Found, Start, find, space_len, starts};
use super::object::ArgumentsObject;
use super::sink::{CallSink, Step};

/// Maximum bytes before the end of the name.
const HEAD_BYTES_MAX: usize = 512;

/// `NAME end {…}`.
#[derive(Debug)]
pub(super) struct Named {
    /// Texts that end the name.
    pub(super) ends: &'static [&'static str],
    /// Whether `{` ends the name too.
    pub(super) brace: bool,
    pub(super) head: Head,
    /// Optional text before the arguments, such as a Markdown fence.
    pub(super) fences: &'static [&'static str],
}

/// Form of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The name.
    Plain,
    /// The name after this optional text.
    Behind(&'static str),
    /// The name, followed by this text and an id.
    Id(&'static str),
    /// `functions.NAME:INDEX`, which is also the id.
    Kimi,
    /// The name of a tool, or `all` for text.
    Recipient,
}

/// State of a call in the form of [`Named`].
#[derive(Clone, Debug, Default)]
pub(super) struct NamedCall {
    arguments: Option<ArgumentsObject>,
    begun: bool,
}

impl NamedCall {
    pub(super) fn step(&mut self, form: &Named, text: &str, ended: bool, sink: &mut CallSink<'_>) -> Step {
        let mut at = 0;
        let arguments = match &mut self.arguments {
            Some(arguments) => arguments,
            None => {
                let mut ends = form.ends.to_vec();
                if form.brace {
                    ends.push("{");
                }
                let (name_len, end_len) = match find(text, &ends, ended) {
                    Found::Marker { at, index } => {
                        (at, if ends[index] == "{" { 0 } else { ends[index].len() })
                    }
                    _ if text.len() > HEAD_BYTES_MAX || ended => return Step::Failed(0),
                    _ => return Step::More(0),
                };
                let head = text.get(..name_len).unwrap_or_default();
                at = name_len + end_len;
                let name = match form.head {
                    Head::Plain => head,
                    Head::Behind(mark) => head.rsplit(mark).next().unwrap_or(head),
                    Head::Id(mark) => match head.split_once(mark) {
                        Some((name, id)) => {
                            sink.id(id.trim());
                            name
                        }
                        None => head,
                    },
                    Head::Kimi => {
                        sink.id(head.trim());
                        let name = head.trim();
                        let name = name.strip_prefix("functions.").unwrap_or(name);
                        name.rsplit_once(':').map_or(name, |(name, _)| name)
                    }
                    Head::Recipient if head.trim() == "all" => return Step::Text(at),
                    Head::Recipient => head,
                };
                if head.len() > HEAD_BYTES_MAX || !sink.name(name) {
                    return Step::Failed(0);
                }
                self.arguments.insert(ArgumentsObject::default())
            }
        };
        if !self.begun {
            at += space_len(text.get(at..).unwrap_or_default());
            for fence in form.fences {
                let rest = text.get(at..).unwrap_or_default();
                match starts(rest, fence, ended) {
                    Start::Yes => {
                        at += fence.len();
                        at += space_len(text.get(at..).unwrap_or_default());
                        break;
                    }
                    Start::Unknown => return Step::More(at),
                    Start::No => {}
                }
            }
            if at >= text.len() {
                return Step::More(at);
            }
            self.begun = true;
        }
        match arguments.step(text.get(at..).unwrap_or_default(), sink) {
            Step::More(n) => Step::More(at + n),
            Step::Done(n) => Step::Done(at + n),
            Step::Failed(n) | Step::Text(n) => Step::Failed(at + n),
        }
    }
}
