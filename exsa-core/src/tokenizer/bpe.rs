//! Byte-pair encoding: words of bytes (Radford et al., 2019) or of characters, joined in the order of a list
//! of merges (Sennrich et al., 2016).

use super::alphabet;
use super::error::TokenizerError;
use super::keys;
use super::merge::{Joined, Merger, NO_TOKEN, Symbol};
use super::pre::{Family, Writing};
use super::spm::{self, SPACE};
use super::text_index::TextIndex;
use super::tokens::{TokenType, Tokens};
use super::unicode::{Class, lowercase};
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
    /// Tokens by text, where words are written in characters, or taken whole before merges.
    texts: Option<TextIndex>,
    white_space: WhiteSpace,
}

/// White space before words are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhiteSpace {
    /// It is text.
    Kept,
    /// It parts texts and is dropped.
    Dropped {
        /// Whether text becomes lower-case.
        lowercase: bool,
    },
}

impl Bpe {
    /// `merges` are pairs of token texts with a space between them, the ones to join first first.
    pub(super) fn new(
        tokens: &Tokens,
        merges: &[&str],
        family: Family,
        white_space: WhiteSpace,
    ) -> Result<Self, TokenizerError> {
        let index = TextIndex::new(tokens, |_| true);
        let is_raw = family.writing != Writing::Bytes;
        let written = |b: u8| if is_raw { format!("<0x{b:02X}>") } else { alphabet::char_of(b).to_string() };
        let shows = |id: &TokenId| tokens.kind(*id).is_some_and(|kind| !kind.is_hidden());
        let byte_token = |b| index.get(tokens, &written(b)).filter(shows).unwrap_or(NO_TOKEN);
        let bytes = (0..=255).map(byte_token).collect();
        let merges = parse_merges(tokens, &index, merges)?;
        let texts = (is_raw || family.ignore_merges).then(|| TextIndex::new(tokens, TokenType::is_text));
        Ok(Self { family, bytes, merges, texts, white_space })
    }

    /// How a token's text is read.
    pub(super) fn writing(&self) -> Writing {
        self.family.writing
    }

    /// Appends the ids of `text`. Bytes without a token are skipped.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, out: &mut Vec<TokenId>) {
        let WhiteSpace::Dropped { lowercase: is_lowered } = self.white_space else {
            return self.encode_words(tokens, text, out);
        };
        let mut lowered = String::new();
        for part in text.split(|c| Class::of(c).any(Class::SPACE)).filter(|part| !part.is_empty()) {
            if is_lowered {
                lowered.clear();
                lowered.extend(part.chars().map(lowercase));
                self.encode_words(tokens, &lowered, out);
            } else {
                self.encode_words(tokens, part, out);
            }
        }
    }

    fn encode_words(&self, tokens: &Tokens, text: &str, out: &mut Vec<TokenId>) {
        let mut merger = Merger::default();
        match self.family.writing {
            Writing::Bytes => {
                let mut written = String::new();
                self.family.words(text, &mut |word| {
                    if self.family.ignore_merges {
                        written.clear();
                        written.extend(word.bytes().map(alphabet::char_of));
                        if let Some(id) = self.text(tokens, &written) {
                            out.push(id);
                            return;
                        }
                    }
                    for part in word.as_bytes().chunks(WORD_BYTES_MAX) {
                        self.encode_bytes(part, &mut merger, out);
                    }
                });
            }
            Writing::Characters { spaces, newlines, metaspace } => {
                let escaped = spaces.then(|| text.replace(' ', SPACE.encode_utf8(&mut [0; 4])));
                self.family.words(escaped.as_deref().unwrap_or(text), &mut |word| {
                    let is_newlines = word.starts_with('\n');
                    let whole = if newlines && is_newlines { self.text(tokens, word) } else { None };
                    if let Some(id) = whole {
                        out.push(id);
                    } else if metaspace && !is_newlines {
                        self.encode_line(tokens, word, &mut merger, out);
                    } else {
                        self.encode_characters(tokens, word, &mut merger, out);
                    }
                });
            }
        }
    }

    /// Appends the ids of a line, each of whose words starts with a space.
    fn encode_line(&self, tokens: &Tokens, line: &str, merger: &mut Merger, out: &mut Vec<TokenId>) {
        let prefix = if line.starts_with(SPACE) { None } else { Some(SPACE) };
        let line: String = prefix.into_iter().chain(line.chars()).collect();
        let starts = || line.match_indices(SPACE).map(|(at, _)| at);
        for (start, end) in starts().zip(starts().skip(1).chain([line.len()])) {
            self.encode_characters(tokens, line.get(start..end).unwrap_or_default(), merger, out);
        }
    }

    fn text(&self, tokens: &Tokens, text: &str) -> Option<TokenId> {
        self.texts.as_ref()?.get(tokens, text)
    }

    fn byte(&self, b: u8) -> TokenId {
        self.bytes.get(usize::from(b)).copied().unwrap_or(NO_TOKEN)
    }

    fn encode_bytes(&self, word: &[u8], merger: &mut Merger, out: &mut Vec<TokenId>) {
        merger.symbols.clear();
        let symbols = (0..).zip(word).map(|(start, b)| Symbol { start, len: 1, id: self.byte(*b) });
        merger.symbols.extend(symbols);
        merger.merge(|left, right| self.merges.get(&pair(left.id, right.id)).copied());
        out.extend(merger.symbols.iter().map(|symbol| symbol.id).filter(|id| *id != NO_TOKEN));
    }

    fn encode_characters(&self, tokens: &Tokens, word: &str, merger: &mut Merger, out: &mut Vec<TokenId>) {
        let mut rest = word;
        while !rest.is_empty() {
            let mut cut = rest.len().min(WORD_BYTES_MAX);
            while !rest.is_char_boundary(cut) {
                cut -= 1;
            }
            let (part, tail) = rest.split_at(cut);
            rest = tail;
            let mut utf8 = [0; 4];
            merger.symbols.clear();
            merger.symbols.extend(part.char_indices().map(|(start, c)| {
                let id = self.text(tokens, c.encode_utf8(&mut utf8)).unwrap_or(NO_TOKEN);
                Symbol { start: start as u32, len: c.len_utf8() as u32, id }
            }));
            merger.merge(|left, right| self.merges.get(&pair(left.id, right.id)).copied());
            for symbol in &merger.symbols {
                if symbol.id != NO_TOKEN {
                    out.push(symbol.id);
                    continue;
                }
                let start = symbol.start as usize;
                let bytes = part.as_bytes().get(start..start + symbol.len as usize).unwrap_or_default();
                out.extend(bytes.iter().map(|b| self.byte(*b)).filter(|id| *id != NO_TOKEN));
            }
        }
    }
}

/// Appends the bytes that the text of a token stands for.
pub(super) fn decode(writing: Writing, text: &str, out: &mut Vec<u8>) {
    match writing {
        Writing::Bytes => {
            let mut utf8 = [0; 4];
            for c in text.chars() {
                match alphabet::byte_of(c) {
                    Some(byte) => out.push(byte),
                    None => out.extend(c.encode_utf8(&mut utf8).bytes()),
                }
            }
        }
        Writing::Characters { spaces: true, .. } => spm::decode(text, out),
        Writing::Characters { .. } => out.extend(text.bytes()),
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
