//! Sequence breakers of DRY: texts across which repetitions are not matched.

use crate::token::TokenId;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// Maximum tokens of a breaker after the first.
const TAIL_MAX: usize = 20;
/// Tokens of the vocabulary per word of a bit set.
const BITS: usize = u64::BITS as usize;

/// Breaker texts as tokens: tokens that contain a breaker, and tokens that end with the beginning of a
/// breaker, with the tokens that complete it.
#[derive(Debug, Default)]
pub(in crate::sampler) struct Breakers {
    /// Bit set of tokens that contain a breaker.
    whole: Vec<u64>,
    /// Bit set of tokens that contain a breaker or end with the beginning of one.
    heads: Vec<u64>,
    /// Tokens that end with the beginning of a breaker, with what completes it; ascending by token.
    tails: Vec<(TokenId, Vec<TokenId>)>,
}

impl Breakers {
    /// Scans the text of every token of the vocabulary. Empty texts are ignored.
    pub(in crate::sampler) fn new(texts: &[String], tokenizer: &dyn Tokenizer) -> Self {
        let words = tokenizer.n_vocab().div_ceil(BITS);
        let mut breakers = Self { whole: vec![0; words], heads: vec![0; words], tails: Vec::new() };
        let texts: Vec<&str> = texts.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
        let mut piece = Vec::new();
        for id in 0..tokenizer.n_vocab() as TokenId {
            piece.clear();
            match tokenizer.token_text(id) {
                Some(text) if tokenizer.is_control(id) => piece.extend_from_slice(text.as_bytes()),
                _ => tokenizer.piece(id, &mut piece),
            }
            for text in &texts {
                breakers.add(id, &piece, text, tokenizer);
            }
        }
        breakers.tails.sort_unstable();
        breakers.tails.dedup();
        breakers
    }

    fn add(&mut self, id: TokenId, piece: &[u8], text: &str, tokenizer: &dyn Tokenizer) {
        let (word, bit) = (id as usize / BITS, 1 << (id as usize % BITS));
        let bytes = text.as_bytes();
        let found = match *bytes {
            [byte] => piece.contains(&byte),
            _ => piece.windows(bytes.len()).any(|window| window == bytes),
        };
        if found {
            self.whole[word] |= bit;
            self.heads[word] |= bit;
            return;
        }
        for len in 1..bytes.len().min(piece.len() + 1) {
            // A tail that does not begin at a character cannot be encoded.
            if piece.ends_with(&bytes[..len]) && text.is_char_boundary(len) {
                let tail = encode(&text[len..], tokenizer);
                if !tail.is_empty() {
                    self.heads[word] |= bit;
                    self.tails.push((id, tail));
                }
            }
        }
    }

    /// Whether the token contains a breaker.
    pub(super) fn contains(&self, token: TokenId) -> bool {
        has(&self.whole, token)
    }

    /// Number of tokens after the last breaker; all of them if there is none.
    pub(super) fn distance(&self, tokens: &[TokenId]) -> usize {
        for (i, &token) in tokens.iter().enumerate().rev() {
            if has(&self.heads, token) {
                let after = &tokens[i + 1..];
                let first = self.tails.partition_point(|(head, _)| *head < token);
                let tails = self.tails[first..].iter().take_while(|(head, _)| *head == token);
                let matching = tails.filter(|(_, tail)| after.starts_with(tail)).map(|(_, tail)| tail.len());
                let whole = self.contains(token).then_some(0);
                if let Some(len) = matching.chain(whole).max() {
                    return after.len() - len;
                }
            }
        }
        tokens.len()
    }
}

fn has(set: &[u64], token: TokenId) -> bool {
    set.get(token as usize / BITS).is_some_and(|word| word >> (token as usize % BITS) & 1 == 1)
}

/// The first tokens of a text that follows another.
fn encode(text: &str, tokenizer: &dyn Tokenizer) -> Vec<TokenId> {
    let encode = |text: &str| {
        let mut tokens = Vec::new();
        tokenizer.encode(text, &EncodeOptions::default(), &mut tokens);
        tokens
    };
    let mut tokens = encode(text);
    if tokenizer.leading_space() {
        // After a line break, the tokenizer does not prepend a space to the text.
        let (begin, both) = (encode("\n"), encode(&format!("\n{text}")));
        if let Some(rest) = both.strip_prefix(&begin[..]) {
            tokens = rest.to_vec();
        }
    }
    tokens.truncate(TAIL_MAX);
    tokens
}
