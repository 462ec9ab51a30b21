//! Stop string matching over streamed text.

use super::kmp::Pattern;
use crate::token::TokenId;
use crate::tokenizer::Tokenizer;
use std::ops::Range;

/// Maximum stop strings per matcher.
pub const STOP_STRINGS_MAX: usize = 64;

/// Maximum bytes of a stop string.
pub const STOP_BYTES_MAX: usize = 4096;

/// Finds stop strings across pieces of text and releases the text before them.
///
/// Text that may begin a stop string is held back, and released as soon as it can no longer match. Of several
/// matches the earliest start wins, as in a search over the whole text: if one stop string is complete but an
/// earlier partial match may still complete, the matcher waits for the outcome. The result does not depend on
/// how the text is split into pieces.
///
/// Control tokens are not part of the released text, but a stop string may contain them (`<|im_start|>user`):
/// their text is searched in place and never released.
///
/// The cost per byte of text is constant (amortized) per stop string, even for repetitive text.
///
/// ```
/// use exsa_core::text::StopMatcher;
///
/// let mut stop = StopMatcher::new(&["\nUser:"])?;
/// let mut out = String::new();
/// assert_eq!(stop.push("Hello.\nUs", &mut out), None);
/// assert_eq!(out, "Hello.");
/// assert_eq!(stop.push("er: Hi", &mut out), Some(0));
/// assert_eq!(out, "Hello.");
/// # Ok::<(), exsa_core::text::StopError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text not released yet. Between calls it begins at the longest partial match, or at a complete match.
    held: String,
    /// Ranges of `held` that are text of control tokens, in order.
    hidden: Vec<Range<usize>>,
    /// Bytes of `held` that the search has read.
    read: usize,
    /// The complete match with the earliest start so far: offset in `held`, and index of the stop string.
    complete: Option<(usize, usize)>,
    /// The stop string that ended the text.
    matched: Option<usize>,
    /// Whether the texts of control tokens are released too, separately from the text.
    keep_controls: bool,
}

/// Receives text that certainly precedes any stop string.
pub(crate) trait Release {
    /// The next piece of text.
    fn text(&mut self, text: &str);

    /// The text of a control token, or a part of it.
    fn control(&mut self, _text: &str) {}
}

impl Release for String {
    fn text(&mut self, text: &str) {
        self.push_str(text);
    }
}

/// Released text, including the texts of control tokens if requested.
#[derive(Clone, Debug, Default)]
pub(crate) struct Released {
    pub(crate) text: String,
    /// Ranges of `text` that are texts of control tokens, ascending.
    pub(crate) controls: Vec<Range<usize>>,
    /// Whether texts of control tokens are kept.
    pub(crate) keep_controls: bool,
}

impl Release for Released {
    fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn control(&mut self, text: &str) {
        if self.keep_controls && !text.is_empty() {
            let start = self.text.len();
            self.text.push_str(text);
            self.controls.push(start..self.text.len());
        }
    }
}

/// A stop string and its matching state.
#[derive(Clone, Debug)]
struct Stop {
    pattern: Pattern<u8>,
    /// Length of the prefix of the stop string that the text read so far ends with.
    matched: usize,
}

/// Invalid stop strings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// More than [`STOP_STRINGS_MAX`] stop strings.
    #[error("{count} stop strings, but at most {STOP_STRINGS_MAX} are allowed")]
    TooMany {
        /// Number of stop strings.
        count: usize,
    },
    /// A stop string longer than [`STOP_BYTES_MAX`].
    #[error("stop string {index} has {bytes} bytes, but at most {STOP_BYTES_MAX} are allowed")]
    TooLong {
        /// Index of the stop string, from 0.
        index: usize,
        /// Its length in bytes.
        bytes: usize,
    },
    /// An empty stop string, which would match before any text.
    #[error("stop string {index} is empty")]
    Empty {
        /// Index of the stop string, from 0.
        index: usize,
    },
}

