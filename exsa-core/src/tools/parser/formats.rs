//! The formats of tool calls and reasoning, as data.
//!
//! Sources: the models' chat templates, vLLM's tool parsers, llama.cpp's `common/parsers`.

use super::super::{ReasoningFormat, ToolFormat};
use super::literal::{Literals, PYTHON};
use super::named::{Head, Named};
use super::xml::Xml;

/// Blocks of calls in a format.
#[derive(Debug)]
pub(super) struct Format {
    pub(super) blocks: &'static [Block],
    /// Texts around the answer that are not part of it.
    pub(super) dropped: &'static [&'static str],
    /// Whether the beginning of a block ends open reasoning.
    pub(super) ends_reasoning: bool,
}

/// A part of the output that holds calls.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) begin: &'static [&'static str],
    /// Whether it may only begin before any text.
    pub(super) anchored: bool,
    /// Whether `begin` is part of the first call.
    pub(super) keep: bool,
    /// Whether the block is text unless it names a tool of the request.
    pub(super) tentative: bool,
    /// Before each call; if empty, calls follow each other directly.
    pub(super) call_begin: &'static [&'static str],
    pub(super) payloads: &'static [Payload],
    /// Texts around calls to ignore, in addition to white space.
    pub(super) skipped: &'static [&'static str],
    /// Texts that end the block. If empty, it ends after the last call.
    pub(super) end: &'static [&'static str],
}

/// Form of a call.
#[derive(Debug)]
pub(super) enum Payload {
    /// JSON objects with name and arguments.
    Objects,
    Named(Named),
    Xml(Xml),
    Literals(&'static Literals),
}

const BLOCK: Block = Block {
    begin: &[],
    anchored: false,
    keep: false,
    tentative: false,
    call_begin: &[],
    payloads: &[Payload::Objects],
    skipped: &["[", "]", ",", ";"],
    end: &[],
};

/// An object as the whole answer.
const BARE_OBJECT: Block = Block { begin: &["{"], anchored: true, keep: true, tentative: true, ..BLOCK };

/// A list of objects as the whole answer.
const BARE_LIST: Block =
    Block { begin: &["["], anchored: true, tentative: true, skipped: &[","], end: &["]"], ..BLOCK };

/// A list of Python calls as the whole answer.
const BARE_PYTHON: Block = Block {
    begin: &["["],
    anchored: true,
    tentative: true,
    payloads: &[Payload::Literals(&PYTHON)],
    skipped: &[","],
    end: &["]"],
    ..BLOCK
};

const FENCES: &[&str] = &["```json", "```"];

const FUNCTION_TAG: Xml = Xml {
    name_open: "<function=",
    name_close: ">",
    key_open: "<parameter=",
    key_close: ">",
    typed: false,
    value_open: "",
    value_close: "</parameter>",
    call_close: "</function>",
    lines: true,
};

const INVOKE_TAG: Xml = Xml {
    name_open: "<invoke name=\"",
    name_close: "\">",
    key_open: "<parameter name=\"",
    key_close: "\">",
    typed: false,
    value_open: "",
    value_close: "</parameter>",
    call_close: "</invoke>",
    lines: true,
};

const DSML_TAG: Xml = Xml {
    name_open: "<｜DSML｜invoke name=\"",
    name_close: "\">",
    key_open: "<｜DSML｜parameter name=\"",
    key_close: "\" string=\"",
    typed: true,
    value_open: "\">",
    value_close: "</｜DSML｜parameter>",
    call_close: "</｜DSML｜invoke>",
    lines: false,
};

const GLM_TAG: Xml = Xml {
    name_open: "",
    name_close: "\n",
    key_open: "<arg_key>",
    key_close: "</arg_key>",
    typed: false,
    value_open: "<arg_value>",
    value_close: "</arg_value>",
    call_close: "</tool_call>",
    lines: false,
};

/// Strings in JSON's quotes, if a value begins with a quote.
const JSON_QUOTE: &str = super::literal::JSON_QUOTE;

const GEMMA: Literals = Literals {
    prefix: "call:",
    open: '{',
    close: '}',
    assign: ':',
    quotes: &[],
    escapes: false,
    bare: true,
    method: "",
};

static FUNCTION_GEMMA: Literals = Literals { quotes: &["<escape>", JSON_QUOTE], ..GEMMA };

static GEMMA4: Literals = Literals { quotes: &["<|\"|>", JSON_QUOTE], ..GEMMA };

/// `Named` with only the name before `end`.
const fn named(ends: &'static [&'static str], head: Head) -> Named {
    Named { ends, brace: false, head, fences: FENCES }
}

