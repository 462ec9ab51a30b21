//! SentencePiece's byte-pair encoding: neighbours are joined if together they are a token, the one of the
//! highest score first (Kudo and Richardson, 2018). What no token covers is spelt in bytes.

use super::error::TokenizerError;
use super::keys;
use super::merge::{Joined, Merger, NO_TOKEN, Symbol};
use super::text_index::TextIndex;
use super::tokens::{TokenType, Tokens, check_length};
use crate::token::TokenId;
use hashbrown::HashSet;

/// How a space is written in the vocabulary.
pub(super) const SPACE: char = '\u{2581}';

/// Bytes of text that are merged at once; longer texts are cut, so that positions fit into 32 bits.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// The algorithm's tables.
pub(super) struct Spm {
    index: TextIndex,
    /// Order of merging by id: the highest score has rank 0, equal scores have equal ranks.
    ranks: Vec<u32>,
    /// The token of each byte, if there is one.
    bytes: Vec<Option<TokenId>>,
    /// Token of a character that is none, and one of whose bytes is none.
    unk: Option<TokenId>,
    /// Bytes in the longest token.
    token_bytes_max: usize,
    /// Characters that stand before a space inside a token.
    before_space: HashSet<char>,
}

impl Spm {
    /// `scores` by id, or empty if all are equal. `unk` may be missing if every byte is a token.
    pub(super) fn new(tokens: &Tokens, scores: &[f32], unk: Option<TokenId>) -> Result<Self, TokenizerError> {
        check_length(keys::SCORES, scores.len(), tokens.len())?;
        let mut spm = Self {
            index: TextIndex::new(tokens, TokenType::is_text),
            ranks: ranks(scores, tokens.len())?,
            bytes: bytes(tokens, unk)?,
            unk,
            token_bytes_max: 0,
            before_space: HashSet::new(),
        };
        for (_, text, _) in tokens.iter().filter(|(_, _, kind)| kind.is_text()) {
            spm.token_bytes_max = spm.token_bytes_max.max(text.len());
            let pairs = text.chars().zip(text.chars().skip(1));
            spm.before_space.extend(pairs.filter(|(_, second)| *second == SPACE).map(|(first, _)| first));
        }
        Ok(spm)
    }

    /// Appends the ids of `text`, with a space before it if `prefix` is set.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, prefix: bool, out: &mut Vec<TokenId>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2);
        if prefix {
            escaped.push(SPACE);
        }
        for part in text.split_inclusive(' ') {
            match part.strip_suffix(' ') {
                Some(word) => {
                    escaped.push_str(word);
                    escaped.push(SPACE);
                }
                None => escaped.push_str(part),
            }
        }
        let mut merger = Merger::default();
        let mut rest = escaped.as_str();
        while !rest.is_empty() {
            let (word, tail) = rest.split_at(self.word_end(rest));
            self.encode_word(tokens, word, &mut merger, out);
            rest = tail;
        }
    }

    /// End of the first word of `text` in bytes: before a space, unless a token could reach across it.
    /// Merging word by word then gives the same tokens as merging the whole text.
    fn word_end(&self, text: &str) -> usize {
        let mut characters = text.char_indices();
        let mut before = characters.next().map(|(_, c)| c);
        let limit = text.len().min(TEXT_BYTES_MAX);
        for (at, c) in characters {
            let is_cut = c == SPACE && before.is_some_and(|c| !self.before_space.contains(&c));
            if is_cut || at >= limit {
                return at;
            }
            before = Some(c);
        }
        text.len()
    }

    fn encode_word(&self, tokens: &Tokens, word: &str, merger: &mut Merger, out: &mut Vec<TokenId>) {
        let symbols = word.char_indices().map(|(start, c)| Symbol {
            start: start as u32,
            len: c.len_utf8() as u32,
            id: NO_TOKEN,
        });
        merger.symbols.clear();
        merger.symbols.extend(symbols);
        let text = |start: u32, len: u32| word.get(start as usize..start as usize + len as usize);
        merger.merge(|left, right| {
            let len = left.len + right.len;
            if len as usize > self.token_bytes_max {
                return None;
            }
            let id = self.index.get(tokens, text(left.start, len)?)?;
            self.ranks.get(id as usize).map(|rank| Joined { rank: *rank, id })
        });
        for symbol in &merger.symbols {
            let text = text(symbol.start, symbol.len).unwrap_or_default();
            let id = if symbol.id == NO_TOKEN { self.index.get(tokens, text) } else { Some(symbol.id) };
            match id {
                Some(id) => out.push(id),
                None => self.spell(text, out),
            }
        }
    }

    /// Appends the bytes of `character`, or the unknown token if one of them has no token.
    fn spell(&self, character: &str, out: &mut Vec<TokenId>) {
        let start = out.len();
        for byte in character.bytes() {
            match self.bytes.get(usize::from(byte)).copied().flatten() {
                Some(id) => out.push(id),
                None => {
                    out.truncate(start);
                    out.extend(self.unk);
                    return;
                }
            }
        }
    }
}

fn ranks(scores: &[f32], n_vocab: usize) -> Result<Vec<u32>, TokenizerError> {
    if let Some(token) = scores.iter().position(|score| score.is_nan()) {
        return Err(TokenizerError::Score { key: keys::SCORES, token: token as TokenId });
    }
    let score = |id: &u32| scores.get(*id as usize).copied().unwrap_or(0.0);
    let mut order: Vec<u32> = (0..n_vocab as u32).collect();
    order.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let mut ranks = vec![0; n_vocab];
    let (mut rank, mut previous) = (0, None);
    for id in order {
        let score = score(&id);
        if previous.is_some_and(|previous| previous != score) {
            rank += 1;
        }
        previous = Some(score);
        ranks[id as usize] = rank;
    }
    Ok(ranks)
}

/// The token of each byte.
fn bytes(tokens: &Tokens, unk: Option<TokenId>) -> Result<Vec<Option<TokenId>>, TokenizerError> {
    let mut bytes = vec![None; 256];
    for (id, text, kind) in tokens.iter() {
        if let Some(byte) = byte_of(text)
            && !kind.is_hidden()
        {
            bytes[usize::from(byte)] = Some(id);
        }
    }
    for (id, text, kind) in tokens.iter() {
        if let [byte] = text.as_bytes()
            && kind.is_text()
        {
            bytes[usize::from(*byte)].get_or_insert(id);
        }
    }
    if unk.is_none() && bytes.contains(&None) {
        let why = "the vocabulary has no token for some bytes, and unknown text must become something";
        return Err(TokenizerError::Missing { key: keys::UNK, why });
    }
    Ok(bytes)
}

/// Appends the bytes of `text`, with spaces as they are.
pub(super) fn decode(text: &str, out: &mut Vec<u8>) {
    for (i, word) in text.split(SPACE).enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend(word.bytes());
    }
}

/// The byte that a token written `<0x0A>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hex = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    if is_hex { u8::from_str_radix(digits, 16).ok() } else { None }
}