impl StopMatcher {
    /// Creates a matcher for `stops`, a list that may be empty.
    ///
    /// # Errors
    ///
    /// Too many stop strings, or one that is empty or too long.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Result<Self, StopError> {
        if stops.len() > STOP_STRINGS_MAX {
            return Err(StopError::TooMany { count: stops.len() });
        }
        let stop = |(index, stop): (usize, &S)| match stop.as_ref().as_bytes() {
            [] => Err(StopError::Empty { index }),
            text if text.len() > STOP_BYTES_MAX => Err(StopError::TooLong { index, bytes: text.len() }),
            text => Ok(Stop { pattern: Pattern::new(text), matched: 0 }),
        };
        let stops = stops.iter().enumerate().map(stop).collect::<Result<_, _>>()?;
        Ok(Self { stops, ..Self::default() })
    }

    /// Reads the next piece of text, and appends to `out` the text that certainly precedes any stop string.
    ///
    /// Returns the index of the stop string once found; all text before it is then in `out`, and further
    /// calls have no effect and return the same index.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        self.push_into(text, out)
    }

    /// Also releases the texts of control tokens, by [`Release::control`].
    pub(crate) fn keep_controls(&mut self) {
        self.keep_controls = true;
    }

    /// Whether the texts of control tokens are released.
    pub(crate) fn keeps_controls(&self) -> bool {
        self.keep_controls
    }

    /// Like [`push`](Self::push).
    pub(crate) fn push_into(&mut self, text: &str, out: &mut impl Release) -> Option<usize> {
        if self.matched.is_some() {
            return self.matched;
        }
        self.held.push_str(text);
        self.search(out)
    }

    /// Reads the text of `id` if it is a control token. The next [`push`](Self::push) or
    /// [`finish`](Self::finish) searches it without releasing it.
    pub fn push_control(&mut self, tokenizer: &dyn Tokenizer, id: TokenId) {
        let unused = self.stops.is_empty() && !self.keep_controls;
        if unused || self.matched.is_some() || !tokenizer.is_control(id) {
            return;
        }
        let start = self.held.len();
        self.held.push_str(tokenizer.token_text(id).unwrap_or_default());
        self.hidden.push(start..self.held.len());
    }

    /// Whether a stop string was found.
    pub fn has_matched(&self) -> bool {
        self.matched.is_some()
    }

    /// Searches the unread text and releases the text that certainly precedes any stop string.
    fn search(&mut self, out: &mut impl Release) -> Option<usize> {
        for i in self.read..self.held.len() {
            let byte = self.held.as_bytes()[i];
            self.read = i + 1;
            for (index, stop) in self.stops.iter_mut().enumerate() {
                if stop.step(byte) {
                    let found = (i + 1 - stop.pattern.len(), index);
                    self.complete = Some(self.complete.map_or(found, |first| first.min(found)));
                }
            }
            if let Some((start, _)) = self.complete
                && start <= self.first_partial()
            {
                return self.end(out);
            }
        }
        let free = self.complete.map_or(usize::MAX, |(start, _)| start).min(self.first_partial());
        self.release(free, out);
        self.read -= free;
        self.complete = self.complete.map(|(start, index)| (start - free, index));
        None
    }

    /// Ends the text: appends the held text to `out`, up to a complete match
    /// that was waiting for another match, and returns that match's index.
    pub fn finish(&mut self, out: &mut String) -> Option<usize> {
        self.finish_into(out)
    }

    /// Like [`finish`](Self::finish).
    pub(crate) fn finish_into(&mut self, out: &mut impl Release) -> Option<usize> {
        if self.matched.is_none() && self.search(out).is_none() {
            self.end(out);
        }
        self.matched
    }

    /// Releases the text before the complete match, or all text, and ends the matching.
    fn end(&mut self, out: &mut impl Release) -> Option<usize> {
        let end = self.complete.map_or(self.held.len(), |(start, _)| start);
        self.release(end, out);
        self.held.clear();
        self.hidden.clear();
        self.read = 0;
        self.matched = self.complete.map(|(_, index)| index);
        self.stops.iter_mut().for_each(|stop| stop.matched = 0);
        self.matched
    }

    /// Moves the first `end` bytes of the held text to `out`, with the text of control tokens separate.
    fn release(&mut self, end: usize, out: &mut impl Release) {
        let mut done = 0;
        for hidden in &mut self.hidden {
            out.text(self.held.get(done..hidden.start.min(end)).unwrap_or_default());
            out.control(self.held.get(hidden.start.min(end)..hidden.end.min(end)).unwrap_or_default());
            done = hidden.end.min(end).max(done);
            *hidden = hidden.start.saturating_sub(end)..hidden.end.saturating_sub(end);
        }
        out.text(self.held.get(done..end).unwrap_or_default());
        self.held.drain(..end);
        self.hidden.retain(|hidden| !hidden.is_empty());
    }

    /// Offset in the held text of the first partial match; the end of the read text if there is none.
    fn first_partial(&self) -> usize {
        self.read - self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0)
    }
}

impl Stop {
    /// Reads a byte. Returns whether the text now ends with the whole stop string.
    fn step(&mut self, byte: u8) -> bool {
        self.pattern.step(&mut self.matched, &byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{EncodeOptions, SpecialIds};
    use proptest::prelude::*;

    /// Searches the whole text. Returns the text before the first stop string, and whether there is one.
    fn naive<'a>(stops: &[String], text: &'a str) -> (&'a str, bool) {
        match stops.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            Some(start) => (&text[..start], true),
            None => (text, false),
        }
    }

