//! Harmony, the format of gpt-oss: messages with a header that names a channel and a recipient.

use super::find::{Found, find, space_len};
use super::input::Written;
use super::object::ArgumentsObject;
use super::sink::{CallSink, CallState, Delta, Step};
use super::{CALL_BYTES_MAX, OutputParser, call_id};
use crate::stream::MalformedToolCall;

/// Maximum bytes of a message's header.
const HEAD_BYTES_MAX: usize = 512;

const MESSAGE: &str = "<|message|>";
const CHANNEL: &str = "<|channel|>";
const START: &str = "<|start|>";

/// Texts that end a message; the last also begins the next.
const ENDS: [&str; 4] = ["<|end|>", "<|call|>", "<|return|>", START];

/// Texts that begin a header.
const HEADS: [&str; 2] = [CHANNEL, START];

/// State of a Harmony parser, in addition to that of the [`OutputParser`].
#[derive(Clone, Debug)]
pub(super) struct Harmony {
    /// Whether messages to functions are calls.
    tools: bool,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// Before a header, or in text without one.
    Outside,
    /// In a header; the value is its beginning in the prompt.
    Head(String),
    Text,
    Reasoning,
    Call(Call),
}

#[derive(Clone, Debug)]
struct Call {
    arguments: ArgumentsObject,
    state: CallState,
    /// The header, in case the call turns out to be malformed.
    written: Written,
    done: bool,
    failed: bool,
}

impl Harmony {
    pub(super) fn new(tools: bool) -> Self {
        Self { tools, place: Place::Outside }
    }

    pub(super) fn in_reasoning(&self) -> bool {
        matches!(self.place, Place::Reasoning)
    }

    /// Continues inside the message with which the prompt ends.
    pub(super) fn after_prompt(&mut self, message: &str) {
        self.place = match message.split_once(MESSAGE) {
            None => Place::Head(message.to_owned()),
            Some((_, body)) if ENDS.iter().any(|end| body.contains(end)) => Place::Outside,
            Some((head, _)) if channel(head) == "analysis" => Place::Reasoning,
            Some(_) => Place::Text,
        };
    }

    /// Consumes a part of the input of `parser`; `false` if more is needed.
    pub(super) fn step(&mut self, parser: &mut OutputParser, ended: bool) -> bool {
        match &mut self.place {
            Place::Outside => self.outside(parser, ended),
            Place::Head(_) => self.head(parser, ended),
            Place::Text | Place::Reasoning => self.body(parser, ended),
            Place::Call(_) => self.call(parser, ended),
        }
    }

    fn outside(&mut self, parser: &mut OutputParser, ended: bool) -> bool {
        let rest = parser.input.rest();
        let found = find(rest, &HEADS, ended);
        let end = match found {
            Found::Marker { at, .. } | Found::Partial { at } => at,
            Found::None => rest.len(),
        };
        let mut visible = String::new();
        parser.input.take_visible(end, &mut visible);
        parser.out.text(&visible);
        if matches!(found, Found::Marker { .. }) {
            self.place = Place::Head(String::new());
            return true;
        }
        false
    }

    fn head(&mut self, parser: &mut OutputParser, ended: bool) -> bool {
        let Place::Head(before) = &mut self.place else { return false };
        let rest = parser.input.rest();
        // A role without a channel: the model answers directly.
        let plain = before.starts_with(START) && !rest.is_empty() && !before.contains(CHANNEL) && {
            let space = space_len(rest);
            let text = rest.get(space..).unwrap_or_default();
            let begins = |mark: &str| mark.starts_with(text) || text.starts_with(mark);
            !text.is_empty() && !HEADS.iter().chain(&["to=", MESSAGE]).any(|mark| begins(mark))
        };
        let found = if plain { Found::None } else { find(rest, &[MESSAGE], ended) };
        let Found::Marker { at, .. } = found else {
            if plain || ended || rest.len() > HEAD_BYTES_MAX {
                let mut visible = String::new();
                parser.input.take_visible(rest.len(), &mut visible);
                parser.out.text(&visible);
                self.place = Place::Outside;
            }
            return false;
        };
        let head = format!("{before}{}", rest.get(..at).unwrap_or_default());
        let mut written = Written::default();
        parser.input.take(at + MESSAGE.len(), &mut written);
        self.place = match (recipient(&head), channel(&head)) {
            (Some(recipient), _) if self.tools => {
                let mut state = CallState::default();
                let name = recipient.strip_prefix("functions.").unwrap_or(recipient);
                let failed = !sink(parser, &mut state).name(name);
                let arguments = ArgumentsObject::default();
                Place::Call(Call { arguments, state, written, done: false, failed })
            }
            (_, "analysis") => Place::Reasoning,
            _ => Place::Text,
        };
        true
    }

