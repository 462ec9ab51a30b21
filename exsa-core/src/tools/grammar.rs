//! Constraints on tool calls: the syntax of a call, with arguments that match the tool's JSON schema.

use super::parameters::{self, Parameter};
use super::schema::{Tool, Types};
use super::{GrammarOptions, ReasoningFormat, ToolChoice, ToolFormat};
use crate::chat::Json;
use crate::constraint::{Constraint, ConstraintError, PlainString, Trigger, checked_json};
use crate::tokenizer::Tokenizer;
use std::fmt::Write;

/// The constraint on the tool calls of an answer; `None` if the choice or the format allows no calls.
///
/// With [`ToolChoice::Required`] and [`ToolChoice::Named`], the answer consists of calls, after optional
/// reasoning; with [`ToolChoice::Auto`], it is unconstrained up to the text that begins a call. Arguments
/// match the schemas of `tools` (in OpenAI's format) by llguidance's rules. `tokenizer` determines which
/// markers are control tokens.
///
/// # Errors
///
/// A schema has an unsupported keyword.
pub fn call_constraint(
    format: ToolFormat,
    tools: &[Json],
    choice: &ToolChoice,
    options: GrammarOptions,
    tokenizer: &dyn Tokenizer,
) -> Result<Option<Constraint>, ConstraintError> {
    let chosen = |tool: &Tool<'_>| match choice {
        ToolChoice::Named(name) => tool.name() == Some(name.as_str()),
        _ => tool.name().is_some(),
    };
    let tools: Vec<Tool<'_>> = tools.iter().map(Tool::new).filter(chosen).collect();
    if tools.is_empty() || *choice == ToolChoice::None {
        return Ok(None);
    }
    let Some(shape) = Shape::of(format, tokenizer) else { return Ok(None) };
    let forced = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
    let controls = tokenizer.control_tokens();
    let mut lark = Lark { source: String::new(), rules: 0, controls, error: None };
    // Longer texts first, so that they are matched before shorter texts that they contain.
    lark.controls.sort_by_key(|(_, text)| std::cmp::Reverse(text.len()));
    let calls: Vec<String> = tools.iter().filter_map(|tool| lark.call(&shape, *tool)).collect();
    let begin = if options.begun { "" } else { shape.begin };
    let (begin, separator, end) =
        (lark.literal(begin), lark.literal(shape.separator), lark.literal(shape.end));
    let more = if options.parallel { format!(" ({separator} call)*") } else { String::new() };
    let space = if options.in_reasoning && forced { "SPACE? " } else { "" };
    let thought =
        if forced && !options.in_reasoning { lark.thought(options.reasoning) } else { String::new() };
    let mut source =
        format!("start: {space}{thought}{begin} call{more} {end}\ncall: {}\n", calls.join(" | "));
    if space.len() + thought.len() > 0 {
        source.push_str("SPACE: /[ \\n]{1,4}/\n");
    }
    source.push_str(&lark.source);
    if let Some(error) = lark.error {
        return Err(error);
    }
    let mut constraint = Constraint::lark(source);
    constraint.trusted = true;
    if !forced {
        constraint = constraint.trigger(Trigger::text(shape.trigger));
    }
    if options.in_reasoning {
        constraint.reasoning_end = options.reasoning.and_then(end_of).map(str::to_owned);
    }
    Ok(Some(constraint))
}

fn markers(format: ReasoningFormat) -> Option<(&'static str, &'static str)> {
    match format {
        ReasoningFormat::None => None,
        ReasoningFormat::Think | ReasoningFormat::Granite => Some(("<think>", "</think>")),
        ReasoningFormat::Mistral => Some(("[THINK]", "[/THINK]")),
        ReasoningFormat::SeedOss => Some(("<seed:think>", "</seed:think>")),
        ReasoningFormat::CommandR7b => Some(("<|START_THINKING|>", "<|END_THINKING|>")),
        ReasoningFormat::Gemma4 => Some(("<|channel>thought", "<channel|>")),
        ReasoningFormat::Harmony => Some(("<|channel|>analysis<|message|>", "<|end|><|start|>assistant")),
    }
}

fn end_of(format: ReasoningFormat) -> Option<&'static str> {
    markers(format).map(|(_, end)| end)
}

