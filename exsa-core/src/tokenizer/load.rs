//! From the metadata of a GGUF to a tokenizer.

use super::keys;
use super::model::TokenizerModel;
use super::role_ids::RoleIds;
use super::vocabulary::Vocabulary;
use super::{TokenType, Tokenizer, TokenizerError, TokenizerOptions};
use crate::gguf::Metadata;
use std::sync::Arc;

/// The pre-tokenizer whose files may lack merges.
const WITHOUT_MERGES: &str = "kimi-k2";

/// The tokenizer that `metadata` describes.
///
/// # Errors
///
/// [`TokenizerError`] names the key that is missing, has a wrong type or contradicts another one.
pub fn load(metadata: &Metadata) -> Result<Arc<dyn Tokenizer>, TokenizerError> {
    load_with(metadata, &TokenizerOptions::default())
}

/// The tokenizer that `metadata` describes, with `options`.
///
/// # Errors
///
/// As [`load()`]; and [`TokenizerError::UnknownPreTokenizer`] if the options name none.
pub fn load_with(
    metadata: &Metadata,
    options: &TokenizerOptions,
) -> Result<Arc<dyn Tokenizer>, TokenizerError> {
    let mut vocabulary = Vocabulary::from_metadata(metadata)?;
    vocabulary.pre = options.pre_tokenizer.as_deref().or(vocabulary.pre);
    vocabulary.build()
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
        let pre = metadata.get(keys::PRE)?;
        let types = metadata.get::<Vec<i32>>(keys::TOKEN_TYPE)?.unwrap_or_default();
        Ok(Self {
            model,
            pre,
            tokens: texts(metadata.require(keys::TOKENS)?),
            scores: if model.has_scores() {
                metadata.get(keys::SCORES)?.unwrap_or_default()
            } else {
                Vec::new()
            },
            types: types.into_iter().map(TokenType::from_gguf).collect(),
            merges: match metadata.get(keys::MERGES)? {
                Some(merges) if model.has_merges() => texts(merges),
                None if model.has_merges() && pre != Some(WITHOUT_MERGES) => {
                    texts(metadata.require(keys::MERGES)?)
                }
                _ => Vec::new(),
            },
            ids: RoleIds::read(id)?,
            add_bos: flag(keys::ADD_BOS)?,
            add_eos: flag(keys::ADD_EOS)?,
            add_sep: flag(keys::ADD_SEP)?,
            add_space_prefix: flag(keys::ADD_SPACE_PREFIX)?,
            remove_extra_spaces: flag(keys::REMOVE_EXTRA_SPACES)?,
            charsmap: if model == TokenizerModel::Ugm { charsmap(metadata)? } else { Vec::new() },
            lowercase: flag(keys::LOWERCASE)?,
            strip_accents: flag(keys::STRIP_ACCENTS)?,
            name: metadata.get_lossy(keys::NAME)?.unwrap_or_default(),
            architecture: metadata.get_lossy(keys::ARCHITECTURE)?.unwrap_or_default(),
        })
    }
}

/// The map that normalizes characters. Files hold it as bytes with or without a sign.
fn charsmap(metadata: &Metadata) -> Result<Vec<u8>, TokenizerError> {
    let bytes: Vec<i32> = metadata.get(keys::CHARSMAP)?.unwrap_or_default();
    Ok(bytes.into_iter().map(|byte| byte as u8).collect())
}
