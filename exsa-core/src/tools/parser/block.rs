//! A block of calls: the calls, the text between them, and text that turns out not to be a call.

use super::find::{Found, Start, find, space_len, starts};
use super::formats::{Block, Payload};
use super::literal::{self, LiteralCall};
use super::named::{self, NamedCall};
use super::object::ObjectCall;
use super::sink::{CallSink, CallState, Delta, Step};
use super::xml::{self, XmlCall};
use super::{CALL_BYTES_MAX, OutputParser, State, call_id};
use crate::stream::MalformedToolCall;

#[derive(Clone, Debug)]
pub(super) struct OpenBlock {
    pub(super) block: &'static Block,
    pub(super) call: Option<(CallParser, CallState)>,
    /// Number of calls in the block so far.
    pub(super) calls: usize,
}

#[derive(Clone, Debug)]
pub(super) enum CallParser {
    Object(ObjectCall),
    Named(&'static named::Named, NamedCall),
    Xml(&'static xml::Xml, XmlCall),
    Literal(&'static literal::Literals, LiteralCall),
}

impl OutputParser {
    pub(super) fn block(&mut self, mut open: OpenBlock, ended: bool) -> bool {
        if let Some((parser, state)) = &mut open.call {
            let mut sink = CallSink {
                index: self.next_call,
                state,
                types: &self.types,
                out: &mut self.out,
                default_id: call_id(self.id_seed, self.next_call),
                known_only: open.block.tentative,
            };
            let rest = self.input.rest();
            let step = match parser {
                CallParser::Object(call) => call.step(rest, &mut sink),
                CallParser::Named(form, call) => call.step(form, rest, ended, &mut sink),
                CallParser::Xml(form, call) => call.step(form, rest, ended, &mut sink),
                CallParser::Literal(form, call) => call.step(form, rest, ended, &mut sink),
            };
            let named = state.is_named();
            match step {
                Step::More(n) => {
                    self.input.take(n, &mut self.written);
                    if ended || self.written.raw.len() > CALL_BYTES_MAX {
                        let n = if ended { self.input.rest().len() } else { 0 };
                        self.input.take(n, &mut self.written);
                        self.fail(&open, named, !ended);
                        return !ended;
                    }
                    self.state = State::Block(open);
                    return false;
                }
                Step::Done(n) => {
                    self.input.take(n, &mut self.written);
                    self.written.clear();
                    self.space.clear();
                    self.calls += 1;
                    self.next_call += 1;
                    open.calls += 1;
                    open.call = None;
                    self.state = State::Block(open);
                }
                Step::Text(n) => {
                    self.input.skip(n);
                    self.leave();
                }
                Step::Failed(n) => {
                    // At the end of the output, text that was held back for the call belongs to it.
                    let n = if ended { self.input.rest().len() } else { n };
                    self.input.take(n, &mut self.written);
                    self.fail(&open, named, true);
                }
            }
            return true;
        }
        self.between(open, ended)
    }

    /// Between calls: separators, the next call, or the end of the block.
    fn between(&mut self, mut open: OpenBlock, ended: bool) -> bool {
        let block = open.block;
        let space = space_len(self.input.rest());
        self.input.take(space, &mut self.written);
        let rest = self.input.rest();
        if rest.is_empty() {
            if !ended {
                self.state = State::Block(open);
                return false;
            }
            if open.calls == 0 {
                self.fail(&open, false, false);
            } else {
                self.leave();
            }
            return self.state_is_text_with_input();
        }
        let mut unknown = false;
        let mut at_start = |texts: &'static [&'static str]| {
            let starting = |text: &&&str| match starts(rest, text, ended) {
                Start::Yes => true,
                Start::Unknown => {
                    unknown = true;
                    false
                }
                Start::No => false,
            };
            texts.iter().filter(starting).map(|text| text.len()).max()
        };
        let end = at_start(block.end);
        // A block can follow the block of the last call without an end marker in between.
        let repeats = open.calls > 0 && !block.keep && !block.anchored && block.call_begin.is_empty();
        let begin = if repeats { at_start(block.begin) } else { None };
        let call_begin = at_start(block.call_begin);
        let skipped = at_start(block.skipped);
        if unknown {
            self.state = State::Block(open);
            return false;
        }
        if let Some(n) = end {
            if open.calls == 0 {
                self.input.take(n, &mut self.written);
                self.fail(&open, false, false);
            } else {
                self.input.skip(n);
                self.leave();
            }
            return true;
        }
        if begin.is_some() {
            self.leave();
            return true;
        }
        if let (None, Some(n)) = (call_begin, skipped) {
            self.input.take(n, &mut self.written);
            self.state = State::Block(open);
            return true;
        }
        let begin_len = call_begin.unwrap_or(0);
        let parser = if call_begin.is_some() || block.call_begin.is_empty() {
            call_parser(block, rest.get(begin_len..).unwrap_or_default(), open.calls, ended)
        } else if open.calls == 0
            && block.begin.iter().any(|begin| block.call_begin.contains(begin))
            && block.call_begin.contains(&self.written.raw.trim_end())
        {
            // The block began with its first call.
            call_parser(block, self.input.rest(), 0, ended)
        } else {
            Next::No
        };
        if !matches!(parser, Next::Unknown) {
            self.input.take(begin_len, &mut self.written);
        }
        match parser {
            Next::Call(parser) => {
                open.call = Some((parser, CallState::default()));
                self.state = State::Block(open);
                true
            }
            Next::Unknown => {
                self.state = State::Block(open);
                false
            }
            Next::No if open.calls > 0 => {
                self.leave();
                true
            }
            Next::No => {
                self.fail(&open, false, true);
                true
            }
        }
    }

    fn state_is_text_with_input(&self) -> bool {
        matches!(self.state, State::Text) && !self.input.rest().is_empty()
    }

    /// Emits the text of a block that is not a call. `more` tells whether further text may belong to it.
    fn fail(&mut self, open: &OpenBlock, named: bool, more: bool) {
        let call = named.then_some(self.next_call);
        if open.block.tentative && !named && open.calls == 0 {
            let visible = std::mem::take(&mut self.written.visible);
            self.written.clear();
            if self.fresh && self.separated {
                self.space.clear();
            }
            self.out.text(&std::mem::take(&mut self.space));
            self.state = State::Text;
            self.fresh = false;
            self.separated = false;
            // White space at the end of the text may still be followed by a call.
            self.emit_text(&visible);
            return;
        }
        if more && !open.block.end.is_empty() && self.written.raw.len() <= CALL_BYTES_MAX {
            self.state = State::Broken { block: open.block, call };
        } else {
            self.malformed(call);
        }
    }

    pub(super) fn broken(&mut self, block: &'static Block, call: Option<usize>, ended: bool) -> bool {
        let rest = self.input.rest();
        let (end, complete) = match find(rest, block.end, ended) {
            Found::Marker { at, index } => (at + block.end[index].len(), true),
            Found::Partial { at } => (at, false),
            Found::None => (rest.len(), ended),
        };
        self.input.take(end, &mut self.written);
        if complete || self.written.raw.len() > CALL_BYTES_MAX {
            self.malformed(call);
            return !self.input.rest().is_empty();
        }
        self.state = State::Broken { block, call };
        false
    }

    /// Emits the text of the open block as malformed.
    fn malformed(&mut self, call: Option<usize>) {
        let text = std::mem::take(&mut self.written.raw);
        self.written.clear();
        if !(self.fresh && self.separated) {
            self.out.text(&std::mem::take(&mut self.space));
        }
        self.leave();
        self.separated = false;
        self.fresh = false;
        self.out.0.push(Delta::Malformed(MalformedToolCall::new(text).call(call)));
        // A call whose deltas were already emitted keeps its index.
        self.next_call += usize::from(call.is_some());
    }
}

enum Next {
    Call(CallParser),
    Unknown,
    No,
}

/// A parser for the call with which `text` begins. `calls` is the number of previous calls.
fn call_parser(block: &'static Block, text: &str, calls: usize, ended: bool) -> Next {
    let text = text.trim_start();
    let Some(first) = text.chars().next() else {
        return if ended { Next::No } else { Next::Unknown };
    };
    for payload in block.payloads {
        match payload {
            Payload::Objects if first == '{' => return Next::Call(CallParser::Object(ObjectCall::default())),
            Payload::Objects => {}
            // Without a marker before it, a name cannot be distinguished from text.
            Payload::Named(_) if calls > 0 && block.call_begin.is_empty() => {}
            Payload::Named(form) => return Next::Call(CallParser::Named(form, NamedCall::default())),
            // The same applies to a name in tags.
            Payload::Xml(form) if form.name_open.is_empty() && calls > 0 => {}
            Payload::Xml(form) => match starts(text, form.name_open, ended) {
                Start::Yes => return Next::Call(CallParser::Xml(form, XmlCall::default())),
                Start::Unknown => return Next::Unknown,
                Start::No => {}
            },
            Payload::Literals(form) => {
                let begins = if form.prefix.is_empty() {
                    if first.is_alphabetic() || first == '_' { Start::Yes } else { Start::No }
                } else {
                    starts(text, form.prefix, ended)
                };
                match begins {
                    Start::Yes => return Next::Call(CallParser::Literal(form, LiteralCall::default())),
                    Start::Unknown => return Next::Unknown,
                    Start::No => {}
                }
            }
        }
    }
    Next::No
}
