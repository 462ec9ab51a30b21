//! Kinds of tokenizer.

use super::error::TokenizerError;

/// Kinds of tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizerModel {
    /// SentencePiece's byte-pair encoding by scores; `llama` in files.
    #[default]
    Spm,
    /// Byte-pair encoding by merges; `gpt2` in files. The [pre-tokenizer](super::Vocabulary::pre) tells how
    /// words are cut and written.
    Bpe,
    /// WordPiece; `bert` in files.
    Wpm,
    /// SentencePiece's unigram model; `t5` in files.
    Ugm,
    /// The longest tokens from left to right; `rwkv` in files.
    Rwkv,
    /// The tokens of highest score in sum, with bytes for the rest; `plamo2` in files.
    Plamo2,
    /// Byte-pair encoding by merges of characters, with spaces written as U+2581; `gemma4` in files.
    Gemma4,
    /// Byte-pair encoding of words, without the white space between them; `whitespace` in files.
    Whitespace,
    /// Byte-pair encoding with stretches of DNA; `hybriddna` in files.
    HybridDna,
}

/// Names in files.
const NAMES: [(&str, TokenizerModel); 9] = [
    ("llama", TokenizerModel::Spm),
    ("gpt2", TokenizerModel::Bpe),
    ("bert", TokenizerModel::Wpm),
    ("t5", TokenizerModel::Ugm),
    ("rwkv", TokenizerModel::Rwkv),
    ("plamo2", TokenizerModel::Plamo2),
    ("gemma4", TokenizerModel::Gemma4),
    ("whitespace", TokenizerModel::Whitespace),
    ("hybriddna", TokenizerModel::HybridDna),
];

impl TokenizerModel {
    /// The kind that files call `name` in `tokenizer.ggml.model`.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::UnknownModel`], which lists the supported names.
    pub fn from_gguf(name: &str) -> Result<Self, TokenizerError> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, model)| *model).ok_or_else(|| {
            TokenizerError::UnknownModel {
                model: name.into(),
                supported: "llama, gpt2, bert, t5, rwkv, plamo2, gemma4, whitespace, hybriddna",
            }
        })
    }

    /// Whether words are joined by a list of merges.
    pub(super) fn has_merges(self) -> bool {
        matches!(self, Self::Bpe | Self::Gemma4 | Self::Whitespace | Self::HybridDna)
    }

    /// Whether tokens have scores.
    pub(super) fn has_scores(self) -> bool {
        matches!(self, Self::Spm | Self::Ugm | Self::Plamo2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = TokenizerModel::from_gguf("none").unwrap_err().to_string();
        for (name, model) in NAMES {
            assert_eq!(TokenizerModel::from_gguf(name).unwrap(), model);
            assert!(error.contains(name), "{error}");
        }
    }
}