/// Texts around the calls of a format.
struct Shape {
    begin: &'static str,
    /// Text that begins calls in free text. The grammar begins with it.
    trigger: &'static str,
    separator: &'static str,
    end: &'static str,
    call: Call,
}

/// Form of a call; `NAME` is replaced by the tool's name.
enum Call {
    /// Text before and after the arguments, a JSON object.
    Json(&'static str, &'static str),
    /// Head, parameters between `key_open`, `key_close` and `value_close`, and tail. With `types`, the text
    /// after the key tells whether the value is a string.
    Tags {
        head: &'static str,
        open: &'static str,
        close: &'static str,
        end: &'static str,
        tail: &'static str,
        types: bool,
        /// Whether the parser drops a line break at both ends of a value, although the grammar has none
        /// there.
        trimmed: bool,
    },
    /// Head, assignment, separator, quote of strings (empty for JSON's) and tail.
    Literals {
        head: &'static str,
        assign: &'static str,
        separator: &'static str,
        quote: &'static str,
        tail: &'static str,
    },
}

const PYTHON: Call = Call::Literals { head: "NAME(", assign: "=", separator: ", ", quote: "", tail: ")" };

const OBJECT: Call = Call::Json("{\"name\": \"NAME\", \"arguments\": ", "}");

const PARAMETERS: Call = Call::Json("{\"name\": \"NAME\", \"parameters\": ", "}");

