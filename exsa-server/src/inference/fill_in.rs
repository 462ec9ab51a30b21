//! Fill-in-the-middle prompts for code models.

use crate::http::error::ApiError;
use exsa_core::TokenId;
use exsa_core::tokenizer::{EncodeOptions, Tokenizer};

/// A text with a gap.
#[derive(Debug, Default)]
pub(crate) struct Gap {
    /// Text before the gap.
    pub(crate) prefix: String,
    /// Text after the gap.
    pub(crate) suffix: String,
    /// Related files: name and text.
    pub(crate) files: Vec<(String, String)>,
}

/// Names of the repository and of the file with the gap, if the model needs them and the request has none.
const REPOSITORY: &str = "myproject\n";
const FILE: &str = "filename\n";

impl Gap {
    /// Returns the tokens of a fill-in-the-middle prompt in llama-server's order: other files, prefix,
    /// suffix. Control tokens spelled out in the texts stay text.
    ///
    /// # Errors
    ///
    /// 400 if the model has no fill-in-the-middle tokens.
    pub(crate) fn prompt(&self, tokenizer: &dyn Tokenizer) -> Result<Vec<TokenId>, ApiError> {
        let special = tokenizer.special();
        let roles = &special.roles;
        let (Some(pre), Some(suf), Some(mid)) = (roles.fim_pre, roles.fim_suf, roles.fim_mid) else {
            let message = "the model cannot fill in text: its vocabulary lacks the tokens for it";
            return Err(ApiError::invalid(message).code("fill_in_not_supported"));
        };
        let mut tokens = Vec::new();
        let add = |text: &str, tokens: &mut Vec<TokenId>| {
            tokenizer.encode(text, &EncodeOptions::default(), tokens);
        };
        tokens.extend(special.bos.filter(|_| special.add_bos));
        if !self.files.is_empty() {
            if let (Some(repository), Some(_)) = (roles.fim_rep, roles.fim_sep) {
                tokens.push(repository);
                add(REPOSITORY, &mut tokens);
            }
            for (name, text) in &self.files {
                match roles.fim_sep {
                    Some(file) => {
                        tokens.push(file);
                        add(&format!("{name}\n"), &mut tokens);
                    }
                    None => add("\n\n--- snippet ---\n\n", &mut tokens),
                }
                add(text, &mut tokens);
            }
            if let Some(file) = roles.fim_sep {
                tokens.push(file);
                add(FILE, &mut tokens);
            }
        }
        tokens.push(pre);
        add(&self.prefix, &mut tokens);
        tokens.push(suf);
        add(&self.suffix, &mut tokens);
        tokens.push(mid);
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::scripted::ByteTokenizer;
    use exsa_core::tokenizer::{RoleIds, TokenType, TokenizerModel, Vocabulary};

    const TEXTS: [&str; 12] = [
        "a",
        "b",
        "m",
        "Ċ",
        "f",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        "<|repo_name|>",
        "<|file_sep|>",
        "<s>",
        "x",
    ];

    fn tokens(gap: &Gap, files: bool) -> Vec<TokenId> {
        let mut types = vec![TokenType::Normal; TEXTS.len()];
        types[5..11].fill(TokenType::Control);
        let mut texts = TEXTS.to_vec();
        if !files {
            texts[9] = "<other>";
        }
        let vocabulary = Vocabulary {
            model: TokenizerModel::Bpe,
            tokens: texts,
            types,
            ids: RoleIds { bos: Some(10), eos: Some(10), ..RoleIds::default() },
            add_bos: Some(true),
            ..Vocabulary::default()
        };
        gap.prompt(&*vocabulary.build().unwrap()).unwrap()
    }

    #[test]
    fn the_parts_stand_between_the_tokens_of_the_model() {
        let gap = Gap { prefix: "a".into(), suffix: "b".into(), files: Vec::new() };
        assert_eq!(tokens(&gap, true), [10, 5, 0, 6, 1, 7]);
        let gap = Gap { files: vec![("f".into(), "x".into())], ..gap };
        let with_files = tokens(&gap, true);
        assert_eq!(with_files[..2], [10, 8]);
        let file = with_files.iter().position(|token| *token == 9).unwrap();
        assert_eq!(with_files[file..file + 4], [9, 4, 3, 11]);
        assert_eq!(with_files[with_files.len() - 5..], [5, 0, 6, 1, 7]);
        let without = tokens(&gap, false);
        assert!(!without.contains(&9) && without.contains(&11));
    }

    #[test]
    fn a_model_without_such_tokens_cannot() {
        let error = Gap::default().prompt(&ByteTokenizer::new()).unwrap_err();
        assert_eq!(error.json()["error"]["code"], "fill_in_not_supported");
    }
}
