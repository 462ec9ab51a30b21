//! Incremental detokenization.

use crate::token::TokenId;
use crate::tokenizer::Tokenizer;

/// Turns token ids into text one by one, without splitting characters.
///
/// Bytes of an incomplete character are held back until it completes or becomes invalid. The
/// concatenated text of all [`push`](Self::push)es and of [`finish`](Self::finish) equals
/// [`String::from_utf8_lossy`] of the concatenated pieces: invalid UTF-8 becomes U+FFFD.
///
/// ```
/// use exsa_core::scripted::ByteTokenizer;
/// use exsa_core::text::Detokenizer;
///
/// let tokenizer = ByteTokenizer::new();
/// let (mut text, mut out) = (Detokenizer::new(&tokenizer, true), String::new());
/// text.push(&tokenizer, 0xc3, &mut out); // the first byte of "é"
/// assert_eq!(out, "");
/// text.push(&tokenizer, 0xa9, &mut out);
/// assert_eq!(out, "é");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// Bytes not released yet; between calls at most 3, the beginning of one character.
    held: Vec<u8>,
    /// Whether a space at the start of the next piece is the one that `encode` adds before a text.
    strip_space: bool,
}

impl Detokenizer {
    /// Creates a detokenizer for one text. `text_precedes` says whether the ids continue a text, as an answer
    /// continues its prompt. The space of [`Tokenizer::leading_space`] is removed only at the very beginning
    /// of a text.
    pub fn new(tokenizer: &dyn Tokenizer, text_precedes: bool) -> Self {
        Self { held: Vec::new(), strip_space: tokenizer.leading_space() && !text_precedes }
    }

    /// Appends the text that `id` completes to `out`.
    /// `tokenizer` is the tokenizer given to [`new`](Self::new).
    pub fn push(&mut self, tokenizer: &dyn Tokenizer, id: TokenId, out: &mut String) {
        let start = self.held.len();
        tokenizer.piece(id, &mut self.held);
        if self.strip_space && self.held.len() > start {
            self.strip_space = false;
            if self.held.get(start) == Some(&b' ') {
                self.held.remove(start);
            }
        }
        self.release(out);
    }

    /// Whether bytes of an incomplete character are held back.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Appends the held bytes to `out`: an incomplete character becomes one U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&String::from_utf8_lossy(&self.held));
        self.held.clear();
    }

    /// Moves all but an unfinished character at the end to `out`.
    fn release(&mut self, out: &mut String) {
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            out.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let unfinished = done + invalid.len() == self.held.len()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if invalid.is_empty() || unfinished {
                break;
            }
            out.push(char::REPLACEMENT_CHARACTER);
            done += invalid.len();
        }
        self.held.drain(..done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{EncodeOptions, SpecialIds};
    use proptest::prelude::*;

    /// A vocabulary of any pieces.
    struct Pieces {
        pieces: Vec<Vec<u8>>,
        leading_space: bool,
        special: SpecialIds,
    }

    impl Tokenizer for Pieces {
        fn n_vocab(&self) -> usize {
            self.pieces.len()
        }
        fn encode(&self, _text: &str, _options: &EncodeOptions<'_>, _out: &mut Vec<TokenId>) {}
        fn piece(&self, id: TokenId, out: &mut Vec<u8>) {
            out.extend(self.pieces.get(id as usize).into_iter().flatten());
        }
        fn token_text(&self, _id: TokenId) -> Option<&str> {
            None
        }
        fn is_control(&self, _id: TokenId) -> bool {
            false
        }
        fn control_tokens(&self) -> Vec<(TokenId, String)> {
            Vec::new()
        }
        fn leading_space(&self) -> bool {
            self.leading_space
        }
        fn special(&self) -> &SpecialIds {
            &self.special
        }
    }

    fn pieces(pieces: &[&[u8]], leading_space: bool) -> Pieces {
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        Pieces { pieces, leading_space, special: SpecialIds::default() }
    }

    /// The text after each id and after the end.
    fn texts(tokenizer: &Pieces, text_precedes: bool) -> Vec<String> {
        let mut detokenizer = Detokenizer::new(tokenizer, text_precedes);
        let mut out = String::new();
        let mut texts = Vec::new();
        for id in 0..tokenizer.pieces.len() as TokenId {
            detokenizer.push(tokenizer, id, &mut out);
            texts.push(out.clone());
        }
        detokenizer.finish(&mut out);
        texts.push(out);
        texts
    }

    #[test]
    fn characters_come_whole() {
        let euro = pieces(&[b"1 \xE2", b"\x82", b"\xAC!", b"\xF0\x9F\x99"], false);
        assert_eq!(texts(&euro, false), ["1 ", "1 ", "1 \u{20AC}!", "1 \u{20AC}!", "1 \u{20AC}!\u{FFFD}"]);
    }

    #[test]
    fn invalid_bytes_are_replaced_once_they_are_certain() {
        // A lead byte is held until the next byte shows it invalid; a lone continuation is invalid at once.
        let tokenizer = pieces(&[b"\xE2\x82", b"a", b"\x80", b"\xC0", b"\xED\xA0"], false);
        let replaced = |n| "\u{FFFD}a".to_owned() + &"\u{FFFD}".repeat(n);
        assert_eq!(
            texts(&tokenizer, false),
            [String::new(), replaced(0), replaced(1), replaced(2), replaced(4), replaced(4)]
        );
    }

    #[test]
    fn one_leading_space_goes_where_nothing_precedes() {
        let tokenizer = pieces(&[b"", b" ", b" a"], true);
        assert_eq!(texts(&tokenizer, false).last().unwrap(), " a");
        assert_eq!(texts(&tokenizer, true).last().unwrap(), "  a");
        let plain = pieces(&[b"", b" ", b" a"], false);
        assert_eq!(texts(&plain, false).last().unwrap(), "  a");
        let no_space = pieces(&[b"b", b" a"], true);
        assert_eq!(texts(&no_space, false).last().unwrap(), "b a");
    }

    #[test]
    fn ids_outside_the_vocabulary_are_nothing() {
        let tokenizer = pieces(&[b"a"], false);
        let mut detokenizer = Detokenizer::new(&tokenizer, false);
        let mut out = String::new();
        detokenizer.push(&tokenizer, 1, &mut out);
        detokenizer.push(&tokenizer, TokenId::MAX, &mut out);
        detokenizer.finish(&mut out);
        assert_eq!(out, "");
    }

    /// Bytes that are often nearly UTF-8.
    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![any::<u8>(), 0x80u8..0xC0, 0xE0u8..0xF5, Just(b' ')];
        let part =
            prop_oneof![any::<char>().prop_map(|c| c.to_string().into_bytes()), byte.prop_map(|b| vec![b]),];
        proptest::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn any_cut_gives_the_lossy_text_of_the_whole(
            bytes in any_bytes(),
            cuts in proptest::collection::vec(0usize..100, 0..40),
            leading_space in any::<bool>(),
            text_precedes in any::<bool>(),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&c| c < bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let texts = texts(&pieces(&parts, leading_space), text_precedes);
            let strips = leading_space && !text_precedes;
            let whole = bytes.strip_prefix(b" ").filter(|_| strips).unwrap_or(&bytes);
            let whole = String::from_utf8_lossy(whole);
            prop_assert_eq!(texts.last().unwrap(), &whole);
            for (text, end) in texts.iter().zip(&cuts[1..]) {
                prop_assert!(whole.starts_with(text.as_str()));
                // At most three bytes are held.
                prop_assert!(String::from_utf8_lossy(&bytes[..*end]).chars().count() <= text.chars().count() + 2);
            }
        }
    }
}