const FORMAT: Format = Format { blocks: &[], dropped: &[], ends_reasoning: false };

static NONE: Format = FORMAT;

const TOOL_CALL: Block = Block { begin: &["<tool_call>"], end: &["</tool_call>"], ..BLOCK };

static HERMES: Format = Format { blocks: &[TOOL_CALL], ..FORMAT };

static QWEN3_CODER: Format = Format {
    blocks: &[
        Block { payloads: &[Payload::Xml(FUNCTION_TAG)], skipped: &[], ..TOOL_CALL },
        // The models often leave out <tool_call>.
        Block {
            begin: &["<function="],
            keep: true,
            tentative: true,
            payloads: &[Payload::Xml(FUNCTION_TAG)],
            skipped: &["</tool_call>"],
            ..BLOCK
        },
    ],
    ends_reasoning: true,
    ..FORMAT
};

static LLAMA3_JSON: Format = Format {
    blocks: &[
        Block {
            begin: &["<|python_tag|>"],
            payloads: &[Payload::Objects, Payload::Literals(&PYTHON)],
            ..BLOCK
        },
        BARE_OBJECT,
    ],
    ..FORMAT
};

static LLAMA4_PYTHONIC: Format = Format {
    blocks: &[
        Block {
            begin: &["<|python_start|>"],
            payloads: &[Payload::Literals(&PYTHON)],
            end: &["<|python_end|>"],
            ..BLOCK
        },
        BARE_PYTHON,
    ],
    ..FORMAT
};

static MISTRAL: Format = Format {
    blocks: &[Block {
        begin: &["[TOOL_CALLS]"],
        payloads: &[
            Payload::Objects,
            Payload::Named(Named {
                ends: &["[ARGS]"],
                brace: true,
                head: Head::Id("[CALL_ID]"),
                fences: &[],
            }),
        ],
        ..BLOCK
    }],
    ..FORMAT
};

static GEMMA3: Format = Format {
    blocks: &[
        Block { begin: &["```tool_code"], payloads: &[Payload::Literals(&PYTHON)], end: &["```"], ..BLOCK },
        BARE_PYTHON,
    ],
    ..FORMAT
};

static FUNCTION_GEMMA_FORMAT: Format = Format {
    blocks: &[Block {
        begin: &["<start_function_call>"],
        payloads: &[Payload::Literals(&FUNCTION_GEMMA)],
        skipped: &[],
        end: &["<end_function_call>"],
        ..BLOCK
    }],
    ..FORMAT
};

static GEMMA4_FORMAT: Format = Format {
    blocks: &[Block {
        begin: &["<|tool_call>"],
        payloads: &[Payload::Literals(&GEMMA4)],
        skipped: &[],
        end: &["<tool_call|>"],
        ..BLOCK
    }],
    ends_reasoning: true,
    ..FORMAT
};

static PHI4_MINI: Format = Format {
    blocks: &[
        Block { begin: &["<|tool_call|>"], end: &["<|/tool_call|>"], ..BLOCK },
        Block { begin: &["functools["], end: &["]"], skipped: &[","], ..BLOCK },
    ],
    ..FORMAT
};

