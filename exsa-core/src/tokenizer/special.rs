//! Special tokens in a text: found before all else, they part it into themselves and the text between them.

use super::EncodeOptions;
use super::tokens::{TokenType, Tokens};
use super::trie::Trie;
use crate::token::TokenId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Plain text: bytes of the whole.
    Text(Range<usize>),
    /// A special token.
    Token(TokenId),
}

/// The side on which a special token swallows white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strip {
    /// On neither.
    None,
    /// Before it.
    Left,
    /// After it.
    Right,
}

/// The tokens that are found in text before it is cut: user-defined ones always, hidden ones where allowed.
pub(super) struct SpecialTokens {
    trie: Trie,
    hidden: hashbrown::HashSet<TokenId>,
    strips: hashbrown::HashMap<TokenId, Strip>,
    has_user_defined: bool,
}

impl SpecialTokens {
    /// `strip` tells which white space a token swallows.
    pub(super) fn new(tokens: &Tokens, strip: impl Fn(&str) -> Strip) -> Self {
        let is_special = |kind: TokenType| kind.is_hidden() || kind == TokenType::UserDefined;
        let special = || tokens.iter().filter(|(_, _, kind)| is_special(*kind));
        Self {
            trie: Trie::new(special().map(|(id, text, _)| (id, text))),
            hidden: special().filter(|(_, _, kind)| kind.is_hidden()).map(|(id, ..)| id).collect(),
            strips: special()
                .map(|(id, text, _)| (id, strip(text)))
                .filter(|(_, strip)| *strip != Strip::None)
                .collect(),
            has_user_defined: special().any(|(_, _, kind)| kind == TokenType::UserDefined),
        }
    }

    /// Parts `text`. Longer tokens are found before shorter ones, wherever they are; of equally long ones
    /// those of lower id, and then from left to right.
    pub(super) fn part(&self, text: &str, options: &EncodeOptions<'_>) -> Vec<Part> {
        let mut found = Vec::new();
        if !self.trie.is_empty() && (options.parse_special || self.has_user_defined) {
            self.find(text, options, &mut found);
        }
        let mut parts = Vec::with_capacity(2 * found.len() + 1);
        let mut from = 0;
        found.sort_unstable_by_key(|found| found.range.start);
        for Found { range, id } in found {
            if from < range.start {
                parts.push(Part::Text(from..range.start));
            }
            parts.extend(id.map(Part::Token));
            from = range.end;
        }
        if from < text.len() {
            parts.push(Part::Text(from..text.len()));
        }
        parts
    }

    fn find(&self, text: &str, options: &EncodeOptions<'_>, found: &mut Vec<Found>) {
        // Candidates that overlap are decided together. Where tokens swallow white space that may be part of
        // another token, all are.
        let together = !self.strips.is_empty();
        let mut cluster = Cluster { text, tokens: self, options, range: 0..0, candidates: Vec::new() };
        for (at, byte) in text.bytes().enumerate() {
            if !self.trie.starts_with(byte) {
                continue;
            }
            let Some(candidate) = self.longest(text, at, usize::MAX, options) else { continue };
            if at >= cluster.range.end && !together {
                cluster.decide(found);
                cluster.range = at..at;
            }
            cluster.range.end = cluster.range.end.max(at + candidate.len);
            cluster.candidates.push(candidate);
        }
        if together {
            cluster.range = 0..text.len();
        }
        cluster.decide(found);
    }

    /// The longest token at byte `at` that has `len_max` bytes or less and may be recognised there.
    fn longest(
        &self,
        text: &str,
        at: usize,
        len_max: usize,
        options: &EncodeOptions<'_>,
    ) -> Option<Candidate> {
        let bytes = text.as_bytes().get(at..)?;
        let bytes = bytes.get(..len_max).unwrap_or(bytes);
        let is_allowed = |len: usize, id: TokenId| {
            let is_wanted = options.parse_special || !self.hidden.contains(&id);
            is_wanted && !is_protected(options.protected_offsets, at, len)
        };
        let prefixes = self.trie.prefixes(bytes).filter(|(len, id)| is_allowed(*len, *id));
        prefixes.last().map(|(len, id)| Candidate { len, id: Reverse(id), at: Reverse(at) })
    }
}

/// Whether a protected offset lies inside the `len` bytes from `at` on.
fn is_protected(offsets: &[usize], at: usize, len: usize) -> bool {
    let after = offsets.partition_point(|offset| *offset <= at);
    offsets.get(after).is_some_and(|offset| *offset < at + len)
}

/// A range of the text that is not plain text: a special token, or white space that one strips.
struct Found {
    range: Range<usize>,
    id: Option<TokenId>,
}

/// A token that may be at a place. The greatest is taken first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    len: usize,
    id: Reverse<TokenId>,
    at: Reverse<usize>,
}

/// Candidates that are decided together, one for each place, the longest there.
struct Cluster<'a> {
    text: &'a str,
    tokens: &'a SpecialTokens,
    options: &'a EncodeOptions<'a>,
    /// The bytes of the text that candidates, and white space that they swallow, may lie in.
    range: Range<usize>,
    candidates: Vec<Candidate>,
}

