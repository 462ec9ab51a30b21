//! Suffix automaton of a growing sequence of tokens (Blumer et al. 1985), with counts.
//!
//! A state represents the substrings that end at the same positions. Its suffix link points to the longest
//! suffix that ends at more positions. So after each token, the link of the last state is the longest suffix
//! of the text that occurred before, and the edges of that state are the tokens that followed it there.
//! Appending takes amortized constant time; `n` tokens take at most `2n` states and `3n` edges.

use crate::token::TokenId;
use hashbrown::HashMap;

/// Marks the end of a list.
const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;
/// Maximum states on the path of suffix links for which a token is counted, longest contexts first. Only
/// repetitive texts have longer paths.
const COUNTED_MAX: usize = 32;
/// Maximum edges of a state compared for a draft, latest first.
const COMPARED_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct State {
    /// Length of the longest of its substrings.
    len: u32,
    link: u32,
    /// Number of positions at which its substrings end.
    count: u32,
    /// Latest of these positions.
    latest: u32,
    /// First edge of its list.
    edges: u32,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    token: TokenId,
    to: u32,
    next: u32,
}

/// The longest suffix of another text that occurs in the automaton's text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    state: u32,
    len: u32,
}

impl Cursor {
    /// Length of the suffix.
    pub(super) fn matched(&self) -> usize {
        self.len as usize
    }
}

/// A suffix automaton.
#[derive(Debug)]
pub(super) struct Automaton {
    states: Vec<State>,
    edges: Vec<Edge>,
    /// Edges by state and token.
    index: HashMap<(u32, TokenId), u32>,
    last: u32,
}

impl Default for Automaton {
    fn default() -> Self {
        let mut automaton = Self { states: Vec::new(), edges: Vec::new(), index: HashMap::new(), last: ROOT };
        automaton.clear();
        automaton
    }
}

impl Automaton {
    /// Removes all tokens but keeps the memory.
    pub(super) fn clear(&mut self) {
        self.states.clear();
        self.edges.clear();
        self.index.clear();
        self.states.push(State { len: 0, link: NONE, count: 0, latest: 0, edges: NONE });
        self.last = ROOT;
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.state(self.last).len as usize
    }

    /// Bytes of allocated memory.
    pub(super) fn bytes(&self) -> usize {
        self.states.capacity() * size_of::<State>()
            + self.edges.capacity() * size_of::<Edge>()
            + self.index.capacity() * size_of::<((u32, TokenId), u32)>()
    }

    fn state(&self, at: u32) -> &State {
        &self.states[at as usize]
    }

    fn state_mut(&mut self, at: u32) -> &mut State {
        &mut self.states[at as usize]
    }

    fn target(&self, from: u32, token: TokenId) -> Option<u32> {
        self.index.get(&(from, token)).map(|edge| self.edges[*edge as usize].to)
    }

    fn push_state(&mut self, state: State) -> u32 {
        self.states.push(state);
        (self.states.len() - 1) as u32
    }

    fn push_edge(&mut self, from: u32, token: TokenId, to: u32) {
        let at = self.edges.len() as u32;
        let next = std::mem::replace(&mut self.state_mut(from).edges, at);
        self.edges.push(Edge { token, to, next });
        self.index.insert((from, token), at);
    }

    /// Appends a token.
    pub(super) fn push(&mut self, token: TokenId) {
        let len = self.state(self.last).len + 1;
        let new = self.push_state(State { len, link: ROOT, count: 0, latest: len, edges: NONE });
        let mut at = self.last;
        let found = loop {
            if at == NONE {
                break None;
            }
            if let Some(to) = self.target(at, token) {
                break Some(to);
            }
            self.push_edge(at, token, new);
            at = self.state(at).link;
        };
        self.last = new;
        if let Some(found) = found {
            self.state_mut(new).link = self.split(at, token, found);
        }
        let mut at = new;
        for _ in 0..COUNTED_MAX {
            let state = self.state_mut(at);
            state.count += 1;
            state.latest = len;
            at = state.link;
            if at == ROOT || at == NONE {
                break;
            }
        }
    }