static DEEPSEEK_V3: Format = Format {
    blocks: &[Block {
        begin: &["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"],
        call_begin: &["<｜tool▁call▁begin｜>"],
        payloads: &[Payload::Named(named(&["\n"], Head::Behind("<｜tool▁sep｜>")))],
        skipped: &["```", "<｜tool▁call▁end｜>"],
        end: &["<｜tool▁calls▁end｜>"],
        ..BLOCK
    }],
    ..FORMAT
};

static DEEPSEEK_V31: Format = Format {
    blocks: &[Block {
        begin: &["<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"],
        call_begin: &["<｜tool▁call▁begin｜>"],
        payloads: &[Payload::Named(named(&["<｜tool▁sep｜>"], Head::Plain))],
        skipped: &["```", "<｜tool▁call▁end｜>"],
        end: &["<｜tool▁calls▁end｜>"],
        ..BLOCK
    }],
    ..FORMAT
};

static DEEPSEEK_V32: Format = Format {
    blocks: &[Block {
        begin: &["<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"],
        payloads: &[Payload::Xml(DSML_TAG)],
        skipped: &[],
        end: &["</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"],
        ..BLOCK
    }],
    ..FORMAT
};

static GLM4: Format = Format {
    blocks: &[Block { begin: &["<tool_call>"], payloads: &[Payload::Xml(GLM_TAG)], skipped: &[], ..BLOCK }],
    ..FORMAT
};

static KIMI_K2: Format = Format {
    blocks: &[Block {
        begin: &["<|tool_calls_section_begin|>", "<|tool_call_begin|>"],
        call_begin: &["<|tool_call_begin|>"],
        payloads: &[Payload::Named(named(&["<|tool_call_argument_begin|>"], Head::Kimi))],
        skipped: &["<|tool_call_end|>"],
        end: &["<|tool_calls_section_end|>"],
        ..BLOCK
    }],
    ends_reasoning: true,
    ..FORMAT
};

static GRANITE: Format = Format {
    blocks: &[Block { begin: &["<|tool_call|>", "<tool_call>", "<function_call>"], ..BLOCK }],
    ..FORMAT
};

static COMMAND_R: Format = Format {
    blocks: &[Block { begin: &["Action: ```json", "Action:```json"], end: &["```"], ..BLOCK }],
    ..FORMAT
};

static COMMAND_R7B: Format = Format {
    blocks: &[Block { begin: &["<|START_ACTION|>"], end: &["<|END_ACTION|>"], ..BLOCK }],
    dropped: &["<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"],
    ..FORMAT
};

static FUNCTIONARY_V31: Format = Format {
    blocks: &[
        Block {
            begin: &["<function="],
            payloads: &[Payload::Named(named(&[">"], Head::Plain))],
            skipped: &[],
            end: &["</function>"],
            ..BLOCK
        },
        Block { begin: &["<|python_tag|>"], ..BLOCK },
    ],
    ..FORMAT
};

static FUNCTIONARY_V32: Format = Format {
    blocks: &[Block {
        begin: &[">>>"],
        tentative: true,
        payloads: &[Payload::Named(named(&["\n"], Head::Recipient))],
        skipped: &[],
        ..BLOCK
    }],
    ..FORMAT
};

static NEMOTRON: Format =
    Format { blocks: &[Block { begin: &["<TOOLCALL>"], end: &["</TOOLCALL>"], ..BLOCK }], ..FORMAT };

static SEED_OSS: Format = Format {
    blocks: &[Block {
        begin: &["<seed:tool_call>"],
        payloads: &[Payload::Xml(FUNCTION_TAG)],
        skipped: &[],
        end: &["</seed:tool_call>"],
        ..BLOCK
    }],
    ..FORMAT
};

static MINIMAX_M1: Format =
    Format { blocks: &[Block { begin: &["<tool_calls>"], end: &["</tool_calls>"], ..BLOCK }], ..FORMAT };

static MINIMAX_M2: Format = Format {
    blocks: &[Block {
        begin: &["<minimax:tool_call>"],
        payloads: &[Payload::Xml(INVOKE_TAG)],
        skipped: &[],
        end: &["</minimax:tool_call>"],
        ..BLOCK
    }],
    ends_reasoning: true,
    ..FORMAT
};

