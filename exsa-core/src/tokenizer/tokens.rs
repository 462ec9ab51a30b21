//! The tokens of a vocabulary: their texts in one block of memory, and their types.

use super::error::TokenizerError;
use super::keys;
use crate::token::TokenId;

/// Kind of a token, by `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TokenType {
    /// A piece of text.
    #[default]
    Normal = 1,
    /// Represents text that the vocabulary cannot express. Like a control token, it never appears in text.
    Unknown = 2,
    /// Structures a text (`<|im_start|>`) and never appears in it.
    Control = 3,
    /// A piece of text that is recognized before all others, anywhere in a text.
    UserDefined = 4,
    /// A piece of text that the model was not trained on.
    Unused = 5,
    /// One byte, written `<0x0A>`.
    Byte = 6,
}

impl TokenType {
    /// The type with the number `value` in files; unknown values are treated as [`Normal`](Self::Normal).
    pub fn from_gguf(value: i32) -> Self {
        match value {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }

    /// Whether tokens of this type never show in text.
    pub(super) fn is_hidden(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }

    /// Whether plain text may become a token of this type by merging or matching.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }
}

/// Texts and types by id.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    texts: String,
    /// End of each token's text in `texts`.
    ends: Vec<u32>,
    types: Vec<TokenType>,
}

/// Bytes in a token's text, at most. Real ones have less than 1,000; the limit keeps the time to look for the
/// longest match in bounds.
const TOKEN_BYTES_MAX: usize = 4096;
/// Bytes in the texts of all tokens, at most. Real vocabularies have less than a fifth of that; tables for
/// looking texts up take up to 40 times as much.
const TEXTS_BYTES_MAX: usize = 32 << 20;

impl Tokens {
    /// Stores `texts` with their `types`, or all as normal where `types` is empty.
    pub(super) fn new(texts: &[&str], types: &[TokenType]) -> Result<Self, TokenizerError> {
        // The largest id marks the absence of a token.
        let max = TokenId::MAX as usize - 1;
        if texts.is_empty() || texts.len() > max {
            return Err(TokenizerError::VocabularySize { key: keys::TOKENS, len: texts.len(), max });
        }
        check_length(keys::TOKEN_TYPE, types.len(), texts.len())?;
        if let Some((id, text)) = texts.iter().enumerate().find(|(_, text)| text.len() > TOKEN_BYTES_MAX) {
            let what = format!("the text of token {id} in {}", keys::TOKENS);
            return Err(TokenizerError::TokenLength { what, bytes: text.len(), max: TOKEN_BYTES_MAX });
        }
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        if bytes > TEXTS_BYTES_MAX {
            let what = format!("the list of texts in {}", keys::TOKENS);
            return Err(TokenizerError::TokenLength { what, bytes, max: TEXTS_BYTES_MAX });
        }
        let mut tokens = Self {
            texts: String::with_capacity(bytes),
            ends: Vec::with_capacity(texts.len()),
            types: if types.is_empty() { vec![TokenType::Normal; texts.len()] } else { types.to_vec() },
        };
        for text in texts {
            tokens.texts.push_str(text);
            tokens.ends.push(tokens.texts.len() as u32);
        }
        Ok(tokens)
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of `id`, as the vocabulary lists it.
    pub(super) fn text(&self, id: TokenId) -> Option<&str> {
        let i = id as usize;
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { *self.ends.get(i - 1)? };
        self.texts.get(start as usize..end as usize)
    }

    /// The type of `id`.
    pub(super) fn kind(&self, id: TokenId) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    /// Gives `id` another type.
    pub(super) fn set_kind(&mut self, id: TokenId, kind: TokenType) {
        if let Some(slot) = self.types.get_mut(id as usize) {
            *slot = kind;
        }
    }

    /// All tokens, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TokenId, &str, TokenType)> {
        let mut start = 0;
        let entries = (0..).zip(&self.ends).zip(&self.types);
        entries.map(move |((id, end), kind)| {
            let text = self.texts.get(start..*end as usize).unwrap_or_default();
            start = *end as usize;
            (id, text, *kind)
        })
    }
}

/// Refuses a list of `len` entries that goes with `n_vocab` tokens; an empty one stands for none.
pub(super) fn check_length(key: &'static str, len: usize, n_vocab: usize) -> Result<(), TokenizerError> {
    if len == 0 || len == n_vocab { Ok(()) } else { Err(TokenizerError::Length { key, len, n_vocab }) }
}
