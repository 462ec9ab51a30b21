//! From the metadata of a GGUF to a tokenizer.

use super::keys;
use super::model::TokenizerModel;
use super::role_ids::RoleIds;
use super::vocabulary::Vocabulary;
use super::{TokenType, Tokenizer, TokenizerError};
use crate::gguf::Metadata;
use std::sync::Arc;

/// The tokenizer that `metadata` describes.
///
/// # Errors
///
/// [`TokenizerError`] names the key that is missing, has a wrong type or contradicts another one.
pub fn load(metadata: &Metadata) -> Result<Arc<dyn Tokenizer>, TokenizerError> {
    Vocabulary::from_metadata(metadata)?.build()
}

impl<'a> Vocabulary<'a> {
    /// The vocabulary that `metadata` describes, its texts borrowed from there.
    ///
    /// # Errors
    ///
    /// [`TokenizerError`] if a key is missing or has a wrong type; the consistency of the values is checked
    /// when the tokenizer is [built](Self::build).
    pub fn from_metadata(metadata: &'a Metadata) -> Result<Self, TokenizerError> {
        let model = TokenizerModel::from_gguf(metadata.require(keys::MODEL)?)?;
        let texts = |list: &'a [String]| list.iter().map(String::as_str).collect();
        // A number that does not fit into 32 bits is outside of every vocabulary, and treated as absent.
        let id = |key| Ok::<_, TokenizerError>(metadata.integer(key)?.and_then(|id| id.try_into().ok()));
        let flag = |key| metadata.get::<bool>(key);
        let types = metadata.get::<Vec<i32>>(keys::TOKEN_TYPE)?.unwrap_or_default();
        Ok(Self {
            model,
            pre: metadata.get(keys::PRE)?,
            tokens: texts(metadata.require(keys::TOKENS)?),
            scores: match model {
                TokenizerModel::Spm => metadata.get(keys::SCORES)?.unwrap_or_default(),
                TokenizerModel::Bpe | TokenizerModel::Wpm => Vec::new(),
            },
            types: types.into_iter().map(TokenType::from_gguf).collect(),
            merges: match model {
                TokenizerModel::Bpe => texts(metadata.require(keys::MERGES)?),
                TokenizerModel::Spm | TokenizerModel::Wpm => Vec::new(),
            },
            ids: RoleIds::read(id)?,
            add_bos: flag(keys::ADD_BOS)?,
            add_eos: flag(keys::ADD_EOS)?,
            add_sep: flag(keys::ADD_SEP)?,
            add_space_prefix: flag(keys::ADD_SPACE_PREFIX)?,
            lowercase: flag(keys::LOWERCASE)?,
            strip_accents: flag(keys::STRIP_ACCENTS)?,
            name: metadata.get_lossy(keys::NAME)?.unwrap_or_default(),
        })
    }
}
