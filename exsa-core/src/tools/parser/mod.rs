//! Incremental parsing of the model's output into text, reasoning and tool calls.
//!
//! The output is a sequence of pieces, cut anywhere; the joined deltas do not depend on the cuts. Time is linear in
//! the output and memory is bounded: text is held back while it may begin a marker, and a call's text until the call is
//! complete, at most [`CALL_BYTES_MAX`].

mod find;
mod formats;
mod harmony;
mod input;
mod json_scan;
mod literal;
mod named;
mod object;
mod sink;
mod xml;

pub use sink::Delta;

use super::schema::ToolTypes;
use super::{ReasoningFormat, ToolFormat};
use crate::chat::Json;
use crate::stream::MalformedToolCall;
use find::{Found, Start, find, space_len, starts};
use formats::{Block, Format, Payload, Thought};
use harmony::Harmony;
use input::{Input, Written};
use literal::LiteralCall;
use named::NamedCall;
use object::ObjectCall;
use sink::{CallSink, CallState, Deltas, Step};
use xml::XmlCall;

/// Maximum bytes of a tool call. Longer text is malformed.
pub const CALL_BYTES_MAX: usize = 4 << 20;

/// Parses the output of a model into text, reasoning and tool calls.
///
/// ```
/// use exsa_core::tools::{Delta, OutputParser, ReasoningFormat, ToolFormat};
///
/// let mut parser = OutputParser::new(ToolFormat::Hermes, ReasoningFormat::Think, &[]);
/// let mut deltas = parser.push("<think>Look it up.</think>\n\nOne moment.<tool_call>{\"name\": \"time\", ");
/// deltas.extend(parser.push("\"arguments\": {\"zone\": \"UTC\"}}</tool_call>"));
/// deltas.extend(parser.finish());
/// assert_eq!(deltas[0], Delta::Reasoning("Look it up.".into()));
/// assert_eq!(deltas[1], Delta::Text("One moment.".into()));
/// let Delta::ToolCall(call) = &deltas[2] else { panic!() };
/// assert_eq!(call.name.as_deref(), Some("time"));
/// ```
#[derive(Debug)]
pub struct OutputParser {
    blocks: &'static [Block],
    thought: Thought,
    harmony: Option<Harmony>,
    types: ToolTypes,
    id_seed: u64,
    show_control: bool,
    /// Markers that count anywhere in text, and their meaning.
    markers: (Vec<&'static str>, Vec<Marker>),
    /// These, and those that count before any text.
    first_markers: (Vec<&'static str>, Vec<Marker>),
    /// Markers that end reasoning.
    close_markers: (Vec<&'static str>, Vec<Marker>),
    input: Input,
    state: State,
    /// The open block's text since its last complete call.
    written: Written,
    /// White space that is dropped if a call follows.
    space: String,
    /// Whether no text came since the start, or since reasoning or calls.
    fresh: bool,
    /// Whether reasoning or calls came before, so that white space means nothing.
    separated: bool,
    /// Complete calls.
    calls: usize,
    /// Index of the next call.
    next_call: usize,
    out: Deltas,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Block(usize),
    OpenReasoning,
    CloseReasoning,
    Dropped,
}

#[derive(Debug)]
enum State {
    Text,
    Reasoning,
    Block(OpenBlock),
    /// A block with an error goes on to its end.
    Broken {
        block: &'static Block,
        call: Option<usize>,
    },
}

#[derive(Debug)]
struct OpenBlock {
    block: &'static Block,
    call: Option<(CallParser, CallState)>,
    /// Calls that the block has so far.
    calls: usize,
}

#[derive(Debug)]
enum CallParser {
    Object(ObjectCall),
    Named(&'static named::Named, NamedCall),
    Xml(&'static xml::Xml, XmlCall),
    Literal(&'static literal::Literals, LiteralCall),
}

impl OutputParser {
    /// A parser of a whole answer. `tools`, in OpenAI's form, give untyped arguments their types; bare formats also take
    /// nothing for a call but these.
    pub fn new(tools_format: ToolFormat, reasoning: ReasoningFormat, tools: &[Json]) -> Self {
        let Format { blocks, dropped, ends_reasoning } = formats::format(tools_format);
        let thought = formats::thought(reasoning);
        let harmony = tools_format == ToolFormat::Harmony || reasoning == ReasoningFormat::Harmony;
        let block_markers = |anchored: bool| {
            let chosen = blocks.iter().enumerate().filter(move |(_, block)| block.anchored == anchored);
            chosen.flat_map(|(index, block)| {
                block.begin.iter().map(move |begin| (*begin, Marker::Block(index)))
            })
        };
        let dropped = dropped.iter().chain(thought.dropped).map(|text| (*text, Marker::Dropped));
        let anywhere: Vec<_> = block_markers(false).chain(dropped).collect();
        let open = thought.open.iter().map(|text| (*text, Marker::OpenReasoning));
        let first = anywhere.iter().copied().chain(open).chain(block_markers(true));
        let close = thought.close.iter().map(|text| (*text, Marker::CloseReasoning));
        let close = close.chain(block_markers(false).filter(|_| *ends_reasoning));
        Self {
            first_markers: first.unzip(),
            close_markers: close.unzip(),
            markers: anywhere.into_iter().unzip(),
            blocks,
            thought,
            harmony: harmony.then(|| Harmony::new(tools_format == ToolFormat::Harmony)),
            types: ToolTypes::new(tools),
            id_seed: 0,
            show_control: false,
            input: Input::default(),
            state: State::Text,
            written: Written::default(),
            space: String::new(),
            fresh: true,
            separated: false,
            calls: 0,
            next_call: 0,
            out: Deltas::default(),
        }
    }

    /// Sets the number from which ids of calls are derived, where the model gives none.
    #[must_use]
    pub fn id_seed(mut self, seed: u64) -> Self {
        self.id_seed = seed;
        self
    }

    /// Sets whether control tokens show in text and reasoning, unless they belong to the format; `false` by default.
    #[must_use]
    pub fn show_control(mut self, show: bool) -> Self {
        self.show_control = show;
        self
    }

    /// Takes over where the prompt ends: inside reasoning that the chat template opened, or inside the head of a message.
    /// `protected_offsets` are those of [`Rendered`](crate::chat::Rendered): text of a message opens nothing.
    #[must_use]
    pub fn after_prompt(mut self, prompt: &str, protected_offsets: &[usize]) -> Self {
        let written_by_template = |start: usize, end: usize| {
            let first = protected_offsets.partition_point(|offset| *offset <= start);
            protected_offsets.get(first).is_none_or(|offset| *offset >= end)
        };
        let trimmed = prompt.trim_end();
        if let Some(harmony) = &mut self.harmony {
            let start = prompt.rfind("<|start|>").unwrap_or(prompt.len());
            if prompt.len() - start < 256 && written_by_template(start, prompt.len()) {
                harmony.after_prompt(prompt.get(start..).unwrap_or_default());
            }
            return self;
        }
        let opened = self.thought.open.iter().find(|open| trimmed.ends_with(**open));
        if opened.is_some_and(|open| written_by_template(trimmed.len() - open.len(), trimmed.len())) {
            self.state = State::Reasoning;
            self.separated = true;
        }
        let functionary = self.blocks.iter().find(|block| block.begin == [">>>"]);
        if let Some(block) = functionary.filter(|_| prompt.ends_with(">>>")) {
            self.state = State::Block(OpenBlock { block, call: None, calls: 0 });
        }
        self
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.input.push(text);
        self.run(false)
    }

    /// Takes the text of a control token, which may be a marker and otherwise does not show.
    pub fn push_control(&mut self, text: &str) -> Vec<Delta> {
        if self.show_control {
            self.input.push(text);
        } else {
            self.input.push_hidden(text);
        }
        self.run(false)
    }

    /// Ends the output: text that was held back is certain now, and an incomplete call is malformed.
    pub fn finish(&mut self) -> Vec<Delta> {
        self.run(true)
    }

    /// Whether the output is inside reasoning.
    pub fn in_reasoning(&self) -> bool {
        match &self.harmony {
            Some(harmony) => harmony.in_reasoning(),
            None => matches!(self.state, State::Reasoning),
        }
    }

    /// Calls that are complete.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Text that ends open reasoning, for a limit of the reasoning's length; `None` outside of reasoning.
    pub fn reasoning_end(&self) -> Option<String> {
        if self.harmony.as_ref().is_some_and(Harmony::in_reasoning) {
            return Some("<|end|><|start|>assistant<|channel|>final<|message|>".to_owned());
        }
        let close = self.thought.close.first().filter(|_| self.in_reasoning())?;
        Some(format!("\n{close}\n\n"))
    }

    fn run(&mut self, ended: bool) -> Vec<Delta> {
        if let Some(mut harmony) = self.harmony.take() {
            while harmony.step(self, ended) {}
            self.harmony = Some(harmony);
        } else {
            while self.step(ended) {}
        }
        self.input.compact();
        std::mem::take(&mut self.out.0)
    }

    /// Takes a part of the input; `false` if it needs more.
    fn step(&mut self, ended: bool) -> bool {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.text(ended),
            State::Reasoning => self.reasoning(ended),
            State::Block(block) => self.block(block, ended),
            State::Broken { block, call } => self.broken(block, call, ended),
        }
    }

    fn text(&mut self, ended: bool) -> bool {
        if self.fresh {
            let space = space_len(self.input.rest());
            if !self.input.is_hidden() && space > 0 {
                let mut visible = String::new();
                self.input.take_visible(space, &mut visible);
                self.space.push_str(&visible);
            }
        }
        let rest = self.input.rest();
        if rest.is_empty() {
            if ended && !self.separated {
                self.out.text(&std::mem::take(&mut self.space));
            }
            return false;
        }
        if self.fresh {
            match find(rest, &self.first_markers.0, ended) {
                Found::Marker { at: 0, index } => {
                    let (text, marker) = (self.first_markers.0[index], self.first_markers.1[index]);
                    return self.marker(text, marker);
                }
                Found::Partial { at: 0 } => return false,
                _ => {}
            }
        }
        let found = find(rest, &self.markers.0, ended);
        let end = match found {
            Found::Marker { at, .. } | Found::Partial { at } => at,
            Found::None => rest.len(),
        };
        let mut visible = String::new();
        self.input.take_visible(end, &mut visible);
        self.emit_text(&visible);
        match found {
            Found::Marker { index, .. } => self.marker(self.markers.0[index], self.markers.1[index]),
            Found::Partial { .. } => false,
            Found::None => {
                if ended {
                    self.out.text(&std::mem::take(&mut self.space));
                }
                false
            }
        }
    }

    /// Appends text; white space at its end is held back while a call may follow.
    fn emit_text(&mut self, text: &str) {
        let body = text.trim_end();
        if !body.is_empty() {
            if self.fresh && self.separated {
                self.space.clear();
            }
            self.fresh = false;
            self.separated = false;
            self.out.text(&std::mem::take(&mut self.space));
            self.out.text(body);
        }
        self.space.push_str(text.get(body.len()..).unwrap_or_default());
        if self.blocks.is_empty() && !self.fresh {
            self.out.text(&std::mem::take(&mut self.space));
        }
    }

    fn marker(&mut self, text: &'static str, marker: Marker) -> bool {
        match marker {
            Marker::Block(index) => {
                let block = &self.blocks[index];
                if !block.keep {
                    self.input.take(text.len(), &mut self.written);
                }
                self.state = State::Block(OpenBlock { block, call: None, calls: 0 });
            }
            Marker::OpenReasoning => {
                self.input.skip(text.len());
                self.space.clear();
                self.separated = true;
                self.state = State::Reasoning;
            }
            Marker::CloseReasoning => {
                self.input.skip(text.len());
                self.leave();
            }
            Marker::Dropped => self.input.skip(text.len()),
        }
        true
    }

    /// Goes on with text, after reasoning or calls.
    fn leave(&mut self) {
        self.space.clear();
        self.written.clear();
        self.fresh = true;
        self.separated = true;
        self.state = State::Text;
    }

    fn reasoning(&mut self, ended: bool) -> bool {
        self.state = State::Reasoning;
        let rest = self.input.rest();
        if rest.is_empty() {
            return false;
        }
        let found = find(rest, &self.close_markers.0, ended);
        let end = match found {
            Found::Marker { at, .. } | Found::Partial { at } => at,
            Found::None => rest.len(),
        };
        let mut visible = String::new();
        self.input.take_visible(end, &mut visible);
        self.emit_reasoning(&visible);
        match found {
            Found::Marker { index, .. } => {
                let (text, marker) = (self.close_markers.0[index], self.close_markers.1[index]);
                if marker != Marker::CloseReasoning {
                    self.leave();
                }
                self.fresh = true;
                self.marker(text, marker)
            }
            _ => false,
        }
    }

    /// Appends reasoning without the white space around it. `fresh` says that none came yet.
    fn emit_reasoning(&mut self, text: &str) {
        let body = text.trim_end();
        let body_start = if self.fresh { body.trim_start() } else { body };
        if !body.is_empty() {
            if self.fresh {
                self.space.clear();
            }
            self.fresh = false;
            self.out.reasoning(&std::mem::take(&mut self.space));
            self.out.reasoning(body_start);
        }
        self.space.push_str(text.get(body.len()..).unwrap_or_default());
    }

    fn block(&mut self, mut open: OpenBlock, ended: bool) -> bool {
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
        // A block may follow that of the last call without an end between them.
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

    /// Delivers the text of a block that is no call. `more` says that text may follow that belongs to it.
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

    fn broken(&mut self, block: &'static Block, call: Option<usize>, ended: bool) -> bool {
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

    /// Delivers what was written of the open block as text that is no call.
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
        // A call that was announced keeps its index.
        self.next_call += usize::from(call.is_some());
    }
}

enum Next {
    Call(CallParser),
    Unknown,
    No,
}

/// A parser for the call that `text` begins with. `calls` is the number of calls before.
fn call_parser(block: &'static Block, text: &str, calls: usize, ended: bool) -> Next {
    let text = text.trim_start();
    let Some(first) = text.chars().next() else {
        return if ended { Next::No } else { Next::Unknown };
    };
    for payload in block.payloads {
        match payload {
            Payload::Objects if first == '{' => return Next::Call(CallParser::Object(ObjectCall::default())),
            Payload::Objects => {}
            // Without a beginning of its own, a name cannot be told from text.
            Payload::Named(_) if calls > 0 && block.call_begin.is_empty() => {}
            Payload::Named(form) => return Next::Call(CallParser::Named(form, NamedCall::default())),
            // Without a beginning of its own, neither can this name.
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

/// An id of nine letters and digits, as Mistral's templates require.
fn call_id(seed: u64, call: usize) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    // SplitMix64.
    let mut z = seed.wrapping_add((call as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let mut id = String::new();
    for _ in 0..9 {
        id.push(char::from(DIGITS[(z % 62) as usize]));
        z /= 62;
    }
    id
}
