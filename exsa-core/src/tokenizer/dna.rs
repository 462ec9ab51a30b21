//! Text with stretches of DNA in it: between `<dna>` and `</dna>` six bases make a token, elsewhere text is
//! encoded in byte pairs. Tokens of DNA end with U+E000 in the vocabulary, which tells them from equal words.

use super::bpe::Bpe;
use super::text_index::TextIndex;
use super::tokens::Tokens;
use crate::token::TokenId;

const BEGIN: &str = "<dna>";
const END: &str = "</dna>";
const OTHER: &str = "<oov>";
/// The end of a token of DNA.
const MARKER: char = '\u{e000}';
/// Bases in a token.
const BASES: usize = 6;
/// Stands for bases that are missing at the end.
const FILLER: u8 = b'A';

/// The algorithm's tables.
pub(super) struct Dna {
    pub(super) bpe: Bpe,
    /// Without it there is no DNA.
    dna: Option<Bases>,
}

struct Bases {
    begin: TokenId,
    end: TokenId,
    /// Bases that are no token.
    other: TokenId,
    index: TextIndex,
}

impl Dna {
    pub(super) fn new(tokens: &Tokens, bpe: Bpe) -> Self {
        let index = TextIndex::new(tokens, |_| true);
        let id = |text| index.get(tokens, text);
        let dna = match (id(BEGIN), id(END), id(OTHER)) {
            (Some(begin), Some(end), Some(other)) => Some(Bases { begin, end, other, index }),
            _ => None,
        };
        Self { bpe, dna }
    }

    /// Appends the ids of `text`.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, out: &mut Vec<TokenId>) {
        let Some(dna) = &self.dna else { return self.bpe.encode(tokens, text, out) };
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once(BEGIN) {
            self.bpe.encode(tokens, before, out);
            out.push(dna.begin);
            let Some((bases, behind)) = behind.split_once(END) else {
                return dna.encode(tokens, behind, out);
            };
            dna.encode(tokens, bases, out);
            out.push(dna.end);
            rest = behind;
        }
        self.bpe.encode(tokens, rest, out);
    }

    /// The text of `id` without the mark of DNA.
    pub(super) fn text<'t>(&self, id: TokenId, text: &'t str) -> &'t str {
        let is_marked = self.dna.as_ref().is_some_and(|dna| id > dna.other);
        if is_marked { text.strip_suffix(MARKER).unwrap_or(text) } else { text }
    }
}

impl Bases {
    fn encode(&self, tokens: &Tokens, bases: &str, out: &mut Vec<TokenId>) {
        for part in bases.as_bytes().chunks(BASES) {
            let mut token = [FILLER; BASES];
            for (to, base) in token.iter_mut().zip(part) {
                *to = base.to_ascii_uppercase();
            }
            let known = std::str::from_utf8(&token).ok().and_then(|token| {
                let written: String = token.chars().chain([MARKER]).collect();
                self.index.get(tokens, &written)
            });
            out.push(known.unwrap_or(self.other));
        }
    }
}
