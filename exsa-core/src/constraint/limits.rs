//! Limits on the grammars of requests, and on the work of matching an answer.
//!
//! Work is counted in llguidance's own units, not in time, so that a request is refused, or fails, on every
//! machine or on none.

use llguidance::api::ParserLimits;

/// Maximum bytes of a grammar, including the schemas in it.
pub(crate) const GRAMMAR_BYTES_MAX: usize = 2 << 20;
/// Maximum choices of [`Grammar::Choice`](super::Grammar::Choice).
pub(crate) const CHOICES_MAX: usize = 200_000;
/// Maximum tags, and maximum triggers.
pub(crate) const TAGS_MAX: usize = 1024;
/// Maximum bytes of a trigger.
pub(crate) const TRIGGER_BYTES_MAX: usize = 4096;
/// Maximum nesting of brackets in a regular expression.
pub(crate) const REGEX_DEPTH_MAX: usize = 100;
/// Maximum rules and terminals of a Lark or GBNF grammar.
pub(crate) const RULES_MAX: usize = 10_000;
/// Stack size of the compiling thread: rules and references may form long chains.
pub(crate) const COMPILE_STACK_BYTES: usize = 64 << 20;
/// Maximum bytes of a model's cached compiled grammars.
pub(crate) const CACHE_BYTES_MAX: usize = 64 << 20;

/// Maximum bytes of cached mask parts per compiled grammar; a part takes 16 KiB for a vocabulary of 128k
/// tokens.
pub(super) const MASK_BYTES_MAX: usize = 4 << 20;

/// llguidance's limits.
pub(crate) fn parser_limits() -> ParserLimits {
    ParserLimits {
        // A state takes 1 to 2 kB, so at most 60 MB.
        max_lexer_states: 30_000,
        max_grammar_size: 200_000,
        // Messages would quote the answer.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}
