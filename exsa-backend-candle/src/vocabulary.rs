//! The tokenizer that the metadata describe.

use exsa_core::error::LoadError;
use exsa_core::gguf::Metadata;
use exsa_core::tokenizer::{RoleIds, TokenType, Tokenizer, TokenizerModel, Vocabulary};
use std::sync::Arc;

/// Builds the tokenizer.
pub(crate) fn tokenizer(metadata: &Metadata) -> Result<Arc<dyn Tokenizer>, LoadError> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let texts = |name: &str| metadata.get::<&[String]>(&key(name));
    let borrowed = |texts: Option<&'_ [String]>| texts.unwrap_or_default().to_vec();
    let tokens = borrowed(texts("tokens")?);
    let merges = borrowed(texts("merges")?);
    let id = |name: &str| metadata.get::<u32>(&key(&format!("{name}_token_id")));
    let flag = |name: &str| metadata.get::<bool>(&key(name));
    let types = metadata.get::<Vec<i32>>(&key("token_type"))?.unwrap_or_default();
    let vocabulary = Vocabulary {
        model: TokenizerModel::from_gguf(metadata.require(&key("model"))?)?,
        pre: metadata.get(&key("pre"))?,
        tokens: tokens.iter().map(String::as_str).collect(),
        scores: metadata.get::<Vec<f32>>(&key("scores"))?.unwrap_or_default(),
        types: types.into_iter().map(TokenType::from_gguf).collect(),
        merges: merges.iter().map(String::as_str).collect(),
        ids: RoleIds {
            bos: id("bos")?,
            eos: id("eos")?,
            eot: id("eot")?,
            eom: id("eom")?,
            unk: id("unknown")?,
            sep: id("seperator")?,
            pad: id("padding")?,
            fim_pad: id("fim_pad")?,
            fim_rep: id("fim_rep")?,
            fim_sep: id("fim_sep")?,
        },
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_sep: flag("add_sep_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        name: metadata.get("general.name")?.unwrap_or_default(),
        ..Vocabulary::default()
    };
    Ok(vocabulary.build()?)
}
