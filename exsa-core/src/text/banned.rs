//! Search for banned strings in streamed text.

use super::kmp::Pattern;
use std::collections::VecDeque;
use std::sync::Arc;

/// Maximum banned strings of a request.
pub const BANNED_STRINGS_MAX: usize = 512;

/// Maximum characters of a banned string.
pub const BANNED_CHARS_MAX: usize = 512;

/// Finds banned strings across pieces of text.
///
/// Offsets count the bytes of all text read. Without case, characters are compared by Unicode's lowercase
/// mapping, character by character.
#[derive(Clone, Debug)]
pub(crate) struct BannedMatcher {
    patterns: Arc<[Pattern<char>]>,
    ignore_case: bool,
    /// For each pattern, the length of its prefix that the text read so far ends with.
    matched: Vec<usize>,
    /// Offsets of the last characters, as many as the longest pattern has.
    offsets: VecDeque<usize>,
    longest: usize,
    /// Bytes read.
    read: usize,
}

/// A banned string in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Index of the banned string.
    pub(crate) index: usize,
    /// Offset of its first byte.
    pub(crate) start: usize,
    /// Offset after its last byte.
    pub(crate) end: usize,
}

impl BannedMatcher {
    /// Creates a matcher for `strings`.
    ///
    /// # Errors
    ///
    /// Description of the problem: too many strings, or a string that is empty or too long.
    pub(crate) fn new(strings: &[String], ignore_case: bool) -> Result<Self, String> {
        if strings.len() > BANNED_STRINGS_MAX {
            return Err(format!("{} strings, but at most {BANNED_STRINGS_MAX} are allowed", strings.len()));
        }
        let pattern = |(index, text): (usize, &String)| {
            let chars = text.chars().take(BANNED_CHARS_MAX + 1).count();
            match chars {
                0 => Err(format!("string {index} is empty")),
                n if n > BANNED_CHARS_MAX => {
                    Err(format!("string {index} has more than {BANNED_CHARS_MAX} characters"))
                }
                _ if ignore_case => {
                    Ok(Pattern::new(&text.chars().flat_map(char::to_lowercase).collect::<Vec<_>>()))
                }
                _ => Ok(Pattern::new(&text.chars().collect::<Vec<_>>())),
            }
        };
        let patterns = strings.iter().enumerate().map(pattern).collect::<Result<Arc<[_]>, _>>()?;
        Ok(Self {
            matched: vec![0; patterns.len()],
            longest: patterns.iter().map(Pattern::len).max().unwrap_or(0),
            patterns,
            ignore_case,
            offsets: VecDeque::new(),
            read: 0,
        })
    }

    /// Reads the whole next piece of text, and returns the banned string that is complete first; of several
    /// with the same end, the shortest.
    pub(crate) fn push(&mut self, text: &str) -> Option<Found> {
        let mut first = None;
        for char in text.chars() {
            let found = if self.ignore_case {
                // A character may map to several. All of them are read, since the search continues after
                // them.
                char.to_lowercase().fold(None, |found, lower| self.step(lower).or(found))
            } else {
                self.step(char)
            };
            self.read += char.len_utf8();
            first = first.or(found.map(|found| Found { end: self.read, ..found }));
        }
        first
    }

    fn step(&mut self, char: char) -> Option<Found> {
        self.offsets.push_back(self.read);
        if self.offsets.len() > self.longest {
            self.offsets.pop_front();
        }
        let mut found: Option<Found> = None;
        for (index, (pattern, matched)) in self.patterns.iter().zip(&mut self.matched).enumerate() {
            if pattern.step(matched, &char) {
                let start = self.offsets[self.offsets.len() - pattern.len()];
                if found.is_none_or(|found| found.start < start) {
                    found = Some(Found { index, start, end: self.read });
                }
            }
        }
        found
    }

    /// Bytes read.
    pub(crate) fn read(&self) -> usize {
        self.read
    }

