//! What a user writes never becomes a control token.
//!
//! Before a conversation is rendered, a marker goes into every string of it that holds the text of a control token,
//! or an end of one that text beside it could complete. The marker is a character that Unicode keeps free for such
//! internal use and that occurs nowhere else; templates copy it like any other. After
//! rendering the markers are taken out, and where they were no control token may be recognised.

use super::Json;

/// Where markers have to go, for one set of control texts.
#[derive(Debug, Default)]
pub(super) struct ControlFinder {
    /// The control texts.
    forward: Trie,
    /// The same, each from its end to its beginning.
    backward: Trie,
    /// Bytes of the longest.
    len_max: usize,
}

/// A set of byte strings that share their beginnings.
#[derive(Debug)]
struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// The nodes that one more byte leads to, ascending by byte.
    next: Vec<(u8, usize)>,
    /// Whether a string of the set ends here.
    ends: bool,
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Trie {
    fn insert(&mut self, bytes: impl Iterator<Item = u8>) {
        let mut node = 0;
        for byte in bytes {
            node = match self.nodes[node].next.binary_search_by_key(&byte, |next| next.0) {
                Ok(i) => self.nodes[node].next[i].1,
                Err(i) => {
                    let new = self.nodes.len();
                    self.nodes.push(Node::default());
                    self.nodes[node].next.insert(i, (byte, new));
                    new
                }
            };
        }
        self.nodes[node].ends = true;
    }

    /// Reads `bytes` as long as they lead on: whether a string of the set is among their beginnings, and whether all
    /// of them are the proper beginning of one.
    fn read(&self, bytes: impl Iterator<Item = u8>) -> (bool, bool) {
        let mut node = 0;
        let mut whole = false;
        for byte in bytes {
            let Ok(i) = self.nodes[node].next.binary_search_by_key(&byte, |next| next.0) else {
                return (whole, false);
            };
            node = self.nodes[node].next[i].1;
            whole |= self.nodes[node].ends;
        }
        (whole, !self.nodes[node].next.is_empty())
    }
}

impl ControlFinder {
    /// Texts of a single character have no inside for a marker and are passed over.
    pub(super) fn new<'a>(control: impl Iterator<Item = &'a str>) -> Self {
        let mut finder = Self::default();
        for text in control.filter(|text| text.chars().nth(1).is_some()) {
            finder.forward.insert(text.bytes());
            finder.backward.insert(text.bytes().rev());
            finder.len_max = finder.len_max.max(text.len());
        }
        finder
    }

    /// `text` with `marker` in it where control tokens must not be recognised: after the first character of
    /// every control text, before an end of one that the text begins with, and after a beginning of one that it ends with.
    fn mark(&self, text: &str, marker: char) -> Option<String> {
        let bytes = text.as_bytes();
        let mut places = Vec::new();
        let completes_before = (1..=bytes.len().min(self.len_max.saturating_sub(1)))
            .any(|len| self.backward.read(bytes[..len].iter().rev().copied()).1);
        if completes_before {
            places.push(0);
        }
        let mut completes_after = false;
        let starts = &self.forward.nodes[0].next;
        for (at, c) in text.char_indices() {
            if starts.binary_search_by_key(&bytes[at], |next| next.0).is_err() {
                continue;
            }
            let (whole, goes_on) = self.forward.read(bytes[at..].iter().copied());
            if whole {
                places.push(at + c.len_utf8());
            }
            completes_after |= goes_on;
        }
        if completes_after {
            places.push(bytes.len());
        }
        if places.is_empty() {
            return None;
        }
        let mut marked = String::with_capacity(text.len() + places.len() * marker.len_utf8());
        let mut done = 0;
        for place in places {
            marked.push_str(&text[done..place]);
            marked.push(marker);
            done = place;
        }
        marked.push_str(&text[done..]);
        Some(marked)
    }

    /// Marks a string in place.
    pub(super) fn mark_string(&self, text: &mut String, marker: char) {
        if let Some(marked) = self.mark(text, marker) {
            *text = marked;
        }
    }

    /// Marks every string and every key of a value.
    pub(super) fn mark_json(&self, value: &mut Json, marker: char) {
        match value {
            Json::String(text) => self.mark_string(text, marker),
            Json::Array(items) => items.iter_mut().for_each(|item| self.mark_json(item, marker)),
            Json::Object(fields) => {
                for (key, value) in fields {
                    self.mark_string(key, marker);
                    self.mark_json(value, marker);
                }
            }
            Json::Null | Json::Bool(_) | Json::Int(_) | Json::Float(_) => {}
        }
    }
}