    fn body(&mut self, parser: &mut OutputParser, ended: bool) -> bool {
        let rest = parser.input.rest();
        let found = find(rest, &ENDS, ended);
        let end = match found {
            Found::Marker { at, .. } | Found::Partial { at } => at,
            Found::None => rest.len(),
        };
        let mut visible = String::new();
        parser.input.take_visible(end, &mut visible);
        if self.in_reasoning() {
            parser.out.reasoning(&visible);
        } else {
            parser.out.text(&visible);
        }
        let Found::Marker { index, .. } = found else { return false };
        if ENDS[index] != START {
            parser.input.skip(ENDS[index].len());
        }
        self.place = Place::Outside;
        true
    }

    fn call(&mut self, parser: &mut OutputParser, ended: bool) -> bool {
        let Place::Call(call) = &mut self.place else { return false };
        let rest = parser.input.rest().to_owned();
        let found = find(&rest, &ENDS, ended);
        let end = match found {
            Found::Marker { at, .. } | Found::Partial { at } => at,
            Found::None => rest.len(),
        };
        let body = rest.get(..end).unwrap_or_default();
        let mut taken = 0;
        if !call.done && !call.failed {
            let mut sink = sink(parser, &mut call.state);
            match call.arguments.step(body, &mut sink) {
                Step::More(n) => taken = n,
                Step::Done(n) => {
                    taken = n;
                    call.done = true;
                    parser.calls += 1;
                }
                Step::Failed(_) | Step::Text(_) => call.failed = true,
            }
        }
        if call.done {
            parser.input.skip(taken);
            let mut after = String::new();
            parser.input.take_visible(end - taken, &mut after);
            parser.out.text(after.trim());
        } else {
            parser.input.take(end, &mut call.written);
        }
        let marker = match found {
            Found::Marker { index, .. } => Some(ENDS[index]),
            _ => None,
        };
        if marker.is_none() && !ended && call.written.raw.len() <= CALL_BYTES_MAX {
            return false;
        }
        if let Some(end) = marker.filter(|end| *end != START) {
            parser.input.take(end.len(), &mut call.written);
        }
        if !call.done {
            let announced = call.state.is_named().then_some(parser.next_call);
            let text = std::mem::take(&mut call.written.raw);
            parser.out.0.push(Delta::Malformed(MalformedToolCall::new(text).call(announced)));
        }
        parser.next_call += usize::from(call.state.is_named());
        self.place = Place::Outside;
        true
    }
}

fn sink<'a>(parser: &'a mut OutputParser, state: &'a mut CallState) -> CallSink<'a> {
    CallSink {
        index: parser.next_call,
        state,
        types: &parser.types,
        out: &mut parser.out,
        default_id: call_id(parser.id_seed, parser.next_call),
        known_only: false,
    }
}

/// The channel of a header, `final` by default.
fn channel(head: &str) -> &str {
    let after = head.rsplit_once(CHANNEL).map_or("final", |(_, after)| after).trim_start();
    after.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default()
}

/// The recipient of a header, unless it is the user.
fn recipient(head: &str) -> Option<&str> {
    let (_, after) = head.rsplit_once("to=")?;
    let name = after.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default();
    Some(name).filter(|name| !name.is_empty() && !matches!(*name, "assistant" | "user" | "all"))
}