impl Shape {
    fn of(format: ToolFormat, tokenizer: &dyn Tokenizer) -> Option<Self> {
        let shape = |begin, separator, end, call| Self { begin, trigger: begin, separator, end, call };
        // Formats without a start marker.
        let bare = |trigger, separator, end, call| Self { begin: "", trigger, separator, end, call };
        Some(match format {
            ToolFormat::None => return None,
            ToolFormat::Hermes => bare(
                "<tool_call>",
                "\n",
                "",
                Call::Json("<tool_call>\n{\"name\": \"NAME\", \"arguments\": ", "}\n</tool_call>"),
            ),
            ToolFormat::Qwen3Coder => bare(
                "<tool_call>",
                "\n",
                "",
                Call::Tags {
                    head: "<tool_call>\n<function=NAME>\n",
                    open: "<parameter=",
                    close: ">\n",
                    end: "\n</parameter>\n",
                    tail: "</function>\n</tool_call>",
                    types: false,
                    trimmed: false,
                },
            ),
            ToolFormat::Llama3Json => bare("{\"name\": \"", "; ", "", PARAMETERS),
            ToolFormat::Llama4Pythonic | ToolFormat::Gemma3 => shape("[", ", ", "]", PYTHON),
            ToolFormat::Mistral if has_control(tokenizer, "[ARGS]") => {
                bare("[TOOL_CALLS]", "", "", Call::Json("[TOOL_CALLS]NAME[ARGS]", ""))
            }
            ToolFormat::Mistral => shape("[TOOL_CALLS][", ", ", "]", OBJECT),
            ToolFormat::FunctionGemma => bare(
                "<start_function_call>",
                "",
                "",
                Call::Literals {
                    head: "<start_function_call>call:NAME{",
                    assign: ":",
                    separator: ",",
                    quote: "<escape>",
                    tail: "}<end_function_call>",
                },
            ),
            ToolFormat::Gemma4 => bare(
                "<|tool_call>",
                "",
                "",
                Call::Literals {
                    head: "<|tool_call>call:NAME{",
                    assign: ":",
                    separator: ",",
                    quote: "<|\"|>",
                    tail: "}<tool_call|>",
                },
            ),
            ToolFormat::Phi4Mini => shape("<|tool_call|>[", ", ", "]<|/tool_call|>", OBJECT),
            ToolFormat::DeepSeekV3 => shape(
                "<｜tool▁calls▁begin｜>",
                "\n",
                "<｜tool▁calls▁end｜>",
                Call::Json(
                    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n",
                    "\n```<｜tool▁call▁end｜>",
                ),
            ),
            ToolFormat::DeepSeekV31 => shape(
                "<｜tool▁calls▁begin｜>",
                "",
                "<｜tool▁calls▁end｜>",
                Call::Json("<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
            ),
            ToolFormat::DeepSeekV32 => shape(
                "<｜DSML｜function_calls>\n",
                "",
                "</｜DSML｜function_calls>",
                Call::Tags {
                    head: "<｜DSML｜invoke name=\"NAME\">\n",
                    open: "<｜DSML｜parameter name=\"",
                    close: "\" string=\"",
                    end: "</｜DSML｜parameter>\n",
                    tail: "</｜DSML｜invoke>\n",
                    types: true,
                    trimmed: false,
                },
            ),
            ToolFormat::Glm4 => bare(
                "<tool_call>",
                "\n",
                "",
                Call::Tags {
                    head: "<tool_call>NAME\n",
                    open: "<arg_key>",
                    close: "</arg_key>\n<arg_value>",
                    end: "</arg_value>\n",
                    tail: "</tool_call>",
                    types: false,
                    trimmed: false,
                },
            ),
            ToolFormat::KimiK2 => shape(
                "<|tool_calls_section_begin|>",
                "",
                "<|tool_calls_section_end|>",
                Call::Json(
                    "<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>",
                    "<|tool_call_end|>",
                ),
            ),
            ToolFormat::Harmony => bare(
                "<|channel|>commentary to=functions.",
                "<|call|><|start|>assistant",
                "",
                Call::Json("<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>", ""),
            ),
            ToolFormat::Granite => shape("<|tool_call|>[", ", ", "]", OBJECT),
            ToolFormat::CommandR => shape(
                "Action: ```json\n[",
                ", ",
                "]```",
                Call::Json("{\"tool_name\": \"NAME\", \"parameters\": ", "}"),
            ),
            ToolFormat::CommandR7b => shape(
                "<|START_ACTION|>[\n    ",
                ",\n    ",
                "\n]<|END_ACTION|>",
                Call::Json("{\"tool_call_id\": \"INDEX\", \"tool_name\": \"NAME\", \"parameters\": ", "}"),
            ),
            ToolFormat::FunctionaryV31 => {
                bare("<function=", "", "", Call::Json("<function=NAME>", "</function>"))
            }
            ToolFormat::FunctionaryV32 => shape(">>>", ">>>", "", Call::Json("NAME\n", "")),
            ToolFormat::Nemotron => shape("<TOOLCALL>[", ", ", "]</TOOLCALL>", OBJECT),
            ToolFormat::SeedOss => bare(
                "<seed:tool_call>",
                "\n",
                "",
                Call::Tags {
                    head: "<seed:tool_call>\n<function=NAME>\n",
                    open: "<parameter=",
                    close: ">",
                    end: "</parameter>\n",
                    tail: "</function>\n</seed:tool_call>",
                    types: false,
                    trimmed: true,
                },
            ),
            ToolFormat::MiniMaxM1 => shape("<tool_calls>\n", "\n", "\n</tool_calls>", OBJECT),
            ToolFormat::MiniMaxM2 => shape(
                "<minimax:tool_call>\n",
                "",
                "</minimax:tool_call>",
                Call::Tags {
                    head: "<invoke name=\"NAME\">\n",
                    open: "<parameter name=\"",
                    close: "\">",
                    end: "</parameter>\n",
                    tail: "</invoke>\n",
                    types: false,
                    trimmed: true,
                },
            ),
            ToolFormat::Lfm2 => shape("<|tool_call_start|>[", ", ", "]<|tool_call_end|>", PYTHON),
            ToolFormat::FireFunction => shape(" functools[", ", ", "]", OBJECT),
            ToolFormat::Json => bare("{\"name\": \"", ", ", "", OBJECT),
        })
    }
}

fn has_control(tokenizer: &dyn Tokenizer, text: &str) -> bool {
    tokenizer.control_tokens().iter().any(|(_, control)| control == text)
}

/// Builder of a grammar's source, in llguidance's variant of Lark.
struct Lark {
    source: String,
    rules: usize,
    controls: Vec<(u32, String)>,
    /// The first error of a schema.
    error: Option<ConstraintError>,
}

impl Lark {
    /// The name of a rule for the calls of a tool.
    fn call(&mut self, shape: &Shape, tool: Tool<'_>) -> Option<String> {
        let name = tool.name()?;
        let any = Json::from_iter([("type", Json::from("object"))]);
        let schema = tool.schema().unwrap_or(&any);
        let body = match &shape.call {
            Call::Json(before, after) => {
                let (before, after) = (self.head(before, name), self.literal(after));
                let arguments = self.json(schema);
                format!("{before} {arguments} {after}")
            }
            Call::Tags { head, open, close, end, tail, types, trimmed } => {
                let mut body = self.head(head, name);
                for parameter in self.parameters(schema) {
                    let value = self.tag_value(&parameter, end, *types, *trimmed);
                    let key = self.literal(&format!("{open}{}{close}", parameter.name));
                    let _ = write!(body, " ({key} {value}){}", if parameter.required { "" } else { "?" });
                }
                format!("{body} {}", self.literal(tail))
            }
            Call::Literals { head, assign, separator, quote, tail } => {
                let head = self.head(head, name);
                let parameters = self.parameters(schema).into_iter();
                let parts: Vec<(String, bool)> = parameters
                    .map(|parameter| {
                        let key = self.literal(&format!("{}{assign}", parameter.name));
                        (format!("{key} {}", self.literal_value(&parameter, quote)), parameter.required)
                    })
                    .collect();
                let separator = self.literal(separator);
                let arguments = self.list(&parts, &separator);
                format!("{head} {arguments} {}", self.literal(tail))
            }
        };
        Some(self.rule(&body))
    }

