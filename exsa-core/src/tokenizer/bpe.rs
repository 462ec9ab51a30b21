//! Byte-level byte-pair encoding (Radford et al., 2019): words are bytes, joined in the order of a list of
//! merges (Sennrich et al., 2016).

use super::alphabet;
use super::error::TokenizerError;
use super::keys;
use super::merge::{Joined, Merger, NO_TOKEN, Symbol};
use super::pre::Family;
use super::text_index::TextIndex;
use super::tokens::{TokenType, Tokens};
use crate::token::TokenId;
use hashbrown::HashMap;

/// Bytes of a word that are merged at once; longer words are cut, so that positions fit into 32 bits.
const WORD_BYTES_MAX: usize = 1 << 30;

/// The algorithm's tables.
pub(super) struct Bpe {
    family: Family,
    /// The token of each byte, or [`NO_TOKEN`].
    bytes: Vec<TokenId>,
    /// Merges of two tokens, by `left << 32 | right`.
    merges: HashMap<u64, Joined>,
    /// Whole words, where the family takes them before it merges.
    words: Option<TextIndex>,
}

impl Bpe {
    /// `merges` are pairs of token texts with a space between them, the ones to join first first.
    pub(super) fn new(tokens: &Tokens, merges: &[&str], family: Family) -> Result<Self, TokenizerError> {
        let index = TextIndex::new(tokens, |_| true);
        let mut utf8 = [0; 4];
        let byte_token = |b| index.get(tokens, alphabet::char_of(b).encode_utf8(&mut utf8));
        let shows = |id: &TokenId| tokens.kind(*id).is_some_and(|kind| !kind.is_hidden());
        let bytes = (0..=255).map(byte_token).map(|id| id.filter(shows).unwrap_or(NO_TOKEN)).collect();
        let merges = parse_merges(tokens, &index, merges)?;
        let words = family.ignore_merges.then(|| TextIndex::new(tokens, TokenType::is_text));
        Ok(Self { family, bytes, merges, words })
    }

    /// Appends the ids of `text`. Bytes without a token are skipped.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, out: &mut Vec<TokenId>) {
        let mut merger = Merger::default();
        let mut written = String::new();
        self.family.words(text, &mut |word| {
            if let Some(words) = &self.words {
                written.clear();
                written.extend(word.bytes().map(alphabet::char_of));
                if let Some(id) = words.get(tokens, &written) {
                    out.push(id);
                    return;
                }
            }
            for part in word.as_bytes().chunks(WORD_BYTES_MAX) {
                self.encode_word(part, &mut merger, out);
            }
        });
    }

    fn encode_word(&self, word: &[u8], merger: &mut Merger, out: &mut Vec<TokenId>) {
        let id = |b: u8| self.bytes.get(usize::from(b)).copied().unwrap_or(NO_TOKEN);
        merger.symbols.clear();
        merger.symbols.extend((0..).zip(word).map(|(start, b)| Symbol { start, len: 1, id: id(*b) }));
        merger.merge(|left, right| self.merges.get(&pair(left.id, right.id)).copied());
        out.extend(merger.symbols.iter().map(|symbol| symbol.id).filter(|id| *id != NO_TOKEN));
    }
}

fn pair(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn parse_merges(
    tokens: &Tokens,
    index: &TextIndex,
    merges: &[&str],
) -> Result<HashMap<u64, Joined>, TokenizerError> {
    if merges.len() >= u32::MAX as usize {
        let (key, max) = (keys::MERGES, u32::MAX as usize);
        return Err(TokenizerError::VocabularySize { key, len: merges.len(), max });
    }
    let mut parsed = HashMap::with_capacity(merges.len());
    let mut joined = String::new();
    for (index_of_merge, merge) in merges.iter().enumerate() {
        let problem = |problem| TokenizerError::Merge {
            key: keys::MERGES,
            index: index_of_merge,
            merge: merge.chars().take(64).collect(),
            problem,
        };
        // A space in the first place is text: the separator is a later one.
        let separator = merge.bytes().skip(1).position(|b| b == b' ').map(|i| i + 1);
        let (left, right) = separator
            .and_then(|at| Some((merge.get(..at)?, merge.get(at + 1..)?)))
            .filter(|(_, right)| !right.is_empty())
            .ok_or_else(|| problem("is not two tokens with a space between them"))?;
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let token = |text| index.get(tokens, text);
        let left = token(left).ok_or_else(|| problem("does not start with a token"))?;
        let right = token(right).ok_or_else(|| problem("does not end with a token"))?;
        let id = token(&joined).ok_or_else(|| problem("does not result in a token"))?;
        // Text never becomes a control token by merging.
        if tokens.kind(id).is_some_and(TokenType::is_text) {
            parsed.entry(pair(left, right)).or_insert(Joined { rank: index_of_merge as u32, id });
        }
    }
    Ok(parsed)
}
