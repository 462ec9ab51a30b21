//! A vocabulary in memory, from which a tokenizer is built.

use super::bpe::Bpe;
use super::encoder::{Algorithm, Encoder};
use super::error::TokenizerError;
use super::model::TokenizerModel;
use super::role_ids::RoleIds;
use super::roles::{self, AddedTokens};
use super::special::{SpecialTokens, Strip};
use super::spm::Spm;
use super::tokens::{TokenType, Tokens};
use super::wpm::{Normalizer, Wpm};
use super::{Tokenizer, keys, pre};
use crate::token::TokenId;
use std::sync::Arc;

/// All tokenizer data of a model file. Missing values have the default of the [`model`](Self::model); lists
/// are indexed by token id.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary<'a> {
    /// The kind of tokenizer.
    pub model: TokenizerModel,
    /// Pre-tokenizer, which splits text into words; byte-pair encoding only.
    pub pre: Option<&'a str>,
    /// Texts of the tokens, as the file writes them.
    pub tokens: Vec<&'a str>,
    /// Scores of the tokens, or empty if all are equal; SentencePiece only.
    pub scores: Vec<f32>,
    /// Types of the tokens, or empty if all are normal.
    pub types: Vec<TokenType>,
    /// Pairs of token texts with a space between them, the first to join first; byte-pair encoding only.
    pub merges: Vec<&'a str>,
    /// Ids with a role.
    pub ids: RoleIds,
    /// Whether prompts start with BOS.
    pub add_bos: Option<bool>,
    /// Whether prompts end with EOS.
    pub add_eos: Option<bool>,
    /// Whether prompts end with the separator; WordPiece only.
    pub add_sep: Option<bool>,
    /// Whether a space is prepended to a text; SentencePiece only, where it is the default.
    pub add_space_prefix: Option<bool>,
    /// Whether text is lowercased; WordPiece only, where it is the default.
    pub lowercase: Option<bool>,
    /// Whether accents are stripped from letters; WordPiece only. By default, if text is lowercased.
    pub strip_accents: Option<bool>,
    /// The model's name. For some models, it is the only indication that white space next to special tokens
    /// is dropped.
    pub name: &'a str,
}

impl Vocabulary<'_> {
    /// Builds the tokenizer.
    ///
    /// # Errors
    ///
    /// A part of the vocabulary is missing, contradicts another one, or exceeds a limit. The error names its
    /// key in a GGUF file.
    pub fn build(self) -> Result<Arc<dyn Tokenizer>, TokenizerError> {
        let mut tokens = Tokens::new(&self.tokens, &self.types)?;
        let pre = self.pre.filter(|pre| !pre.is_empty()).unwrap_or("default");
        let family = match self.model {
            TokenizerModel::Bpe => Some(pre::family(pre).ok_or_else(|| {
                TokenizerError::UnknownPreTokenizer { pre: pre.into(), supported: pre::supported() }
            })?),
            TokenizerModel::Spm | TokenizerModel::Wpm => None,
        };
        let default_bos = family.is_none_or(|family| family.default_bos);
        let add_bos = family.is_none_or(|family| family.add_bos);
        let ids = self.ids.clone().within(tokens.len()).or_default(self.model, default_bos, &tokens);
        let asked =
            AddedTokens { bos: self.add_bos, eos: self.add_eos, sep: self.add_sep, bos_default: add_bos };
        let special_ids = roles::resolve(self.model, ids, &asked, &mut tokens)?;
        let (algorithm, leading_space) = match family {
            Some(family) => (Algorithm::Bpe(Bpe::new(&tokens, &self.merges, family)?), false),
            None if self.model == TokenizerModel::Wpm => {
                (Algorithm::Wpm(self.wpm(&tokens, special_ids.unk)?), true)
            }
            None => {
                let spm = Spm::new(&tokens, &self.scores, special_ids.unk)?;
                (Algorithm::Spm(spm), self.add_space_prefix.unwrap_or(true))
            }
        };
        let special = SpecialTokens::new(&tokens, |text| self.strip(text));
        Ok(Arc::new(Encoder { tokens, special, algorithm, leading_space, special_ids }))
    }

    fn wpm(&self, tokens: &Tokens, unk: Option<TokenId>) -> Result<Wpm, TokenizerError> {
        let why = "words that the vocabulary does not cover must become something";
        let unk = unk.ok_or(TokenizerError::Missing { key: keys::UNK, why })?;
        let lowercase = self.lowercase.unwrap_or(true);
        let normalizer = Normalizer { lowercase, strip_accents: self.strip_accents.unwrap_or(lowercase) };
        Ok(Wpm::new(tokens, unk, normalizer))
    }

    /// On which side a special token swallows white space. Files do not tell; the models for which it matters
    /// are known by name.
    fn strip(&self, text: &str) -> Strip {
        let name = self.name.to_ascii_lowercase();
        let is_any = |names: &[&str], of: &str| names.iter().any(|name| of.contains(name));
        let keeps = || ["<unk>", "<s>", "<|endoftext|>"].contains(&text);
        if is_any(&["jina-v2-de", "jina-v2-es", "jina-v2-code"], self.pre.unwrap_or_default()) {
            if text == "<mask>" { Strip::Left } else { Strip::None }
        } else if is_any(&["phi-3", "phi3"], &name) {
            if keeps() { Strip::None } else { Strip::Right }
        } else if name.contains("modern-bert") && text == "[MASK]" {
            Strip::Left
        } else {
            Strip::None
        }
    }
}
