//! A byte tokenizer.

use crate::token::TokenId;
use crate::tokenizer::{EncodeOptions, SpecialIds, Tokenizer};

/// A tokenizer whose tokens are the 256 bytes, a BOS (`<|bos|>`) and an EOS (`<|eos|>`).
#[derive(Clone, Debug)]
pub struct ByteTokenizer {
    special: SpecialIds,
    texts: Vec<String>,
}

impl ByteTokenizer {
    /// Beginning of sequence; prompts do not start with it by default.
    pub const BOS: TokenId = 256;
    /// End of sequence.
    pub const EOS: TokenId = 257;
    /// Number of tokens.
    pub const N_VOCAB: usize = 258;

    /// Creates the tokenizer.
    pub fn new() -> Self {
        let special = SpecialIds {
            bos: Some(Self::BOS),
            eos: Some(Self::EOS),
            end_of_generation: vec![Self::EOS],
            ..SpecialIds::default()
        };
        let bytes =
            (0..=255u8).map(|b| if b.is_ascii() { char::from(b).into() } else { format!("<0x{b:02X}>") });
        Self { special, texts: bytes.chain(["<|bos|>".into(), "<|eos|>".into()]).collect() }
    }
}

impl Default for ByteTokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer for ByteTokenizer {
    fn n_vocab(&self) -> usize {
        Self::N_VOCAB
    }

    fn encode(&self, text: &str, options: &EncodeOptions<'_>, out: &mut Vec<TokenId>) {
        let mut at = 0;
        while at < text.len() {
            let control = [(Self::BOS, "<|bos|>"), (Self::EOS, "<|eos|>")].into_iter().find(|(_, name)| {
                let inside = at + 1..at + name.len();
                options.parse_special
                    && text.as_bytes()[at..].starts_with(name.as_bytes())
                    && !options.protected_offsets.iter().any(|offset| inside.contains(offset))
            });
            match control {
                Some((id, name)) => {
                    out.push(id);
                    at += name.len();
                }
                None => {
                    out.push(TokenId::from(text.as_bytes()[at]));
                    at += 1;
                }
            }
        }
    }

    fn piece(&self, id: TokenId, out: &mut Vec<u8>) {
        out.extend(u8::try_from(id));
    }

    fn token_text(&self, id: TokenId) -> Option<&str> {
        self.texts.get(id as usize).map(String::as_str)
    }

    fn is_control(&self, id: TokenId) -> bool {
        id == Self::BOS || id == Self::EOS
    }

    fn control_tokens(&self) -> Vec<(TokenId, String)> {
        vec![(Self::BOS, "<|bos|>".into()), (Self::EOS, "<|eos|>".into())]
    }

    fn leading_space(&self) -> bool {
        false
    }

    fn special(&self) -> &SpecialIds {
        &self.special
    }
}
