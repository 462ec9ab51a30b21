//! Errors of building a tokenizer.

use crate::token::TokenId;

/// Reason why the tokenizer of a model cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The metadata holds a value of the wrong type, or lacks one.
    #[error(transparent)]
    Metadata(#[from] crate::gguf::GgufError),
    /// The kind of tokenizer is unknown.
    #[error("unknown tokenizer model '{model}' (supported: {supported})")]
    UnknownModel {
        /// Value of `tokenizer.ggml.model`.
        model: String,
        /// Values that are supported.
        supported: &'static str,
    },
    /// The pre-tokenizer is unknown. There is no default, since another pre-tokenizer would silently produce
    /// wrong ids.
    #[error(
        "unknown pre-tokenizer '{pre}'; TokenizerOptions::pre_tokenizer names another, of those that are supported: \
         {supported}"
    )]
    UnknownPreTokenizer {
        /// Value of `tokenizer.ggml.pre`.
        pre: String,
        /// Values that are supported.
        supported: String,
    },
    /// The vocabulary is empty, or larger than the range of ids.
    #[error("{key} has {len} entries, but 1 to {max} are allowed")]
    VocabularySize {
        /// Key of the list.
        key: &'static str,
        /// Entries in the list.
        len: usize,
        /// Entries allowed.
        max: usize,
    },
    /// A token's text is longer than any real one, or all texts together are.
    #[error("{what} has {bytes} bytes, but {max} are allowed")]
    TokenLength {
        /// The token, or all.
        what: String,
        /// Bytes of its text.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A list has a different length than the vocabulary.
    #[error("{key} has {len} entries for a vocabulary of {n_vocab} tokens")]
    Length {
        /// Key of the list.
        key: &'static str,
        /// Entries in the list.
        len: usize,
        /// Tokens in the vocabulary.
        n_vocab: usize,
    },
    /// A score is not a number.
    #[error("{key}: the score of token {token} is not a number")]
    Score {
        /// Key of the list.
        key: &'static str,
        /// The token.
        token: TokenId,
    },
    /// A merge does not consist of two tokens that form a third.
    #[error("{key}: entry {index} ('{merge}') {problem}")]
    Merge {
        /// Key of the list.
        key: &'static str,
        /// Index in the list.
        index: usize,
        /// The entry, shortened if it is long.
        merge: String,
        /// The problem.
        problem: &'static str,
    },
    /// The map that normalizes characters is damaged.
    #[error("{key}: the map of {bytes} bytes {problem}")]
    Charsmap {
        /// Key of the map.
        key: &'static str,
        /// Bytes of the map.
        bytes: usize,
        /// The problem.
        problem: &'static str,
    },
    /// A key that this vocabulary requires is missing.
    #[error("{key} is missing: {why}")]
    Missing {
        /// Key of what is missing.
        key: &'static str,
        /// Why it is needed.
        why: &'static str,
    },
}