/// The characters to choose a marker from: noncharacters, which text that is meant for others never holds
/// (Unicode Standard, section 23.7).
const MARKERS: std::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDEF}';

/// Whether a character may be a marker.
pub(super) fn is_marker(c: char) -> bool {
    MARKERS.contains(&c)
}

/// Marker characters that occur in some text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UsedMarkers(u32);

impl UsedMarkers {
    pub(super) fn add(&mut self, text: &str) {
        // All of them begin with this byte, which hardly any other text has.
        if text.as_bytes().contains(&0xEF) {
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

    /// A marker that does not occur.
    pub(super) fn unused(self) -> Option<char> {
        MARKERS.zip(0..).find(|(_, i)| self.0 >> i & 1 == 0).map(|(c, _)| c)
    }
}

/// Takes the markers out of `text`; the byte offsets where they were, ascending, each once.
pub(super) fn take_markers(text: &mut String, marker: char) -> Vec<usize> {
    let mut barriers = Vec::new();
    if text.contains(marker) {
        let mut plain = String::with_capacity(text.len());
        for part in text.split(marker) {
            plain.push_str(part);
            barriers.push(plain.len());
        }
        // The end of the last part is no marker's place.
        barriers.pop();
        barriers.dedup();
        *text = plain;
    }
    barriers
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const M: char = '\u{FDD0}';

    fn mark(control: &[&str], text: &str) -> String {
        let mut text = text.to_owned();
        ControlFinder::new(control.iter().copied()).mark_string(&mut text, M);
        text.replace(M, "^")
    }

    #[test]
    fn control_texts_are_marked_inside() {
        let control = ["<s>", "<|im_start|>", "[INST]", "｜x｜"];
        assert_eq!(mark(&control, "nothing here"), "nothing here");
        assert_eq!(mark(&control, "a <s> b"), "a <^s> b");
        assert_eq!(mark(&control, "<s><s>"), "<^s><^s>");
        assert_eq!(mark(&control, "<<s>"), "<<^s>");
        assert_eq!(mark(&control, "<|im_<|im_start|>start|>."), "<|im_<^|im_start|>start|>.");
        assert_eq!(mark(&control, "a ｜x｜."), "a ｜^x｜.");
        assert_eq!(mark(&["aa", "a", ""], "xaaax"), "xa^a^ax", "they overlap");
        assert_eq!(mark(&["ab", "abc"], "xabcx"), "xa^bcx");
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
    fn an_unused_marker_is_chosen() {
        let mut used = UsedMarkers::default();
        assert_eq!(used.unused(), Some('\u{FDD0}'));
        used.add("a\u{FDD0}b\u{FDD2} \u{FDCF}\u{FDF0}\u{FEFF}");
        assert_eq!(used.unused(), Some('\u{FDD1}'));
        let nested = Json::Array(vec![Json::Object(vec![("\u{FDD1}".into(), Json::from("x"))])]);
        used.add_json(&nested);
        assert_eq!(used.unused(), Some('\u{FDD3}'));
        used.add(&MARKERS.collect::<String>());
        assert_eq!(used.unused(), None);
    }

    #[test]
    fn markers_become_offsets() {
        let mut text = format!("{M}a{M}{M}bü{M}c{M}");
        assert_eq!(take_markers(&mut text, M), [0, 1, 4, 5]);
        assert_eq!(text, "abüc");
        assert_eq!(take_markers(&mut text, M), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        // Whatever stands before and after: no control text overlaps a string that a user wrote without a barrier
        // inside, unless the string is within the control text.
        #[test]
        fn no_control_text_reaches_into_a_marked_string(
            control in proptest::collection::vec("[<|ab>é]{2,5}", 1..5),
            before in "[<|ab>é]{0,6}",
            user in "[<|ab>é]{0,8}",
            after in "[<|ab>é]{0,6}",
        ) {
            let mut marked = user.clone();
            ControlFinder::new(control.iter().map(String::as_str)).mark_string(&mut marked, M);
            let mut text = format!("{before}{marked}{after}");
            let barriers = take_markers(&mut text, M);
            prop_assert_eq!(&text, &format!("{before}{user}{after}"));
            let (start, end) = (before.len(), before.len() + user.len());
            for found in control.iter().flat_map(|c| {
                text.char_indices().filter(|(i, _)| text[*i..].starts_with(c.as_str())).map(|(i, _)| i..i + c.len()).collect::<Vec<_>>()
            }) {
                let touches = found.start < end && found.end > start;
                let encloses = found.start < start && found.end > end;
                let barred = barriers.iter().any(|b| found.start < *b && *b < found.end);
                prop_assert!(!touches || encloses || barred, "{found:?} in {text:?} {barriers:?}");
            }
        }
    }
}
