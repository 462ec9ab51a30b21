//! A vocabulary in memory, from which a tokenizer is built.

use super::bpe::{Bpe, WhiteSpace};
use super::charsmap::Charsmap;
use super::dna::Dna;
use super::encoder::{Algorithm, Encoder};
use super::error::TokenizerError;
use super::model::TokenizerModel;
use super::plamo2::Plamo2;
use super::pre::Writing;
use super::role_ids::RoleIds;
use super::roles::{self, AddedTokens};
use super::rwkv::Rwkv;
use super::special::{SpecialTokens, Strip};
use super::spm::Spm;
use super::tokens::{TokenType, Tokens};
use super::ugm::{self, Ugm};
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
    /// Pre-tokenizer, which splits text into words; only for vocabularies with merges, and not with
    /// [`TokenizerModel::Gemma4`].
    pub pre: Option<&'a str>,
    /// Texts of the tokens, as the file writes them.
    pub tokens: Vec<&'a str>,
    /// Scores of the tokens, or empty if all are equal; SentencePiece and PLaMo 2 only.
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
    /// Whether a space is prepended to a text; SentencePiece only, where it is the default of
    /// [`TokenizerModel::Spm`].
    pub add_space_prefix: Option<bool>,
    /// Whether white space at the ends of a text is dropped and runs of it become one space;
    /// [`TokenizerModel::Ugm`] only.
    pub remove_extra_spaces: Option<bool>,
    /// SentencePiece's map that normalizes characters, or empty; [`TokenizerModel::Ugm`] only.
    pub charsmap: Vec<u8>,
    /// Whether text is lowercased; WordPiece, where it is the default, and [`TokenizerModel::Whitespace`].
    pub lowercase: Option<bool>,
    /// Whether accents are stripped from letters; WordPiece only. By default, if text is lowercased.
    pub strip_accents: Option<bool>,
    /// The model's name. For some models, it is the only indication that white space next to special tokens
    /// is dropped.
    pub name: &'a str,
    /// The model's architecture. Some are known to drop white space before the token of masked text.
    pub architecture: &'a str,
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
        let pre = if self.model == TokenizerModel::Gemma4 { "gemma4" } else { pre };
        let family = if self.model.has_merges() {
            Some(pre::family(pre).ok_or_else(|| TokenizerError::UnknownPreTokenizer {
                pre: pre.into(),
                supported: pre::supported(),
            })?)
        } else {
            None
        };
        let default_bos = family.is_none_or(|family| family.default_bos);
        let ids = self.ids.clone().within(tokens.len()).or_default(self.model, default_bos, &tokens);
        let special_ids = roles::resolve(self.model, ids, &self.added(family), &mut tokens)?;
        let (algorithm, leading_space) = match (family, self.model) {
            (Some(family), model) => {
                let white_space = match model {
                    TokenizerModel::Whitespace => {
                        // A pre-tokenizer of this name keeps the case unless the file says otherwise.
                        WhiteSpace::Dropped { lowercase: self.lowercase.unwrap_or(pre != "whitespace") }
                    }
                    _ => WhiteSpace::Kept,
                };
                let metaspace = matches!(family.writing, Writing::Characters { metaspace: true, .. });
                let bpe = Bpe::new(&tokens, &self.merges, family, white_space)?;
                let is_dna = model == TokenizerModel::HybridDna;
                let algorithm =
                    if is_dna { Algorithm::Dna(Dna::new(&tokens, bpe)) } else { Algorithm::Bpe(bpe) };
                (algorithm, metaspace)
            }
            (None, TokenizerModel::Wpm) => (Algorithm::Wpm(self.wpm(&tokens, special_ids.unk)?), true),
            (None, TokenizerModel::Ugm) => {
                let ugm = self.ugm(&tokens, special_ids.unk)?;
                (Algorithm::Ugm(ugm), self.add_space_prefix.unwrap_or(false))
            }
            (None, TokenizerModel::Rwkv) => (Algorithm::Rwkv(Rwkv::new(&tokens, special_ids.unk)), false),
            (None, TokenizerModel::Plamo2) => (Algorithm::Plamo2(Plamo2::new(&tokens, &self.scores)?), false),
            (None, _) => {
                let spm = Spm::new(&tokens, &self.scores, special_ids.unk)?;
                (Algorithm::Spm(spm), self.add_space_prefix.unwrap_or(true))
            }
        };
        let special = SpecialTokens::new(&tokens, |text| self.strip(text));
        Ok(Arc::new(Encoder { tokens, special, algorithm, leading_space, special_ids }))
    }

    /// Which tokens go around a text.
    fn added(&self, family: Option<pre::Family>) -> AddedTokens {
        let always = family.is_some_and(|family| family.always_bos).then_some(true);
        let asked = AddedTokens {
            bos: always.or(self.add_bos),
            eos: self.add_eos,
            sep: self.add_sep.or(family.is_some_and(|family| family.add_sep).then_some(true)),
            bos_default: family.is_none_or(|family| family.add_bos),
            eos_default: false,
        };
        match self.model {
            TokenizerModel::Ugm => AddedTokens { bos_default: false, eos_default: true, ..asked },
            TokenizerModel::Plamo2 => AddedTokens { bos_default: false, ..asked },
            // Nothing goes around texts of RWKV, whatever the file says.
            TokenizerModel::Rwkv => AddedTokens { bos: Some(false), eos: Some(false), ..asked },
            _ => asked,
        }
    }

    fn ugm(&self, tokens: &Tokens, unk: Option<TokenId>) -> Result<Ugm, TokenizerError> {
        let why = "characters that the vocabulary does not cover must become something";
        let unk = unk.ok_or(TokenizerError::Missing { key: keys::UNK, why })?;
        let normalizer = ugm::Normalizer {
            charsmap: Charsmap::new(&self.charsmap)?,
            add_space_prefix: self.add_space_prefix.unwrap_or(false),
            remove_extra_spaces: self.remove_extra_spaces.unwrap_or(false),
        };
        Ugm::new(tokens, &self.scores, unk, normalizer)
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
        let by_pre =
            is_any(&["jina-v2-de", "jina-v2-es", "jina-v2-code", "mmbert"], self.pre.unwrap_or_default());
        if by_pre || is_any(&["nomic-bert-moe", "jina-bert-v3"], self.architecture) {
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
