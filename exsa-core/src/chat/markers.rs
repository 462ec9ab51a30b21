//! Markers, which prevent that text of a message becomes a control token, or a mark of reasoning or tool
//! calls.
//!
//! Before a conversation is rendered, markers are inserted into its strings: before and after every text of a
//! control token (with the index of that text), and at an end of a string that adjacent text could complete
//! to a control text. Between the markers the text is unchanged, so that a template finds the texts it looks
//! for (`content.split('</think>')`). Markers are noncharacters, which Unicode reserves for internal use and
//! which occur nowhere else; templates copy them like any other character, and [`marked`](super::marked)
//! makes string methods ignore them. After rendering they are removed, and their positions become the offsets
//! that no control token may contain.

use super::Json;
use crate::tokenizer::trie::Trie;
use std::sync::Arc;

/// The author of a text, which determines which texts are marked in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// The user, a tool, or a document: texts of control tokens and marks of reasoning and tool calls are
    /// marked.
    User,
    /// The host or the model itself, whose marks of reasoning and tool calls are intended: only texts of
    /// control tokens are marked.
    HostOrModel,
}

/// Finds the positions of markers, for one set of control texts.
#[derive(Debug, Default)]
pub(super) struct ControlFinder {
    /// The control texts, followed by the texts that are marked only in text by users.
    texts: Vec<String>,
    /// Number of control texts.
    n_control: usize,
    /// Trie of the texts' bytes, with their indices.
    forward: Trie,
    /// Trie of the reversed texts' bytes.
    backward: Trie,
    /// Length of the longest text in bytes.
    len_max: usize,
}

impl ControlFinder {
    /// Texts of a single character have no inner offset that could be protected, and are skipped.
    pub(super) fn new<'a>(
        control: impl Iterator<Item = &'a str>,
        user_defined: impl Iterator<Item = &'a str>,
    ) -> Self {
        let is_long = |text: &&str| text.chars().nth(1).is_some();
        let mut texts: Vec<String> = control.filter(is_long).map(str::to_owned).collect();
        let n_control = texts.len();
        texts.extend(user_defined.filter(is_long).map(str::to_owned));
        let reversed = |text: &String| text.bytes().rev().collect::<Vec<u8>>();
        Self {
            forward: Trie::new((0..).zip(&texts)),
            backward: Trie::new((0..).zip(texts.iter().map(reversed))),
            len_max: texts.iter().map(String::len).max().unwrap_or(0),
            texts,
            n_control,
        }
    }

    /// The marks that `text` needs, in order.
    fn marks(&self, text: &str, author: Author) -> Vec<Mark> {
        let n_marked = if author == Author::User { self.texts.len() } else { self.n_control };
        let bytes = text.as_bytes();
        let mut marks = Vec::new();
        let completes_before = (1..=bytes.len().min(self.len_max.saturating_sub(1)))
            .any(|len| self.backward.is_start(bytes[..len].iter().rev().copied()));
        if completes_before {
            marks.push(Mark { at: 0, kind: MarkKind::Edge });
        }
        let mut completes_after = false;
        for (at, _) in text.char_indices().filter(|(at, _)| self.forward.starts_with(bytes[*at])) {
            let found = self.forward.prefixes(&bytes[at..]);
            for (len, id) in found.filter(|(_, id)| (*id as usize) < n_marked) {
                marks.push(Mark { at, kind: MarkKind::Open(id) });
                marks.push(Mark { at: at + len, kind: MarkKind::Close(id) });
            }
            let may_complete = bytes.len() - at < self.len_max;
            completes_after |= may_complete && self.forward.is_start(bytes[at..].iter().copied());
        }
        if completes_after {
            marks.push(Mark { at: bytes.len(), kind: MarkKind::Edge });
        }
        marks.sort_by_key(|mark| (mark.at, matches!(mark.kind, MarkKind::Open(_))));
        marks
    }
}