impl Cluster<'_> {
    /// Takes all candidates, longest first; one that no longer fits is replaced by a shorter token at its
    /// position.
    fn decide(&mut self, found: &mut Vec<Found>) {
        let first = self.range.start;
        let mut taken = vec![false; self.range.len()];
        let mut queue = BinaryHeap::from(std::mem::take(&mut self.candidates));
        while let Some(Candidate { len, id: Reverse(id), at: Reverse(at) }) = queue.pop() {
            let (before, rest) = taken.split_at_mut(at - first);
            let free = rest.iter().take(len).take_while(|taken| !**taken).count();
            if free < len {
                queue.extend(self.tokens.longest(self.text, at, free, self.options));
                continue;
            }
            let (here, after) = rest.split_at_mut(len);
            here.fill(true);
            found.push(Found { range: at..at + len, id: Some(id) });
            let spaces = match self.tokens.strips.get(&id) {
                Some(Strip::Left) => {
                    let spaces = count_spaces(before.iter().rev(), self.text.bytes().take(at).rev());
                    before.iter_mut().rev().take(spaces).for_each(|taken| *taken = true);
                    at - spaces..at
                }
                Some(Strip::Right) => {
                    let spaces = count_spaces(after.iter(), self.text.bytes().skip(at + len));
                    after.iter_mut().take(spaces).for_each(|taken| *taken = true);
                    at + len..at + len + spaces
                }
                Some(Strip::None) | None => continue,
            };
            if !spaces.is_empty() {
                found.push(Found { range: spaces, id: None });
            }
        }
    }
}

/// How many bytes are ASCII white space that no token has taken, up to the first that is not.
fn count_spaces<'a>(taken: impl Iterator<Item = &'a bool>, bytes: impl Iterator<Item = u8>) -> usize {
    taken.zip(bytes).take_while(|(taken, byte)| !**taken && matches!(byte, b'\t'..=b'\r' | b' ')).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: each token in turn, longest first, is searched for in the text that is left.
    fn reference(tokens: &[(&str, TokenType, Strip)], text: &str, options: &EncodeOptions<'_>) -> Vec<Part> {
        let mut order: Vec<usize> = (0..tokens.len()).filter(|id| !tokens[*id].0.is_empty()).collect();
        order.sort_by_key(|id| (Reverse(tokens[*id].0.len()), *id));
        let mut parts = vec![Part::Text(0..text.len())];
        for id in order {
            let (token, kind, strip) = tokens[id];
            if kind.is_hidden() && !options.parse_special {
                continue;
            }
            let mut next = Vec::new();
            for part in parts {
                let Part::Text(Range { start: mut from, end }) = part else {
                    next.push(part);
                    continue;
                };
                let mut look = from;
                while let Some(at) = text[look..end].find(token).map(|at| look + at) {
                    let behind = at + token.len();
                    if options.protected_offsets.iter().any(|b| (at + 1..behind).contains(b)) {
                        look = at + text[at..].chars().next().map_or(1, char::len_utf8);
                        continue;
                    }
                    let is_space = |c: char| matches!(c, '\t'..='\r' | ' ');
                    let before = match strip {
                        Strip::Left => text[from..at].trim_end_matches(is_space),
                        _ => &text[from..at],
                    };
                    next.extend([Part::Text(from..from + before.len()), Part::Token(id as TokenId)]);
                    from = behind;
                    if strip == Strip::Right {
                        from = end - text[behind..end].trim_start_matches(is_space).len();
                    }
                    look = from;
                }
                next.push(Part::Text(from..end));
            }
            parts = next;
        }
        parts.retain(|part| !matches!(part, Part::Text(range) if range.is_empty()));
        parts
    }

    fn kind() -> impl Strategy<Value = TokenType> {
        prop::sample::select(vec![
            TokenType::Control,
            TokenType::UserDefined,
            TokenType::Unknown,
            TokenType::Normal,
        ])
    }

    fn strip() -> impl Strategy<Value = Strip> {
        prop::sample::select(vec![Strip::None, Strip::Left, Strip::Right])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn longest_tokens_first(
            texts in prop::collection::btree_set("[ab é]{1,4}", 0..8),
            kinds in prop::collection::vec(kind(), 8),
            strips in prop::option::of(prop::collection::vec(strip(), 8)),
            text in "[ab é]{0,24}",
            special: bool,
            mut offsets in prop::collection::vec(0..24usize, 0..4),
        ) {
            offsets.sort_unstable();
            let options = EncodeOptions { parse_special: special, protected_offsets: &offsets };
            let strips = strips.unwrap_or_else(|| vec![Strip::None; 8]);
            let all = texts.iter().zip(kinds).zip(strips).map(|((text, kind), strip)| (text.as_str(), kind, strip));
            let all: Vec<(&str, TokenType, Strip)> = all.collect();
            if all.is_empty() {
                return Ok(());
            }
            let texts: Vec<&str> = all.iter().map(|(text, ..)| *text).collect();
            let types: Vec<TokenType> = all.iter().map(|(_, kind, _)| *kind).collect();
            let tokens = Tokens::new(&texts, &types).unwrap();
            let strip = |text: &str| all.iter().find(|(other, ..)| *other == text).map_or(Strip::None, |found| found.2);
            let special_tokens = SpecialTokens::new(&tokens, strip);
            let special_only: Vec<_> =
                all.iter().map(|(text, kind, strip)| match kind {
                    TokenType::Normal => ("", *kind, *strip),
                    _ => (*text, *kind, *strip),
                }).collect();
            prop_assert_eq!(special_tokens.part(&text, &options), reference(&special_only, &text, &options));
        }
    }
}