static LFM2: Format = Format {
    blocks: &[Block {
        begin: &["<|tool_call_start|>"],
        payloads: &[Payload::Objects, Payload::Literals(&PYTHON)],
        end: &["<|tool_call_end|>"],
        ..BLOCK
    }],
    ..FORMAT
};

static FIRE_FUNCTION: Format =
    Format { blocks: &[Block { begin: &["functools["], skipped: &[","], end: &["]"], ..BLOCK }], ..FORMAT };

static JSON: Format = Format { blocks: &[BARE_OBJECT, BARE_LIST], ..FORMAT };

/// The data of a format; empty for Harmony, which has its own parser.
pub(super) fn format(format: ToolFormat) -> &'static Format {
    match format {
        ToolFormat::None | ToolFormat::Harmony => &NONE,
        ToolFormat::Hermes => &HERMES,
        ToolFormat::Qwen3Coder => &QWEN3_CODER,
        ToolFormat::Llama3Json => &LLAMA3_JSON,
        ToolFormat::Llama4Pythonic => &LLAMA4_PYTHONIC,
        ToolFormat::Mistral => &MISTRAL,
        ToolFormat::Gemma3 => &GEMMA3,
        ToolFormat::FunctionGemma => &FUNCTION_GEMMA_FORMAT,
        ToolFormat::Gemma4 => &GEMMA4_FORMAT,
        ToolFormat::Phi4Mini => &PHI4_MINI,
        ToolFormat::DeepSeekV3 => &DEEPSEEK_V3,
        ToolFormat::DeepSeekV31 => &DEEPSEEK_V31,
        ToolFormat::DeepSeekV32 => &DEEPSEEK_V32,
        ToolFormat::Glm4 => &GLM4,
        ToolFormat::KimiK2 => &KIMI_K2,
        ToolFormat::Granite => &GRANITE,
        ToolFormat::CommandR => &COMMAND_R,
        ToolFormat::CommandR7b => &COMMAND_R7B,
        ToolFormat::FunctionaryV31 => &FUNCTIONARY_V31,
        ToolFormat::FunctionaryV32 => &FUNCTIONARY_V32,
        ToolFormat::Nemotron => &NEMOTRON,
        ToolFormat::SeedOss => &SEED_OSS,
        ToolFormat::MiniMaxM1 => &MINIMAX_M1,
        ToolFormat::MiniMaxM2 => &MINIMAX_M2,
        ToolFormat::Lfm2 => &LFM2,
        ToolFormat::FireFunction => &FIRE_FUNCTION,
        ToolFormat::Json => &JSON,
    }
}

/// Markers of reasoning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thought {
    pub(super) open: &'static [&'static str],
    pub(super) close: &'static [&'static str],
    /// Texts around the answer that are not part of it.
    pub(super) dropped: &'static [&'static str],
}

/// The markers of a format; empty for Harmony.
pub(super) fn thought(format: ReasoningFormat) -> Thought {
    let (open, close, dropped): (&[&str], &[&str], &[&str]) = match format {
        ReasoningFormat::None | ReasoningFormat::Harmony => (&[], &[], &[]),
        ReasoningFormat::Think => (&["<think>"], &["</think>"], &[]),
        ReasoningFormat::Mistral => (&["[THINK]"], &["[/THINK]"], &[]),
        ReasoningFormat::SeedOss => (&["<seed:think>"], &["</seed:think>"], &[]),
        ReasoningFormat::CommandR7b => (&["<|START_THINKING|>"], &["<|END_THINKING|>"], &[]),
        ReasoningFormat::Granite => (
            &["<think>", "Here is my thought process:", "Here's my thought process:"],
            &["</think>", "Here is my response:", "Here's my response:"],
            &["<response>", "</response>"],
        ),
        ReasoningFormat::Gemma4 => (&["<|channel>thought"], &["<channel|>"], &[]),
    };
    Thought { open, close, dropped }
}
