//! Text to token ids and back.
//!
//! [`load()`] builds the tokenizer of a GGUF; a [`Vocabulary`] is the same in memory. [`TokenizerModel`]
//! lists the kinds. Byte-pair encoding also needs the name of a pre-tokenizer, which cuts text into words; a
//! name that is not known is refused, unless [`TokenizerOptions::pre_tokenizer`] names one to take in its
//! place.
//!
//! Ids of plain text are those that llama.cpp gives for the same file, with one exception: plain text never
//! becomes a control token or a byte token by merging, as it might there in an unlucky vocabulary. And `</s>`
//! is a control token only if the file does not say that it is a normal one.

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

/// Turns text into token ids, and ids into bytes.
///
/// # Contract
///
/// - `encode` never panics, whatever the text, and adds neither BOS nor EOS. Its time grows with the text's
///   length n as n log n at worst.
/// - `piece` of an id outside the vocabulary is empty.
/// - Concatenated pieces of `encode(text)` are the text's UTF-8 bytes, up to the normalisation and the
///   leading space that the vocabulary prescribes, and but for bytes that it has no token for.
pub trait Tokenizer: Send + Sync {
    /// Number of tokens.
    fn n_vocab(&self) -> usize;

    /// Appends the ids of `text` to `out`.
    fn encode(&self, text: &str, options: &EncodeOptions<'_>, out: &mut Vec<TokenId>);

    /// Appends the bytes that `id` stands for in running text to `out`; a control token stands for nothing.
    ///
    /// Bytes need not be whole characters. A leading space is kept;
    /// [`leading_space`](Self::leading_space) tells whether the first piece of a text has one too many.
    fn piece(&self, id: TokenId, out: &mut Vec<u8>);

    /// The text that the vocabulary lists for `id`, control tokens included, as in `<|im_end|>`.
    fn token_text(&self, id: TokenId) -> Option<&str>;

    /// Whether `id` is a control token, one that never shows in text.
    fn is_control(&self, id: TokenId) -> bool;

    /// The control tokens with their texts.
    fn control_tokens(&self) -> Vec<(TokenId, String)>;

    /// The user-defined tokens with their texts: they are text, and recognised in any text. None by default.
    fn user_defined_tokens(&self) -> Vec<(TokenId, String)> {
        Vec::new()
    }

    /// Whether `encode` puts a space before a text, so that a decoded text loses its first.
    fn leading_space(&self) -> bool;

    /// Ids with a role.
    fn special(&self) -> &SpecialIds;
}

/// How text is encoded.
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
    /// Whether control tokens written out in the text (`<|im_start|>`) become their ids. `false` by default:
    /// such text is then encoded as any other. User-defined tokens, which are text, are recognised either
    /// way.
    pub parse_special: bool,
    /// Byte offsets into the text, ascending, across which no control token is recognised even where
    /// `parse_special` is set, and no user-defined token: `<|im_start|>` at offset 10 is plain text if an
    /// offset in `11..22` is listed. Chat templates use it to keep what a user wrote from becoming such a
    /// token.
    pub protected_offsets: &'a [usize],
}

impl<'a> EncodeOptions<'a> {
    /// Sets whether control tokens written out in the text become their ids.
    #[must_use]
    pub fn parse_special(mut self, parse_special: bool) -> Self {
        self.parse_special = parse_special;
        self
    }

    /// Sets the byte offsets across which no control token is recognised, ascending.
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
    /// Separator between the two texts of a pair, where EOS is not enough.
    pub sep: Option<TokenId>,
    /// Padding.
    pub pad: Option<TokenId>,
    /// All ids that the file gives a role, with the defaults for those that it leaves out. Tokens of code
    /// models (`fim_…`) are found by their texts there.
    pub roles: RoleIds,
    /// Every token that ends an answer, EOS and EOT among them; sorted.
    pub end_of_generation: Vec<TokenId>,
    /// Whether a prompt starts with BOS.
    pub add_bos: bool,
    /// Whether a prompt ends with EOS.
    pub add_eos: bool,
    /// Whether the two texts of a pair are parted by the separator, after the EOS of the first.
    pub add_sep: bool,
}
