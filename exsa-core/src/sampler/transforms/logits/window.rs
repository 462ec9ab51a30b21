//! Token counts over the last tokens of a sequence.

use crate::token::TokenId;
use std::collections::VecDeque;

/// Counts the tokens of the last `len` of a history, and keeps the counts for the next call.
///
/// Histories mostly grow by a token or lose a few drafts; then only these are
/// counted. The rest is compared with the tokens counted before, which costs less
/// than reading a row of logits, so the counts always match the given history.
#[derive(Debug)]
pub(in crate::sampler) struct Window {
    /// Length of the window.
    len: usize,
    /// The tokens that were counted.
    counted: VecDeque<TokenId>,
    /// Index in the history of the first counted token.
    start: usize,
    /// Counts of the counted tokens, ascending by token.
    counts: Vec<(TokenId, u32)>,
}

impl Window {
    pub(in crate::sampler) fn new(len: usize) -> Self {
        Self { len, counted: VecDeque::new(), start: 0, counts: Vec::new() }
    }

    /// The tokens among the last `len` of `history` with their counts, ascending by token.
    pub(in crate::sampler) fn counts(&mut self, history: &[TokenId]) -> &[(TokenId, u32)] {
        let start = history.len().saturating_sub(self.len);
        let common = self.common(history);
        // Changing a count moves half of the others on average; with many changes, sorting is cheaper.
        let changes = (self.counted.len() - common)
            + self.start.abs_diff(start)
            + (history.len() - self.start.min(history.len()) - common);
        if common == 0 || changes > 16 + self.counted.len() / 8 {
            self.recount(history, start);
        } else {
            while self.counted.len() > common {
                if let Some(token) = self.counted.pop_back() {
                    self.remove(token);
                }
            }
            for &token in &history[self.start + common..] {
                self.counted.push_back(token);
                self.add(token);
            }
            for &token in history[..self.start].iter().skip(start).rev() {
                self.counted.push_front(token);
                self.add(token);
            }
            for _ in self.start..start {
                if let Some(token) = self.counted.pop_front() {
                    self.remove(token);
                }
            }
            self.start = start;
        }
        &self.counts
    }

    /// Length of the prefix of the counted tokens that is unchanged in `history`.
    fn common(&self, history: &[TokenId]) -> usize {
        let Some(now) = history.get(self.start..) else { return 0 };
        let (front, back) = self.counted.as_slices();
        let (now_front, now_back) = now.split_at(front.len().min(now.len()));
        let equal = |a: &[TokenId], b: &[TokenId]| {
            let len = a.len().min(b.len());
            // Slice comparison runs at memory speed; only a mismatch needs a search.
            if a[..len] == b[..len] { len } else { a.iter().zip(b).take_while(|(a, b)| a == b).count() }
        };
        match equal(front, now_front) {
            n if n == front.len() => n + equal(back, now_back),
            n => n,
        }
    }

    fn recount(&mut self, history: &[TokenId], start: usize) {
        self.start = start;
        self.counted.clear();
        self.counted.extend(&history[start..]);
        self.counts.clear();
        let mut sorted = history[start..].to_vec();
        sorted.sort_unstable();
        for run in sorted.chunk_by(|a, b| a == b) {
            self.counts.push((run[0], run.len() as u32));
        }
    }

    fn add(&mut self, token: TokenId) {
        match self.counts.binary_search_by_key(&token, |c| c.0) {
            Ok(i) => self.counts[i].1 += 1,
            Err(i) => self.counts.insert(i, (token, 1)),
        }
    }

    fn remove(&mut self, token: TokenId) {
        if let Ok(i) = self.counts.binary_search_by_key(&token, |c| c.0) {
            self.counts[i].1 -= 1;
            if self.counts[i].1 == 0 {
                self.counts.remove(i);
            }
        }
    }
}
