//! Kinds of tokenizer.

use super::error::TokenizerError;

/// Kinds of tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizerModel {
    /// SentencePiece's byte-pair encoding by scores; `llama` in files.
    #[default]
    Spm,
    /// Byte-level byte-pair encoding by merges; `gpt2` in files.
    Bpe,
    /// WordPiece; `bert` in files.
    Wpm,
}

impl TokenizerModel {
    /// The kind that files call `name` in `tokenizer.ggml.model`.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::UnknownModel`], which lists the supported names.
    pub fn from_gguf(name: &str) -> Result<Self, TokenizerError> {
        match name {
            "llama" => Ok(Self::Spm),
            "gpt2" => Ok(Self::Bpe),
            "bert" => Ok(Self::Wpm),
            _ => Err(TokenizerError::UnknownModel { model: name.into(), supported: "llama, gpt2, bert" }),
        }
    }
}
