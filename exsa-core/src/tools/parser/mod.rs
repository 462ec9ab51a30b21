//! Incremental parsing of the model's output into text, reasoning and tool calls.
//!
//! The output is a sequence of arbitrary pieces; the concatenated deltas do not depend on how it is split.
//! Time is linear in the output and memory is bounded: text is held back while it may begin a marker, and a
//! call's text until the call is complete, at most [`CALL_BYTES_MAX`].

mod block;
mod find;
mod formats;
mod harmony;
mod input;
mod json_scan;
mod literal;
mod named;
mod object;
mod plain;
mod sink;
mod xml;

pub use sink::Delta;

use super::schema::ToolTypes;
use super::{ReasoningFormat, ToolFormat};
use crate::chat::Json;
use block::OpenBlock;
use formats::{Block, Format, Thought};
use harmony::Harmony;
use input::{Input, Written};
use sink::Deltas;

/// Maximum bytes of a tool call. Longer text is malformed.
pub const CALL_BYTES_MAX: usize = 4 << 20;

/// Incremental parser of a model's output into text, reasoning and tool calls.
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
#[derive(Clone, Debug)]
pub struct OutputParser {
    blocks: &'static [Block],
    thought: Thought,
    harmony: Option<Harmony>,
    types: ToolTypes,
    id_seed: u64,
    show_control: bool,
    /// Markers that are recognized anywhere in text, and their meaning.
    markers: (Vec<&'static str>, Vec<Marker>),
    /// The same, plus markers that are recognized only before any text.
    first_markers: (Vec<&'static str>, Vec<Marker>),
    /// Markers that end reasoning.
    close_markers: (Vec<&'static str>, Vec<Marker>),
    input: Input,
    state: State,
    /// Text of the open block since its last complete call.
    written: Written,
    /// White space that is dropped if a call follows.
    space: String,
    /// Whether there was no text since the start, reasoning or calls.
    fresh: bool,
    /// Whether reasoning or calls came before, so that white space is ignored.
    separated: bool,
    /// Number of complete calls.
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

#[derive(Clone, Debug)]
enum State {
    Text,
    Reasoning,
    Block(OpenBlock),
    /// A block with an error continues to its end.
    Broken {
        block: &'static Block,
        call: Option<usize>,
    },
}

impl OutputParser {
    /// A parser of a whole answer. `tools`, in OpenAI's format, provide the types of untyped arguments.
    /// Formats without markers only recognize calls of these tools.
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

    /// Sets the seed of generated call ids, for models that write none.
    #[must_use]
    pub fn id_seed(mut self, seed: u64) -> Self {
        self.id_seed = seed;
        self
    }

    /// Sets whether text and reasoning include control tokens, other than those of the format; `false` by
    /// default.
    #[must_use]
    pub fn show_control(mut self, show: bool) -> Self {
        self.show_control = show;
        self
    }

    /// Continues from the end of the prompt: inside reasoning that the chat template opened, or inside the
    /// header of a message. `protected_offsets` are those of [`Rendered`](crate::chat::Rendered), so that
    /// text of a message is not mistaken for markers.
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

    /// Parses the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.input.push(text);
        self.run(false)
    }

    /// Parses the text of a control token, which may be a marker and is otherwise hidden.
    pub fn push_control(&mut self, text: &str) -> Vec<Delta> {
        if self.show_control {
            self.input.push(text);
        } else {
            self.input.push_hidden(text);
        }
        self.run(false)
    }

    /// Ends the output: releases held-back text, and reports an incomplete call as malformed.
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

    /// Number of complete calls.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Text that closes open reasoning, for limiting its length; `None` outside of reasoning.
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

    /// Consumes a part of the input; `false` if more is needed.
    fn step(&mut self, ended: bool) -> bool {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Text => self.text(ended),
            State::Reasoning => self.reasoning(ended),
            State::Block(block) => self.block(block, ended),
            State::Broken { block, call } => self.broken(block, call, ended),
        }
    }
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