    /// The state of the strings of `from` followed by `token`, an edge that leads to `to`: either `to`, or a
    /// new state if `to` also contains longer strings.
    fn split(&mut self, from: u32, token: TokenId, to: u32) -> u32 {
        let len = self.state(from).len + 1;
        if self.state(to).len == len {
            return to;
        }
        let copy = self.push_state(State { len, edges: NONE, ..*self.state(to) });
        let mut edge = self.state(to).edges;
        while edge != NONE {
            let Edge { token, to, next } = self.edges[edge as usize];
            self.push_edge(copy, token, to);
            edge = next;
        }
        self.state_mut(to).link = copy;
        let mut at = from;
        while at != NONE {
            let Some(edge) = self.index.get(&(at, token)).copied() else { break };
            let edge = &mut self.edges[edge as usize];
            if edge.to != to {
                break;
            }
            edge.to = copy;
            at = self.state(at).link;
        }
        copy
    }

    /// Length of the longest suffix that occurred before.
    pub(super) fn matched(&self) -> usize {
        match self.state(self.last).link {
            NONE => 0,
            link => self.state(link).len as usize,
        }
    }

    /// Appends up to `max` likely next tokens to `drafts`: after the longest suffix that occurred before, the
    /// token that followed it most often (the latest, in a tie), and so on from there. At the end of the
    /// text, drafting continues from the suffix, so that a repetition is continued. Drafting ends if the next
    /// token followed in less than a third of the cases. Without a suffix of at least `matched_min` tokens,
    /// there are no drafts.
    pub(super) fn propose(&self, matched_min: usize, max: usize, drafts: &mut Vec<TokenId>) {
        if self.matched() >= matched_min.max(1) {
            self.propose_behind(self.state(self.last).link, max, drafts);
        }
    }

    /// Like [`propose`](Self::propose), after the suffix of another text.
    pub(super) fn propose_at(
        &self,
        cursor: Cursor,
        matched_min: usize,
        max: usize,
        drafts: &mut Vec<TokenId>,
    ) {
        if cursor.matched() >= matched_min.max(1) {
            self.propose_behind(cursor.state, max, drafts);
        }
    }

    /// Moves a cursor over the next token of its text.
    pub(super) fn advance(&self, cursor: &mut Cursor, token: TokenId) {
        loop {
            // Tokens appended since then may have split off a separate state for the suffix.
            while cursor.state != ROOT && cursor.len <= self.state(self.state(cursor.state).link).len {
                cursor.state = self.state(cursor.state).link;
            }
            if let Some(to) = self.target(cursor.state, token) {
                *cursor = Cursor { state: to, len: cursor.len + 1 };
                return;
            }
            if cursor.state == ROOT {
                *cursor = Cursor::default();
                return;
            }
            let link = self.state(cursor.state).link;
            *cursor = Cursor { state: link, len: self.state(link).len };
        }
    }

    /// Appends tokens that followed the substrings of the state `from` to `drafts`.
    fn propose_behind(&self, from: u32, max: usize, drafts: &mut Vec<TokenId>) {
        let mut at = from;
        for _ in 0..max {
            at = if at == self.last { from } else { at };
            let Some(edge) = self.most_frequent(at) else { break };
            drafts.push(edge.token);
            at = edge.to;
        }
    }