    /// Items in order, some of them optional, with separators between the present items.
    fn list(&mut self, items: &[(String, bool)], separator: &str) -> String {
        // The rest of the list after each item, built from the last item on.
        let mut rest = String::new();
        let mut first = Vec::new();
        for (item, required) in items.iter().rev() {
            first.push((format!("{item} {rest}"), *required));
            let body = format!("{separator} {item} {rest}");
            let skipped = if *required { String::new() } else { format!(" | ({rest})") };
            rest = if *required || rest.is_empty() {
                let one = self.rule(&body);
                if *required { one } else { format!("({one})?") }
            } else {
                self.rule(&format!("{body}{skipped}"))
            };
        }
        // The list can begin with any item that has only optional items before it.
        let mut begins = Vec::new();
        let mut may_be_empty = true;
        for (begin, required) in first.into_iter().rev() {
            begins.push(begin);
            if required {
                may_be_empty = false;
                break;
            }
        }
        match begins.is_empty() {
            true => String::new(),
            false => format!("({}){}", begins.join(" | "), if may_be_empty { "?" } else { "" }),
        }
    }

    fn parameters<'a>(&mut self, schema: &'a Json) -> Vec<Parameter<'a>> {
        let checked = checked_json(schema).and_then(|_| parameters::of(schema));
        self.kept(checked).unwrap_or_default()
    }

    /// A value between tags, and the text that ends it.
    fn tag_value(&mut self, parameter: &Parameter<'_>, end: &str, types: bool, trimmed: bool) -> String {
        let schema = &parameter.schema;
        let string = Types::of(schema, schema) == Types::STRING;
        let typed = match (types, string) {
            (false, _) => String::new(),
            (true, true) => format!("{} ", self.literal("true\">")),
            (true, false) => format!("{} ", self.literal("false\">")),
        };
        let value = match string {
            true => self.plain(parameter, end, trimmed),
            false => format!("{} {}", self.json(schema), self.literal(end)),
        };
        format!("{typed}{value}")
    }

    fn literal_value(&mut self, parameter: &Parameter<'_>, quote: &str) -> String {
        let schema = &parameter.schema;
        if quote.is_empty() || Types::of(schema, schema) != Types::STRING {
            return self.json(schema);
        }
        let open = self.literal(quote);
        format!("{open} {}", self.plain(parameter, quote, false))
    }

    /// A string as plain text, and the text that ends it. The string ends at the first occurrence of that
    /// text without its surrounding white space.
    fn plain(&mut self, parameter: &Parameter<'_>, end: &str, trimmed: bool) -> String {
        let path = format!("#/properties/{}", parameter.name);
        let text = PlainString::of(&parameter.schema, &parameter.schema, &path);
        let text = self.kept(text).unwrap_or_else(PlainString::any);
        let mut source = format!("({})", text.source);
        if trimmed {
            source.push_str(" & ~(/\\n(?s:.*)/) & ~(/(?s:.*)\\n/)");
        }
        let marker = end.trim();
        let behind = end.len() - end.find(marker).unwrap_or(0) - marker.len();
        let marker = quoted(marker);
        self.rules += 1;
        let name = format!("TEXT_{}", self.rules);
        let control = (0..end.len()).find(|at| {
            let rest = end.get(*at..).unwrap_or_default();
            self.controls.iter().any(|(_, control)| rest.starts_with(control.as_str()))
        });
        let Some(at) = control else {
            let early = format!("/(?s:.*)/ {marker} /(?s:.{{{},}})/", behind + 1);
            let _ = writeln!(self.source, "{name}: (({source}) {}) & ~({early})", quoted(end));
            return name;
        };
        // Text cannot contain control tokens.
        let (before, rest) = end.split_at(at);
        let rest = self.literal(rest);
        let source = format!("({source}) & ~(/(?s:.*)/ {marker} /(?s:.*)/)");
        if !before.is_empty() {
            let _ = writeln!(self.source, "{name}: ({source}) {}", quoted(before));
            return format!("{name} {rest}");
        }
        // The lexer does not match empty texts.
        let _ = writeln!(self.source, "{name}: {source} & /(?s:.+)/");
        format!("{name}{} {rest}", if text.nullable { "?" } else { "" })
    }

    /// The value; `None` on an error, of which the first is recorded.
    fn kept<T>(&mut self, result: Result<T, ConstraintError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }

    /// Any text up to `end`, and `end`.
    fn text_until(&mut self, end: &str) -> String {
        let literal = self.literal(end);
        if literal.starts_with("<[") {
            // Text cannot contain control tokens.
            let text = self.rule("/(?s:.*)/");
            return format!("{text} {literal}");
        }
        self.rules += 1;
        let name = format!("text_{}", self.rules);
        let _ = writeln!(self.source, "{name}[suffix={}]: /(?s:.*)/", quoted(end));
        name
    }

    /// Optional reasoning before calls.
    fn thought(&mut self, format: Option<ReasoningFormat>) -> String {
        let Some((open, close)) = format.and_then(markers) else { return String::new() };
        let (open, text) = (self.literal(open), self.text_until(close));
        format!("({open} {text} SPACE?)? ")
    }

    fn head(&mut self, head: &str, name: &str) -> String {
        // Names of tools are plain text, even if they look like a control token.
        let (before, after) = head.split_once("NAME").unwrap_or((head, ""));
        let mut body = self.indexed(before);
        let name = Json::from(name).to_string();
        let _ = write!(body, " {}", quoted(name.get(1..name.len() - 1).unwrap_or_default()));
        let after = self.indexed(after);
        let _ = write!(body, " {after}");
        body
    }

    /// A literal in which `INDEX` matches a number.
    fn indexed(&mut self, text: &str) -> String {
        match text.split_once("INDEX") {
            Some((before, after)) => {
                format!("{} /[0-9]{{1,3}}/ {}", self.literal(before), self.literal(after))
            }
            None => self.literal(text),
        }
    }

    fn json(&mut self, schema: &Json) -> String {
        let checked = self.kept(checked_json(schema)).unwrap_or_default();
        self.rule(&format!("%json {checked}"))
    }

    fn rule(&mut self, body: &str) -> String {
        self.rules += 1;
        let name = format!("part_{}", self.rules);
        let _ = writeln!(self.source, "{name}: {body}");
        name
    }

    /// A literal, with the control tokens that it contains.
    fn literal(&self, text: &str) -> String {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            match self.controls.iter().find(|(_, control)| rest.starts_with(control.as_str())) {
                Some((id, control)) => {
                    if !plain.is_empty() {
                        parts.push(quoted(&std::mem::take(&mut plain)));
                    }
                    parts.push(format!("<[{id}]>"));
                    rest = rest.get(control.len()..).unwrap_or_default();
                }
                None => {
                    plain.push(c);
                    rest = rest.get(c.len_utf8()..).unwrap_or_default();
                }
            }
        }
        if !plain.is_empty() {
            parts.push(quoted(&plain));
        }
        parts.join(" ")
    }
}

/// A text as a Lark literal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
