//! Limits on grammars: on what a request may bring, and on the work that an answer may cause.
//!
//! Work is counted in llguidance's own units, not in time, so that a request is refused, or fails, on every
//! machine or on none.

use llguidance::api::ParserLimits;

/// Bytes of a grammar, with the schemas in it.
pub(crate) const GRAMMAR_BYTES_MAX: usize = 2 << 20;
/// Choices of [`Grammar::Choice`](super::Grammar::Choice).
pub(crate) const CHOICES_MAX: usize = 200_000;
/// Tags, triggers.
pub(crate) const TAGS_MAX: usize = 1024;
/// Bytes of a trigger.
pub(crate) const TRIGGER_BYTES_MAX: usize = 4096;
/// Brackets inside each other in a regular expression.
pub(crate) const REGEX_DEPTH_MAX: usize = 100;
/// Rules and terminals of a Lark or GBNF grammar.
pub(crate) const RULES_MAX: usize = 10_000;
/// Stack of the thread that compiles: rules and references may refer to each other in long chains.
pub(crate) const COMPILE_STACK_BYTES: usize = 64 << 20;
/// Compiled grammars of a model in the cache, in bytes.
pub(crate) const CACHE_BYTES_MAX: usize = 64 << 20;

/// Parts of masks that a compiled grammar keeps, in bytes: 16 KiB each with 128 thousand tokens.
pub(super) const MASK_BYTES_MAX: usize = 4 << 20;

/// llguidance's limits.
pub(crate) fn parser_limits() -> ParserLimits {
    ParserLimits {
        // A state takes 1 to 2 kB: 60 MB at most.
        max_lexer_states: 30_000,
        max_grammar_size: 200_000,
        // Messages would quote the answer.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}