/// A mark in a text without its markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes of text before it.
    pub(super) at: usize,
    pub(super) kind: MarkKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkKind {
    /// User text begins or ends here, or was cut within a control text: no control token may extend across.
    Edge,
    /// Start of the control text with this index, in user text.
    Open(u32),
    /// End of the control text with this index.
    Close(u32),
}

/// A text and the marks that were in it, in order.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) plain: String,
    pub(super) marks: Vec<Mark>,
    /// Number of marker characters of each mark.
    pub(super) mark_chars: Vec<usize>,
}

/// The markers of one conversation, and the control texts that they name.
#[derive(Clone, Debug)]
pub(super) struct Marking {
    finder: Arc<ControlFinder>,
    edge: char,
    open: char,
    close: char,
    /// Marks where a continued message is cut; not related to control texts.
    cut: char,
    /// Digits of the index of a control text, as many as the largest index needs.
    digits: Vec<char>,
    width: usize,
}

impl Marking {
    /// Chooses markers that are not among the `used` ones of the text; `None` if too few are left.
    pub(super) fn new(finder: Arc<ControlFinder>, used: UsedMarkers) -> Option<Self> {
        let mut unused = MARKERS.zip(0..).filter(|(_, i)| used.0 >> i & 1 == 0).map(|(c, _)| c);
        let (edge, open, close, cut) = (unused.next()?, unused.next()?, unused.next()?, unused.next()?);
        let digits: Vec<char> = unused.collect();
        if digits.len() < 2 {
            return None;
        }
        let last = finder.texts.len().saturating_sub(1);
        let width = last.checked_ilog(digits.len()).unwrap_or(0) as usize + 1;
        Some(Self { finder, edge, open, close, cut, digits, width })
    }

    /// A character that occurs nowhere else, and that string operations treat like any other.
    pub(super) fn cut(&self) -> char {
        self.cut
    }

    /// Marks a string in place.
    pub(super) fn mark_string(&self, text: &mut String, author: Author) {
        let marks = self.finder.marks(text, author);
        if !marks.is_empty() {
            *text = self.encode(text, &marks);
        }
    }

    /// Marks every string and every key of a value.
    pub(super) fn mark_json(&self, value: &mut Json, author: Author) {
        match value {
            Json::String(text) => self.mark_string(text, author),
            Json::Array(items) => items.iter_mut().for_each(|item| self.mark_json(item, author)),
            Json::Object(fields) => {
                for (key, value) in fields {
                    self.mark_string(key, author);
                    self.mark_json(value, author);
                }
            }
            Json::Null | Json::Bool(_) | Json::Int(_) | Json::Float(_) => {}
        }
    }

    /// `plain` with `marks`, which are in order.
    pub(super) fn encode(&self, plain: &str, marks: &[Mark]) -> String {
        let mark_bytes = (1 + self.width) * self.edge.len_utf8();
        let mut out = String::with_capacity(plain.len() + marks.len() * mark_bytes);
        let mut done = 0;
        for mark in marks {
            out.push_str(plain.get(done..mark.at).unwrap_or_default());
            done = mark.at;
            match mark.kind {
                MarkKind::Edge => out.push(self.edge),
                MarkKind::Open(id) => self.put_index(self.open, id, &mut out),
                MarkKind::Close(id) => self.put_index(self.close, id, &mut out),
            }
        }
        out.push_str(plain.get(done..).unwrap_or_default());
        out
    }

    fn put_index(&self, marker: char, index: u32, out: &mut String) {
        out.push(marker);
        let mut rest = index as usize;
        for _ in 0..self.width {
            out.extend(self.digits.get(rest % self.digits.len()));
            rest /= self.digits.len();
        }
    }