    fn most_frequent(&self, at: u32) -> Option<Edge> {
        let (mut next, mut best, mut total) = (self.state(at).edges, None, 0);
        for _ in 0..COMPARED_MAX {
            if next == NONE {
                break;
            }
            let edge = self.edges[next as usize];
            let to = self.state(edge.to);
            total += to.count;
            if best.is_none_or(|(key, _)| (to.count, to.latest) > key) {
                best = Some(((to.count, to.latest), edge));
            }
            next = edge.next;
        }
        best.filter(|((count, _), _)| count.saturating_mul(3) >= total).map(|(_, edge)| edge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tokens: &[TokenId]) -> Automaton {
        let mut automaton = Automaton::default();
        tokens.iter().for_each(|token| automaton.push(*token));
        automaton
    }

    /// Length of the longest suffix that occurs before, and how often each token followed it, found by
    /// comparing all places.
    fn by_comparison(tokens: &[TokenId]) -> (usize, Vec<(TokenId, usize)>) {
        let occurs = |len: usize| {
            let suffix = &tokens[tokens.len() - len..];
            (len..tokens.len()).filter(move |end| tokens[..*end].ends_with(suffix))
        };
        let matched =
            (0..tokens.len()).rev().find(|len| *len == 0 || occurs(*len).next().is_some()).unwrap_or(0);
        let mut counts: Vec<(TokenId, usize)> = Vec::new();
        for end in occurs(matched) {
            match counts.iter_mut().find(|(token, _)| *token == tokens[end]) {
                Some((_, count)) => *count += 1,
                None => counts.push((tokens[end], 1)),
            }
        }
        (matched, counts)
    }

    #[test]
    fn the_longest_suffix_and_its_continuations_are_those_of_a_comparison() {
        let mut random = 7_u64;
        for alphabet in [2, 3, 5, 20] {
            let mut tokens: Vec<TokenId> = Vec::new();
            let mut automaton = Automaton::default();
            for _ in 0..300 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let token = ((random >> 33) % alphabet) as TokenId;
                tokens.push(token);
                automaton.push(token);
                let (matched, counts) = by_comparison(&tokens);
                assert_eq!(automaton.matched(), matched, "{tokens:?}");
                if matched == 0 {
                    continue;
                }
                let most = counts.iter().map(|(_, count)| *count).max().unwrap();
                let total: usize = counts.iter().map(|(_, count)| *count).sum();
                let mut drafts = Vec::new();
                automaton.propose(1, 1, &mut drafts);
                if most * 3 >= total {
                    assert!(counts.contains(&(drafts[0], most)), "{drafts:?} {counts:?} {tokens:?}");
                } else {
                    assert_eq!(drafts, [0; 0]);
                }
            }
            assert!(automaton.states.len() <= 2 * 300 && automaton.edges.len() <= 3 * 300 + 2);
        }
    }

    #[test]
    fn a_cursor_is_at_the_longest_suffix_that_occurs() {
        let mut random = 5_u64;
        let mut draw = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((random >> 33) % n) as TokenId
        };
        let (mut text, mut automaton) = (Vec::new(), Automaton::default());
        let (mut other, mut cursor) = (Vec::new(), Cursor::default());
        for _ in 0..2000 {
            // Both texts grow.
            if draw(3) == 0 {
                text.push(draw(4));
                automaton.push(text[text.len() - 1]);
            } else {
                other.push(draw(4));
                automaton.advance(&mut cursor, other[other.len() - 1]);
                let before = cursor.matched();
                assert!(before == 0 || text.windows(before).any(|part| other.ends_with(part)));
            }
        }
        // A cursor does not look back at what occurs by now, and is at the longest after a walk.
        let mut cursor = Cursor::default();
        for (i, token) in other.iter().enumerate() {
            automaton.advance(&mut cursor, *token);
            let read = &other[..=i];
            let occurs = |len: usize| len == 0 || text.windows(len).any(|part| read.ends_with(part));
            let longest = (0..=read.len().min(20)).rev().find(|len| occurs(*len)).unwrap_or(0);
            assert_eq!(cursor.matched(), longest);
        }
    }

    #[test]
    fn the_most_frequent_continuation_comes_before_the_latest() {
        let automaton = of(&[1, 2, 7, 0, 1, 2, 7, 5, 1, 2, 9, 4, 1, 2]);
        let mut drafts = Vec::new();
        automaton.propose(2, 2, &mut drafts);
        assert_eq!(drafts, [7, 5], "7 followed twice, and 5 is the latest behind it");
        drafts.clear();
        automaton.propose(3, 2, &mut drafts);
        assert_eq!(drafts, [0; 0], "two tokens match");
    }

    #[test]
    fn repetitions_are_continued_and_stay_cheap() {
        let automaton = of(&[3; 5000]);
        let mut drafts = Vec::new();
        automaton.propose(2, 8, &mut drafts);
        assert_eq!(drafts, [3; 8]);
        drafts.clear();
        of(&[1, 2, 1, 2, 1, 2]).propose(2, 5, &mut drafts);
        assert_eq!(drafts, [1, 2, 1, 2, 1]);
        assert_eq!(automaton.matched(), 4999);
        assert!(automaton.bytes() < 5000 * 200, "{}", automaton.bytes());
    }
}
