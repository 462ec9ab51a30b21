//! Text to token ids and back.
//!
//! [`load()`] builds the tokenizer of a GGUF file, [`Vocabulary::build`] that of a vocabulary in memory.
//! [`TokenizerModel`] lists the kinds. Byte-pair encoding also needs the name of a pre-tokenizer, which
//! splits text into words; an unknown name is refused, unless [`TokenizerOptions::pre_tokenizer`] names
//! another.
//!
//! The ids of plain text equal those of llama.cpp for the same file, with two exceptions: plain text never
//! becomes a control token or a byte token by merging, which is possible there with some vocabularies; and
//! `</s>` is a control token unless the file declares it as a normal token.

mod alphabet;
mod bpe;
mod charsmap;
mod dna;
mod encoder;
mod error;
mod keys;
mod load;
mod merge;
mod model;
mod options;
mod plamo2;
mod pre;
mod prompt;
mod role_ids;
mod roles;
mod rwkv;
mod special;
mod spm;
mod text_index;
mod tokens;
pub(crate) mod trie;
mod ugm;
pub(crate) mod unicode;
mod vocabulary;
mod wpm;

pub use error::TokenizerError;
pub use load::{load, load_with};
pub use model::TokenizerModel;
pub use options::TokenizerOptions;
pub use prompt::{encode_prompt, encode_whole};
pub use role_ids::RoleIds;
pub use tokens::TokenType;
pub use vocabulary::Vocabulary;

#[cfg(test)]
mod tests;

use crate::token::TokenId;

/// Converts text to token ids, and ids to bytes.
///
/// # Contract
///
/// - `encode` never panics, whatever the text, and adds neither BOS nor EOS. Its time grows with the text's
///   length n as n log n at worst.
/// - `piece` of an id outside the vocabulary is empty.
/// - Concatenated pieces of `encode(text)` are the text's UTF-8 bytes, apart from the vocabulary's
///   normalization and leading space, and from bytes for which it has no token.
pub trait Tokenizer: Send + Sync {
    /// Number of tokens.
    fn n_vocab(&self) -> usize;

    /// Appends the ids of `text` to `out`.
    fn encode(&self, text: &str, options: &EncodeOptions<'_>, out: &mut Vec<TokenId>);

    /// Appends the bytes of `id` in running text to `out`; a control token has none.
    ///
    /// The bytes need not be whole characters. A leading space is kept;
    /// [`leading_space`](Self::leading_space) tells whether the first piece of a text has an extra space.
    fn piece(&self, id: TokenId, out: &mut Vec<u8>);

    /// The text that the vocabulary lists for `id`, control tokens included, as in `<|im_end|>`.
    fn token_text(&self, id: TokenId) -> Option<&str>;

    /// Whether `id` is a control token, which never appears in text.
    fn is_control(&self, id: TokenId) -> bool;

    /// The control tokens with their texts.
    fn control_tokens(&self) -> Vec<(TokenId, String)>;

    /// The user-defined tokens with their texts: they are text, and recognised in any text. None by default.
    fn user_defined_tokens(&self) -> Vec<(TokenId, String)> {
        Vec::new()
    }

    /// Whether `encode` prepends a space to a text, which must be removed from decoded text.
    fn leading_space(&self) -> bool;

    /// Token ids with a role, such as BOS and EOS.
    fn special(&self) -> &SpecialIds;
}

/// Options for encoding text.
///
/// ```
/// use exsa_core::tokenizer::EncodeOptions;
///
/// let options = EncodeOptions::default().parse_special(true).protected_offsets(&[11]);
/// assert!(options.parse_special);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct EncodeOptions<'a> {
    /// Whether control tokens written out in the text (`<|im_start|>`) are encoded as control tokens.
    /// `false`, the default, encodes them like any other text. User-defined tokens, which are text, are
    /// always recognized.
    pub parse_special: bool,
    /// Byte offsets into the text, ascending, that no recognized control token or user-defined token may
    /// contain, even with `parse_special`: `<|im_start|>` at offset 10 is plain text if an offset in `11..22`
    /// is listed. Used for chat templates, to prevent text of messages from becoming such tokens.
    pub protected_offsets: &'a [usize],
}

impl<'a> EncodeOptions<'a> {
    /// Sets whether control tokens written out in the text are encoded as control tokens.
    #[must_use]
    pub fn parse_special(mut self, parse_special: bool) -> Self {
        self.parse_special = parse_special;
        self
    }

    /// Sets the byte offsets, ascending, that no recognized control token may contain.
    #[must_use]
    pub fn protected_offsets(mut self, offsets: &'a [usize]) -> Self {
        self.protected_offsets = offsets;
        self
    }
}

/// Token ids with a role, each below `n_vocab`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Beginning of sequence.
    pub bos: Option<TokenId>,
    /// End of sequence.
    pub eos: Option<TokenId>,
    /// Unknown token.
    pub unk: Option<TokenId>,
    /// Separator between the two texts of a pair, if used in addition to EOS.
    pub sep: Option<TokenId>,
    /// Padding.
    pub pad: Option<TokenId>,
    /// All roles of the file, with defaults for missing ones. Tokens of code models (`fim_…`) are found by
    /// their texts there.
    pub roles: RoleIds,
    /// All end-of-generation tokens, including EOS and EOT; sorted.
    pub end_of_generation: Vec<TokenId>,
    /// Whether a prompt starts with BOS.
    pub add_bos: bool,
    /// Whether a prompt ends with EOS.
    pub add_eos: bool,
    /// Whether the two texts of a pair are separated by the separator token, after the EOS of the first.
    pub add_sep: bool,
}
