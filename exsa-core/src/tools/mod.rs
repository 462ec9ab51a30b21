//! Tool calls and reasoning: from the output of a model to typed parts, and from Rust functions to tools.
//!
//! Models write calls and reasoning as text, each family in a format of its own. A request with tools, or for
//! a model whose template knows reasoning, has the output searched by an [`OutputParser`]: the stream then
//! has [`Event::Reasoning`](crate::Event::Reasoning), [`Event::ToolCall`](crate::Event::ToolCall) and
//! [`Event::MalformedToolCall`](crate::Event::MalformedToolCall) beside tokens. [`ToolOptions`] and
//! [`ReasoningOptions`] control it. The formats are listed in `docs/tools.md`.
//!
//! Parsers need the feature `tool-parsers`, on by default. Without it the types are there and all output is
//! text.

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
