//! The tokenizer that a vocabulary becomes.

use super::bpe::{self, Bpe};
use super::dna::Dna;
use super::plamo2::Plamo2;
use super::rwkv::{self, Rwkv};
use super::special::{Part, SpecialTokens};
use super::spm::{self, Spm};
use super::tokens::{TokenType, Tokens};
use super::ugm::Ugm;
use super::wpm::Wpm;
use super::{EncodeOptions, SpecialIds, Tokenizer};
use crate::token::TokenId;

/// How plain text becomes tokens.
pub(super) enum Algorithm {
    Spm(Spm),
    Bpe(Bpe),
    Wpm(Wpm),
    Ugm(Ugm),
    Rwkv(Rwkv),
    Plamo2(Plamo2),
    Dna(Dna),
}

/// A tokenizer built from a vocabulary.
pub(super) struct Encoder {
    pub(super) tokens: Tokens,
    pub(super) special: SpecialTokens,
    pub(super) algorithm: Algorithm,
    /// Whether a space is prepended to a text, and to text after a special token.
    pub(super) leading_space: bool,
    pub(super) special_ids: SpecialIds,
}

impl Tokenizer for Encoder {
    fn n_vocab(&self) -> usize {
        self.tokens.len()
    }

    fn encode(&self, text: &str, options: &EncodeOptions<'_>, out: &mut Vec<TokenId>) {
        let mut after_token = true;
        for part in self.special.part(text, options) {
            match part {
                Part::Token(id) => out.push(id),
                Part::Text(ref range) => {
                    let text = text.get(range.clone()).unwrap_or_default();
                    match &self.algorithm {
                        Algorithm::Spm(spm) => {
                            spm.encode(&self.tokens, text, self.leading_space && after_token, out);
                        }
                        Algorithm::Bpe(bpe) => bpe.encode(&self.tokens, text, out),
                        Algorithm::Wpm(wpm) => wpm.encode(text, out),
                        Algorithm::Ugm(ugm) => ugm.encode(text, out),
                        Algorithm::Rwkv(rwkv) => rwkv.encode(text, out),
                        Algorithm::Plamo2(plamo2) => plamo2.encode(text, out),
                        Algorithm::Dna(dna) => dna.encode(&self.tokens, text, out),
                    }
                }
            }
            after_token = matches!(part, Part::Token(_));
        }
    }

    fn piece(&self, id: TokenId, out: &mut Vec<u8>) {
        let (Some(text), Some(kind)) = (self.tokens.text(id), self.tokens.kind(id)) else { return };
        match kind {
            TokenType::Control | TokenType::Unknown => {}
            TokenType::UserDefined => out.extend(text.bytes()),
            TokenType::Byte => match spm::byte_of(text) {
                Some(byte) => out.push(byte),
                None => out.extend(text.bytes()),
            },
            TokenType::Normal | TokenType::Unused => match &self.algorithm {
                Algorithm::Bpe(bpe) => bpe::decode(bpe.writing(), text, out),
                Algorithm::Dna(dna) => bpe::decode(dna.bpe.writing(), dna.text(id, text), out),
                Algorithm::Rwkv(_) => out.extend(rwkv::unescape(text)),
                Algorithm::Plamo2(_) => out.extend(text.bytes()),
                Algorithm::Spm(_) | Algorithm::Wpm(_) | Algorithm::Ugm(_) => spm::decode(text, out),
            },
        }
    }

    fn token_text(&self, id: TokenId) -> Option<&str> {
        let text = self.tokens.text(id)?;
        Some(if let Algorithm::Dna(dna) = &self.algorithm { dna.text(id, text) } else { text })
    }

    fn is_control(&self, id: TokenId) -> bool {
        self.tokens.kind(id).is_some_and(TokenType::is_hidden)
    }

    fn control_tokens(&self) -> Vec<(TokenId, String)> {
        let hidden = self.tokens.iter().filter(|(_, _, kind)| kind.is_hidden());
        hidden.map(|(id, text, _)| (id, text.to_owned())).collect()
    }

    fn user_defined_tokens(&self) -> Vec<(TokenId, String)> {
        let user_defined = self.tokens.iter().filter(|(_, _, kind)| *kind == TokenType::UserDefined);
        user_defined.map(|(id, text, _)| (id, text.to_owned())).collect()
    }

    fn leading_space(&self) -> bool {
        self.leading_space
    }

    fn special(&self) -> &SpecialIds {
        &self.special_ids
    }
}