    /// Offset from which the text may be the beginning of a banned string; the end of the text if there is
    /// none.
    pub(crate) fn first_partial(&self) -> usize {
        let longest = self.matched.iter().copied().max().unwrap_or(0);
        if longest == 0 { self.read } else { self.offsets[self.offsets.len() - longest] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(strings: &[&str], ignore_case: bool) -> BannedMatcher {
        let strings: Vec<String> = strings.iter().map(|&text| text.into()).collect();
        BannedMatcher::new(&strings, ignore_case).unwrap()
    }

    #[test]
    fn a_string_is_found_across_pieces() {
        let mut banned = matcher(&["shivers", "down her spine"], false);
        assert_eq!((banned.push("It shiv"), banned.first_partial()), (None, 3));
        let found = Found { index: 0, start: 3, end: 10 };
        assert_eq!(banned.push("ers down"), Some(found));
        assert_eq!(banned.first_partial(), 11, "the search goes on behind it");
        assert_eq!(banned.push(" here"), None);
        assert_eq!((banned.first_partial(), banned.read()), (20, 20));
    }

    #[test]
    fn case_counts_or_not() {
        assert_eq!(matcher(&["Straße"], false).push("STRASSE straße"), None);
        let found = Found { index: 0, start: 3, end: 10 };
        assert_eq!(matcher(&["STRAßE"], true).push("an straße"), Some(found));
        // This capital letter has two characters in lower case, and more bytes in upper case than elsewhere.
        let found = Found { index: 0, start: 2, end: 5 };
        assert_eq!(matcher(&["i\u{307}x"], true).push("\u{130}\u{130}x"), Some(Found { end: 5, ..found }));
        assert_eq!(matcher(&["\u{130}"], true).push("ab\u{130}"), Some(Found { end: 4, ..found }));
    }

    #[test]
    fn of_several_with_one_end_the_shortest_counts() {
        let found = matcher(&["abc", "c", "bc"], false).push("abc");
        assert_eq!(found, Some(Found { index: 1, start: 2, end: 3 }));
    }

    #[test]
    fn limits_are_kept() {
        let error = |strings: &[String]| BannedMatcher::new(strings, true).unwrap_err();
        assert_eq!(error(&["a".into(), String::new()]), "string 1 is empty");
        let long = "ä".repeat(BANNED_CHARS_MAX + 1);
        assert_eq!(error(std::slice::from_ref(&long)), "string 0 has more than 512 characters");
        assert!(BannedMatcher::new(&[long[2..].to_owned()], true).is_ok());
        let many = vec!["x".to_owned(); BANNED_STRINGS_MAX + 1];
        assert_eq!(error(&many), "513 strings, but at most 512 are allowed");
        assert!(BannedMatcher::new(&many[1..], true).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_cut_finds_what_a_search_of_the_whole_finds(
            strings in proptest::collection::vec("[aAäÄ€]{1,4}", 1..4),
            text in "[aAäÄ€]{0,20}",
            cuts in proptest::collection::vec(0usize..40, 0..10),
            ignore_case in any::<bool>(),
        ) {
            let folded = |text: &str| if ignore_case { text.to_lowercase() } else { text.to_owned() };
            let whole = folded(&text);
            let ends = strings.iter().filter_map(|s| whole.find(&folded(s)).map(|at| at + s.len())).min();
            let mut banned = BannedMatcher::new(&strings, ignore_case).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut found = None;
            for pair in cuts.windows(2) {
                found = banned.push(&text[pair[0]..pair[1]]);
                if found.is_some() {
                    break;
                }
                let held = folded(&text[banned.first_partial()..pair[1]]);
                prop_assert!(held.is_empty() || strings.iter().any(|s| folded(s).starts_with(&held)));
                for at in (0..banned.first_partial()).filter(|at| text.is_char_boundary(*at)) {
                    let free = folded(&text[at..pair[1]]);
                    prop_assert!(!strings.iter().any(|s| folded(s).starts_with(&free)), "{free:?} may begin one");
                }
            }
            prop_assert_eq!(found.map(|found| found.end), ends);
            if let Some(found) = found {
                prop_assert_eq!(folded(&text[found.start..found.end]), folded(&strings[found.index]));
            }
        }
    }
}
