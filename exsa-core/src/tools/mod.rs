//! Tool calls and reasoning: parses the output of a model, and makes Rust functions available as tools.
//!
//! Models write tool calls and reasoning as text, in a format that depends on the model family. For a request
//! with tools, or for a model whose template supports reasoning, an [`OutputParser`] parses the output: the
//! stream then has [`Event::Reasoning`](crate::Event::Reasoning), [`Event::ToolCall`](crate::Event::ToolCall)
//! and [`Event::MalformedToolCall`](crate::Event::MalformedToolCall) in addition to tokens. [`ToolOptions`]
//! and [`ReasoningOptions`] control the parser. The formats are listed in `docs/tools.md`.
//!
//! Parsers need the feature `tool-parsers`, which is on by default. Without it, the types exist, but all
//! output is text.

#[cfg(feature = "tool-parsers")]
mod detect;
mod format;
#[cfg(all(feature = "tool-parsers", feature = "constraints"))]
mod grammar;
#[cfg(all(feature = "tool-parsers", not(feature = "constraints")))]
#[path = "grammar_disabled.rs"]
mod grammar;
#[cfg(feature = "tool-parsers")]
mod grammar_options;
mod options;
#[cfg(all(feature = "tool-parsers", feature = "constraints"))]
mod parameters;
#[cfg(feature = "tool-parsers")]
mod parser;
#[cfg(feature = "tool-parsers")]
pub(crate) mod schema;
#[cfg(feature = "serde")]
mod serde;
#[cfg(feature = "schema")]
mod tool_loop;
#[cfg(feature = "schema")]
mod toolbox;
#[cfg(feature = "schema")]
mod typed;

#[cfg(feature = "tool-parsers")]
pub use detect::{Detected, detect};
pub use format::{ReasoningFormat, ToolFormat, UnknownFormat};
#[cfg(feature = "tool-parsers")]
pub use grammar::call_constraint;
#[cfg(feature = "tool-parsers")]
pub use grammar_options::GrammarOptions;
pub use options::{ReasoningEffort, ReasoningOptions, ToolChoice, ToolOptions};
#[cfg(feature = "tool-parsers")]
pub use parser::{CALL_BYTES_MAX, Delta, OutputParser};
#[cfg(feature = "schema")]
pub use tool_loop::{ToolEvent, ToolLoop, ToolLoopError, ToolOutcome};
#[cfg(feature = "schema")]
pub use toolbox::{ToolError, Toolbox};
#[cfg(feature = "schema")]
pub use typed::AnswerError;