    /// Removes the markers from `text`; `None` if there are none.
    pub(super) fn decode(&self, text: &str) -> Option<Decoded> {
        // All markers begin with this byte, which is rare in other text.
        if !text.as_bytes().contains(&MARKER_BYTE) || !text.contains(is_marker) {
            return None;
        }
        let mut decoded = Decoded { plain: String::with_capacity(text.len()), ..Decoded::default() };
        let mut rest = text;
        while let Some(start) = rest.find(is_marker) {
            let (before, found) = rest.split_at(start);
            decoded.plain.push_str(before);
            let mut chars = found.chars();
            let (first, mut taken) = (chars.next().unwrap_or_default(), 1);
            rest = chars.as_str();
            let at = decoded.plain.len();
            let kind = if first == self.open || first == self.close {
                // A template that cuts strings at fixed positions may have cut a marker: the rest of it is
                // treated as an edge.
                match self.index(rest) {
                    Some(id) => {
                        rest = rest.get(self.width * MARKER_LEN..).unwrap_or_default();
                        taken += self.width;
                        if first == self.open { MarkKind::Open(id) } else { MarkKind::Close(id) }
                    }
                    None => MarkKind::Edge,
                }
            } else if first == self.edge || self.digits.contains(&first) {
                MarkKind::Edge
            } else {
                decoded.plain.push(first);
                continue;
            };
            decoded.marks.push(Mark { at, kind });
            decoded.mark_chars.push(taken);
        }
        decoded.plain.push_str(rest);
        Some(decoded)
    }

    /// The index of a control text that `text` begins with.
    fn index(&self, text: &str) -> Option<u32> {
        let mut chars = text.chars();
        let (mut index, mut place) = (0usize, 1usize);
        for _ in 0..self.width {
            let next = chars.next()?;
            let digit = self.digits.iter().position(|digit| *digit == next)?;
            index = index.checked_add(digit.checked_mul(place)?)?;
            place = place.checked_mul(self.digits.len())?;
        }
        (index < self.finder.texts.len()).then_some(index as u32)
    }

    /// The control text that a mark refers to, if it is present at that position in `plain`: its start and
    /// its text.
    pub(super) fn control_text(&self, plain: &str, mark: Mark) -> Option<(usize, &str)> {
        let (start, id) = match mark.kind {
            MarkKind::Edge => return None,
            MarkKind::Open(id) => (Some(mark.at), id),
            MarkKind::Close(id) => (mark.at.checked_sub(self.finder.texts.get(id as usize)?.len()), id),
        };
        let text = self.finder.texts.get(id as usize)?;
        let start =
            start.filter(|start| plain.get(*start..).is_some_and(|rest| rest.starts_with(text.as_str())));
        Some((start?, text))
    }

    /// Bytes of the longest control text.
    #[cfg(feature = "chat-template")]
    pub(super) fn len_max(&self) -> usize {
        self.finder.len_max
    }

    /// Removes the markers from a rendered text. Returns the byte offsets that no control token may contain,
    /// ascending and unique.
    ///
    /// One of the two marks of a control text suffices to protect it, and protects only that text: a control
    /// token that the template itself writes next to the rest of a user's text remains one.
    pub(super) fn take(&self, text: &mut String) -> Vec<usize> {
        let Some(Decoded { plain, marks, .. }) = self.decode(text) else { return Vec::new() };
        let offset = |mark: &Mark| match mark.kind {
            MarkKind::Edge => Some(mark.at),
            MarkKind::Open(_) | MarkKind::Close(_) => {
                let (start, text) = self.control_text(&plain, *mark)?;
                Some(start + text.chars().next().map_or(0, char::len_utf8))
            }
        };
        let mut offsets: Vec<usize> = marks.iter().filter_map(offset).collect();
        offsets.sort_unstable();
        offsets.dedup();
        *text = plain;
        offsets
    }
}

/// The characters from which markers are chosen: noncharacters, which never occur in text for interchange
/// (Unicode Standard, section 23.7).
const MARKERS: std::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDEF}';