    /// Pushes `text` in pieces that end at the given characters, and checks invariants on the way.
    fn stream(stops: &[String], text: &str, cuts: &[usize]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops).unwrap();
        let ends: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
        let mut cuts: Vec<usize> =
            cuts.iter().map(|&c| ends[c % ends.len()]).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let mut out = String::new();
        for pair in cuts.windows(2) {
            if let Some(index) = matcher.push(&text[pair[0]..pair[1]], &mut out) {
                let len = out.len();
                assert_eq!(matcher.push("more", &mut out), Some(index));
                assert_eq!(matcher.finish(&mut out), Some(index));
                assert_eq!(out.len(), len, "nothing comes after a match");
                return (out, Some(index));
            }
            // Only text that can become a stop string is held back.
            let seen = &text[..pair[1]];
            let held = &seen[out.len()..];
            let may = |stop: &String| stop.starts_with(held);
            assert!(held.is_empty() || stops.iter().any(may), "{held:?} is held back for nothing");
        }
        let index = matcher.finish(&mut out);
        (out, index)
    }

    fn check(stops: &[String], text: &str, cuts: &[usize]) {
        let (out, index) = stream(stops, text, cuts);
        let (want, found) = naive(stops, text);
        assert_eq!(
            (out.as_str(), index.is_some()),
            (want, found),
            "stops {stops:?} in {text:?} cut at {cuts:?}"
        );
        if let Some(index) = index {
            assert!(text[out.len()..].starts_with(&stops[index]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn any_cut_gives_what_a_search_of_the_whole_gives(
            stops in proptest::collection::vec("[aäb€]{1,5}", 0..5),
            text in "[aäb€🙂]{0,30}",
            cuts in proptest::collection::vec(any::<usize>(), 0..40),
        ) {
            check(&stops, &text, &cuts);
        }

        // With hidden parts, the search reads all text and releases only the visible parts.
        #[test]
        fn hidden_text_is_searched_and_not_let_through(
            stops in proptest::collection::vec("[aäb<>]{1,5}", 1..5),
            parts in proptest::collection::vec(("[aäb<>]{0,6}", 0..3u32), 0..8),
        ) {
            let tokenizer = Controls(vec!["<a>", "<ä>", "b"], SpecialIds::default());
            let mut matcher = StopMatcher::new(&stops).unwrap();
            let mut out = String::new();
            // The whole text, and its released bytes.
            let (mut whole, mut shown) = (String::new(), Vec::new());
            for (text, id) in &parts {
                matcher.push(text, &mut out);
                matcher.push_control(&tokenizer, *id);
                shown.extend(whole.len()..whole.len() + text.len());
                whole.push_str(text);
                whole.push_str(tokenizer.0[*id as usize]);
            }
            let index = matcher.finish(&mut out);
            let (before, found) = naive(&stops, &whole);
            let want: Vec<u8> = shown.iter().filter(|at| **at < before.len()).map(|at| whole.as_bytes()[*at]).collect();
            prop_assert_eq!((out.as_bytes(), index.is_some()), (&want[..], found), "{:?} in {:?}", &stops, &whole);
        }

        #[test]
        fn stops_taken_from_the_text_are_found(
            text in "\\PC{1,40}",
            pick in (any::<usize>(), any::<usize>()),
            cuts in proptest::collection::vec(any::<usize>(), 0..40),
        ) {
            let chars: Vec<char> = text.chars().collect();
            let start = pick.0 % chars.len();
            let len = 1 + pick.1 % (chars.len() - start);
            check(&[chars[start..start + len].iter().collect()], &text, &cuts);
        }
    }

    #[test]
    fn the_first_to_begin_counts() {
        let both = ["abcd".to_owned(), "bc".to_owned()];
        for cuts in [&[][..], &[1, 2, 3, 4, 5, 6]] {
            assert_eq!(stream(&both, "xabcdx", cuts), ("x".to_owned(), Some(0)));
            assert_eq!(stream(&both, "xabcx", cuts), ("xa".to_owned(), Some(1)));
            assert_eq!(
                stream(&both, "xabc", cuts),
                ("xa".to_owned(), Some(1)),
                "at the end nothing more comes"
            );
        }
        let nested = ["abab".to_owned(), "ab".to_owned()];
        assert_eq!(
            stream(&nested, "xabab", &[2, 3]),
            ("x".to_owned(), Some(1)),
            "the shorter is certain first"
        );
    }

    #[test]
    fn text_is_released_as_soon_as_it_is_certain() {
        let mut matcher = StopMatcher::new(&["</s>", "<|end|>"]).unwrap();
        let mut out = String::new();
        for (piece, want) in [("a<", "a"), ("|e", "a"), ("b", "a<|eb"), ("</", "a<|eb"), ("<", "a<|eb</")] {
            assert_eq!(matcher.push(piece, &mut out), None);
            assert_eq!(out, want);
        }
        assert_eq!(matcher.finish(&mut out), None);
        assert_eq!(out, "a<|eb</<");
    }

    #[test]
    fn no_stop_strings_let_everything_through() {
        let mut matcher = StopMatcher::new::<&str>(&[]).unwrap();
        let mut out = String::new();
        assert_eq!(matcher.push("text", &mut out), None);
        assert_eq!(out, "text");
        assert_eq!(matcher.finish(&mut out), None);
    }

    /// A tokenizer with one control token for each text.
    struct Controls(Vec<&'static str>, SpecialIds);

    impl Tokenizer for Controls {
        fn n_vocab(&self) -> usize {
            self.0.len()
        }

        fn encode(&self, _text: &str, _options: &EncodeOptions<'_>, _out: &mut Vec<TokenId>) {}

        fn piece(&self, _id: TokenId, _out: &mut Vec<u8>) {}

        fn token_text(&self, id: TokenId) -> Option<&str> {
            self.0.get(id as usize).copied()
        }

        fn is_control(&self, id: TokenId) -> bool {
            self.token_text(id).is_some()
        }

        fn control_tokens(&self) -> Vec<(TokenId, String)> {
            Vec::new()
        }

        fn leading_space(&self) -> bool {
            false
        }

        fn special(&self) -> &SpecialIds {
            &self.1
        }
    }

    #[test]
    fn stop_strings_may_spell_control_tokens() {
        let tokenizer = Controls(vec!["<|im_start|>", "<|im_end|>"], SpecialIds::default());
        // The stop strings, the index found, and the released
        // text, of "Hi\n", <|im_end|>, "\n", <|im_start|>, "user".
        for (stops, index, text) in [
            (&["<|im_start|>"][..], Some(0), "Hi\n\n"),
            (&["x", "<|im_end|>"], Some(1), "Hi\n"),
            (&["\n<|im_end|>\n"], Some(0), "Hi"),
            (&["<|im_start|>user"], Some(0), "Hi\n\n"),
            (&["<|im_start|>users"], None, "Hi\n\nuser"),
            (&["<|im_end|><|im_start|>"], None, "Hi\n\nuser"),
            (&["end|>"], Some(0), "Hi\n"),
            (&[], None, "Hi\n\nuser"),
        ] {
            let mut matcher = StopMatcher::new(stops).unwrap();
            let mut out = String::new();
            matcher.push("Hi\n", &mut out);
            for (id, after) in [(1, "\n"), (0, "user")] {
                matcher.push_control(&tokenizer, id);
                matcher.push(after, &mut out);
            }
            assert_eq!(matcher.finish(&mut out), index, "{stops:?}");
            assert_eq!((out.as_str(), matcher.has_matched()), (text, index.is_some()), "{stops:?}");
        }
        // The last token of an answer.
        let mut matcher = StopMatcher::new(&["b<|im_end|>"]).unwrap();
        let mut out = String::new();
        matcher.push("ab", &mut out);
        matcher.push_control(&tokenizer, 1);
        assert_eq!((matcher.finish(&mut out), out.as_str()), (Some(0), "a"));
        // Text tokens are not control tokens.
        matcher = StopMatcher::new(&["x"]).unwrap();
        matcher.push_control(&tokenizer, 7);
        assert_eq!((matcher.finish(&mut out), out.as_str()), (None, "a"));
    }

    #[test]
    fn limits_are_kept() {
        assert_eq!(StopMatcher::new(&["a", ""]).unwrap_err(), StopError::Empty { index: 1 });
        let long = "x".repeat(STOP_BYTES_MAX + 1);
        let error = StopMatcher::new(&[&long]).unwrap_err();
        assert_eq!(error, StopError::TooLong { index: 0, bytes: STOP_BYTES_MAX + 1 });
        assert!(StopMatcher::new(&[&long[1..]]).is_ok());
        let many = vec!["x"; STOP_STRINGS_MAX + 1];
        assert_eq!(StopMatcher::new(&many).unwrap_err(), StopError::TooMany { count: STOP_STRINGS_MAX + 1 });
        assert!(StopMatcher::new(&many[1..]).is_ok());
    }

    #[test]
    fn time_is_linear_in_the_text() {
        // The worst case of a naive search: almost a match everywhere.
        let stops: Vec<String> = (0..4).map(|i| "a".repeat(STOP_BYTES_MAX - 1 - i) + "b").collect();
        let mut matcher = StopMatcher::new(&stops).unwrap();
        let mut out = String::new();
        let piece = "a".repeat(1 << 16);
        for _ in 0..16 {
            assert_eq!(matcher.push(&piece, &mut out), None);
        }
        assert!(out.len() > (1 << 20) - STOP_BYTES_MAX);
        assert_eq!(matcher.push("b", &mut out), Some(0));
        assert_eq!(out.len(), (1 << 20) + 1 - STOP_BYTES_MAX);
    }
}