/// The first byte of each in UTF-8, and its number of bytes.
const MARKER_BYTE: u8 = 0xEF;
const MARKER_LEN: usize = 3;

/// Whether a character may be a marker.
pub(super) fn is_marker(c: char) -> bool {
    MARKERS.contains(&c)
}

/// Marker characters that occur in a text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UsedMarkers(u32);

impl UsedMarkers {
    pub(super) fn add(&mut self, text: &str) {
        if text.as_bytes().contains(&MARKER_BYTE) {
            for c in text.chars().filter(|&c| is_marker(c)) {
                self.0 |= 1 << (c as u32 - *MARKERS.start() as u32);
            }
        }
    }

    pub(super) fn add_json(&mut self, value: &Json) {
        match value {
            Json::String(text) => self.add(text),
            Json::Array(items) => items.iter().for_each(|item| self.add_json(item)),
            Json::Object(fields) => fields.iter().for_each(|(key, value)| {
                self.add(key);
                self.add_json(value);
            }),
            Json::Null | Json::Bool(_) | Json::Int(_) | Json::Float(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marking(control: &[&str]) -> Marking {
        let finder = ControlFinder::new(control.iter().copied(), [].into_iter());
        Marking::new(Arc::new(finder), UsedMarkers::default()).unwrap()
    }

    /// The marked text with `^` for an edge and brackets around control texts.
    fn mark(control: &[&str], text: &str) -> String {
        let marking = marking(control);
        let mut text = text.to_owned();
        marking.mark_string(&mut text, Author::User);
        let shown = |c| match c {
            c if c == marking.edge => Some('^'),
            c if c == marking.open => Some('('),
            c if c == marking.close => Some(')'),
            c => Some(c).filter(|c| !is_marker(*c)),
        };
        text.chars().filter_map(shown).collect()
    }

    #[test]
    fn control_texts_are_marked_outside() {
        let control = ["<s>", "<|im_start|>", "[INST]", "｜x｜"];
        assert_eq!(mark(&control, "nothing here"), "nothing here");
        assert_eq!(mark(&control, "a <s> b"), "a (<s>) b");
        assert_eq!(mark(&control, "<s><s>"), "(<s>)(<s>)");
        assert_eq!(mark(&control, "<<s>"), "<(<s>)");
        assert_eq!(mark(&control, "<|im_<|im_start|>start|>."), "<|im_(<|im_start|>)start|>.");
        assert_eq!(mark(&control, "a ｜x｜."), "a (｜x｜).");
        assert_eq!(mark(&["aa", "a", ""], "xaaax"), "x(a(a)a)x", "they overlap");
        assert_eq!(mark(&["ab", "abc"], "xabcx"), "x((ab)c)x");
    }

    #[test]
    fn ends_that_neighbours_could_complete_are_marked() {
        let control = ["<s>", "<|end|>", "｜x｜"];
        assert_eq!(mark(&control, "a<"), "a<^");
        assert_eq!(mark(&control, "a<|en"), "a<|en^");
        assert_eq!(mark(&control, "a<|x"), "a<|x");
        assert_eq!(mark(&control, ">a"), "^>a");
        assert_eq!(mark(&control, "d|>a"), "^d|>a");
        assert_eq!(mark(&control, "nd|> <"), "^nd|> <^");
        assert_eq!(mark(&control, "x｜"), "^x｜^");
        assert_eq!(mark(&control, ""), "");
    }

    #[test]
    fn unused_markers_are_chosen() {
        let finder = || Arc::new(ControlFinder::new(["<s>"].into_iter(), [].into_iter()));
        let mut used = UsedMarkers::default();
        used.add("a\u{FDD0}b\u{FDD2} \u{FDCF}\u{FDF0}\u{FEFF}");
        let nested = Json::Array(vec![Json::Object(vec![("\u{FDD1}".into(), Json::from("x"))])]);
        used.add_json(&nested);
        let marking = Marking::new(finder(), used).unwrap();
        assert_eq!((marking.edge, marking.open, marking.close), ('\u{FDD3}', '\u{FDD4}', '\u{FDD5}'));
        let mut text = "\u{FDD0}<s>\u{FDD2}<".to_owned();
        marking.mark_string(&mut text, Author::User);
        assert_eq!(marking.take(&mut text), [4, 10]);
        assert_eq!(text, "\u{FDD0}<s>\u{FDD2}<");
        used.add(&MARKERS.skip(5).collect::<String>());
        assert!(Marking::new(finder(), used).is_none());
    }

    #[test]
    fn marks_of_thousands_of_control_texts_are_told_apart() {
        let texts: Vec<String> = (0..2000).map(|i| format!("<|reserved_{i}|>")).collect();
        let marking = marking(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut text = texts.concat();
        marking.mark_string(&mut text, Author::User);
        assert_eq!(marking.take(&mut text).len(), 2000);
        assert_eq!(text, texts.concat());
    }

    #[test]
    fn user_defined_texts_are_marked_in_texts_of_users_alone() {
        let finder = ControlFinder::new(["<s>"].into_iter(), ["</think>", "x"].into_iter());
        let marking = Marking::new(Arc::new(finder), UsedMarkers::default()).unwrap();
        for (author, offsets) in [(Author::User, vec![2, 5]), (Author::HostOrModel, vec![2])] {
            let mut text = "x<s></think>x".to_owned();
            marking.mark_string(&mut text, author);
            assert_eq!(marking.take(&mut text), offsets);
            assert_eq!(text, "x<s></think>x");
        }
    }

    #[test]
    fn either_mark_protects_the_text_that_it_names_alone() {
        let marking = marking(&["<a>", "<b>"]);
        let mut marked = "x<a>y".to_owned();
        marking.mark_string(&mut marked, Author::User);
        let (open, close) = (marked.find('<').unwrap(), marked.find('>').unwrap() + 1);
        for (cut, offsets) in [
            (marked[..close].to_owned(), vec![2]),
            (marked[open..].to_owned(), vec![1]),
            (marked[open..close].to_owned(), vec![]),
            (format!("{}<b>", &marked[..open]), vec![]),
            (format!("<b>{}", &marked[close..]), vec![]),
            (format!("{}<b>", &marked[..close + MARKER_LEN]), vec![2, 4]),
        ] {
            let mut text = cut.clone();
            assert_eq!(marking.take(&mut text), offsets, "{cut:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        // Text before and after does not matter: no control text overlaps a string that a user wrote without
        // a protected offset inside, unless the string is within the control text.
        #[test]
        fn no_control_text_reaches_into_a_marked_string(
            control in proptest::collection::vec("[<|ab>é]{2,5}", 1..5),
            before in "[<|ab>é]{0,6}",
            user in "[<|ab>é]{0,8}",
            after in "[<|ab>é]{0,6}",
        ) {
            let marking = marking(&control.iter().map(String::as_str).collect::<Vec<_>>());
            let mut marked = user.clone();
            marking.mark_string(&mut marked, Author::User);
            let mut text = format!("{before}{marked}{after}");
            let offsets = marking.take(&mut text);
            prop_assert_eq!(&text, &format!("{before}{user}{after}"));
            let (start, end) = (before.len(), before.len() + user.len());
            for found in control.iter().flat_map(|c| {
                text.char_indices().filter(|(i, _)| text[*i..].starts_with(c.as_str())).map(|(i, _)| i..i + c.len()).collect::<Vec<_>>()
            }) {
                let touches = found.start < end && found.end > start;
                let encloses = found.start < start && found.end > end;
                let protected = offsets.iter().any(|offset| found.start < *offset && *offset < found.end);
                prop_assert!(!touches || encloses || protected, "{found:?} in {text:?} {offsets:?}");
            }
        }
    }
}
