//! The tokens that may still be sampled, and the operations of transforms on them.

mod draw;
mod mask;
mod nucleus;
mod probability;
mod spread;
mod typical;

#[cfg(test)]
mod tests;

use super::exp::{exp, mass, moments};
use super::scan::{CHUNK, chunk_best, scan};
use crate::token::TokenId;
use std::cmp::Reverse;

/// Scratch memory of [`Candidates`], kept between calls.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// A copy of the row, made when a logit is changed.
    row: Vec<f32>,
    /// The largest logit of each chunk of the row.
    bests: Vec<f32>,
    /// The candidates, ascending by id, once they are fewer than the whole vocabulary.
    list: Vec<Candidate>,
    /// Sort keys of candidates or chunks.
    keys: Vec<Key>,
    /// Probability mass of each bucket of logits, while the nucleus is searched.
    masses: Vec<f64>,
}

/// The tokens that may still be sampled, each with its logit.
///
/// Initially all tokens whose logit is above negative infinity. A filter or a logit of negative infinity
/// removes a token permanently. "Best" orders by logit, then by lower id. If the best logit is positive
/// infinity, its tokens share all of the probability: operations on probabilities remove the other tokens and
/// set the infinite logits to 0.
///
/// Operations cost at most a pass over the vocabulary; after
/// a filter has left few candidates, a pass over these.
#[derive(Debug)]
pub struct Candidates<'a> {
    /// The model's unmodified row.
    given: &'a [f32],
    buffers: &'a mut Buffers,
    /// Whether a logit was changed; the row is then in the buffers.
    changed: bool,
    /// Whether the list holds the candidates; otherwise all tokens of the row are candidates.
    listed: bool,
    /// Factor from logits to the exponents of probabilities: 1 / temperature.
    scale: f32,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: TokenId,
    logit: f32,
}

/// Sort key by logit, then id, best first; one integer, which sorts many times faster than two fields.
type Key = Reverse<u64>;

impl Candidate {
    fn key(self) -> Key {
        // Float bits sort as integers once negative values are inverted. Adding zero makes -0 and 0 equal.
        let bits = (self.logit + 0.0).to_bits();
        let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
        Reverse(u64::from(ordered) << 32 | u64::from(!self.id))
    }

    fn of_key(Reverse(key): Key) -> Self {
        let ordered = (key >> 32) as u32;
        let bits = if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered };
        Self { id: !(key as u32), logit: f32::from_bits(bits) }
    }
}

/// Chunks per group. The maxima of groups are searched before those of chunks.
const GROUP: usize = 16;

/// The `k`-th best of at least `k` logits; `k` is at least 1.
fn kth_best(logits: impl Iterator<Item = f32>, k: usize, keys: &mut Vec<Key>) -> f32 {
    keys.clear();
    keys.extend(logits.map(|logit| Candidate { id: 0, logit }.key()));
    Candidate::of_key(*keys.select_nth_unstable(k - 1).1).logit
}

impl<'a> Candidates<'a> {
    /// Creates the candidates from all tokens of `row`. Fails with the index of its first NaN.
    pub(super) fn new(row: &'a [f32], buffers: &'a mut Buffers) -> Result<Self, usize> {
        scan(row, &mut buffers.bests)?;
        Ok(Self { given: row, buffers, changed: false, listed: false, scale: 1.0 })
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no candidate. Sampling then fails with
    /// [`SampleError::NoCandidate`](super::SampleError::NoCandidate).
    pub fn is_empty(&self) -> bool {
        self.best().is_none()
    }

    /// The candidates with their logits, ascending by id. Logits are those before temperature.
    pub fn iter(&self) -> impl Iterator<Item = (TokenId, f32)> + '_ {
        let (row, list) = if self.listed { (&[][..], &self.buffers.list[..]) } else { (self.row(), &[][..]) };
        let row = row.iter().enumerate().map(|(id, &logit)| (id as TokenId, logit));
        row.chain(list.iter().map(|c| (c.id, c.logit))).filter(|&(_, logit)| logit > f32::NEG_INFINITY)
    }

    /// The candidates with their probabilities at the current temperature, ascending by id. The sum
    /// is 1 up to rounding; candidates less than e^-87 times as probable as the best candidate get 0.
    pub fn probabilities(&mut self) -> impl Iterator<Item = (TokenId, f32)> + '_ {
        self.settle();
        let best = self.best().map_or(0.0, |(_, best)| best);
        let (scale, total) = (self.scale, self.mass(best) as f32);
        self.iter().map(move |(id, logit)| (id, exp((logit - best) * scale) / total))
    }

    /// The logit of `id`; `None` if it is not a candidate.
    pub fn logit(&self, id: TokenId) -> Option<f32> {
        let logit = if self.listed {
            let i = self.buffers.list.binary_search_by_key(&id, |c| c.id).ok()?;
            self.buffers.list[i].logit
        } else {
            *self.row().get(id as usize)?
        };
        (logit > f32::NEG_INFINITY).then_some(logit)
    }

    /// Applies `change` to the logit of `id`, if it is a
    /// candidate. Negative infinity or NaN removes the token.
    pub fn change(&mut self, id: TokenId, change: impl FnOnce(f32) -> f32) {
        let Some(old) = self.logit(id) else { return };
        let new = change(old);
        let new = if new.is_nan() { f32::NEG_INFINITY } else { new };
        if self.listed {
            if let Ok(i) = self.buffers.list.binary_search_by_key(&id, |c| c.id) {
                self.buffers.list[i].logit = new;
            }
            return;
        }
        let i = id as usize;
        self.own_row();
        let Buffers { row, bests, .. } = &mut *self.buffers;
        row[i] = new;
        let best = &mut bests[i / CHUNK];
        if new >= *best {
            *best = new;
        } else if old == *best {
            let start = i / CHUNK * CHUNK;
            *best = chunk_best(&row[start..row.len().min(start + CHUNK)]);
        }
    }

    /// The best candidate and its logit.
    pub fn best(&self) -> Option<(TokenId, f32)> {
        if self.listed {
            let best = self.buffers.list.iter().min_by_key(|c| c.key())?;
            return (best.logit > f32::NEG_INFINITY).then_some((best.id, best.logit));
        }
        let (chunk, logit) = self.best_chunk();
        let start = chunk * CHUNK;
        // A best logit of negative infinity belongs to removed tokens alone.
        let i = self.row().iter().skip(start).position(|&x| x == logit && x > f32::NEG_INFINITY)?;
        Some(((start + i) as TokenId, logit))
    }

    /// Keeps the `k` best candidates.
    pub fn keep_best(&mut self, k: usize) {
        if !self.settle() || k >= self.slots() {
            return;
        }
        if !self.listed {
            let floor = self.floor_of_best(k);
            self.list(floor);
        }
        let Buffers { list, keys, .. } = &mut *self.buffers;
        if k == 0 {
            list.clear();
        } else if list.len() > k {
            keys.clear();
            keys.extend(list.iter().map(|c| c.key()));
            let (_, last, _) = keys.select_nth_unstable(k - 1);
            let last = *last;
            list.retain(|c| c.key() <= last);
        }
    }

    /// Removes the `n` best candidates and keeps the rest.
    pub fn remove_best(&mut self, n: usize) {
        if n == 0 {
            return;
        }
        // If more candidates are removed than there are chunks, building a list is cheaper.
        if !self.listed && n > self.buffers.bests.len() {
            self.list(f32::NEG_INFINITY);
        }
        let mut keys = std::mem::take(&mut self.buffers.keys);
        let floor = if self.listed { f32::NEG_INFINITY } else { self.floor_of_chunks(n, &mut keys) };
        keys.clear();
        self.visit(floor, |c| keys.push(c.key()));
        if n < keys.len() {
            keys.select_nth_unstable(n - 1);
            keys.truncate(n);
        }
        if self.listed {
            let last = keys.iter().max().copied();
            self.buffers.list.retain(|c| last.is_none_or(|last| c.key() > last));
        } else {
            for &key in &keys {
                self.change(Candidate::of_key(key).id, |_| f32::NEG_INFINITY);
            }
        }
        self.buffers.keys = keys;
    }

    /// Keeps candidates at least `ratio` times as probable as the best
    /// candidate at the current temperature. `ratio` is in `0..=1`.
    pub fn keep_ratio(&mut self, ratio: f32) {
        if ratio.is_nan() || ratio <= 0.0 || !self.settle() {
            return;
        }
        let Some((_, best)) = self.best() else { return };
        // In f64, so that the last bit of the platform's logarithm is rounded away.
        let floor = best + (f64::from(ratio.min(1.0)).ln() / f64::from(self.scale)) as f32;
        self.list(floor);
    }

    /// Divides the logits by `temperature`, which must be finite and above 0; any other value changes
    /// nothing.
    pub fn scale_temperature(&mut self, temperature: f32) {
        if temperature > 0.0 && temperature.is_finite() {
            // A scale of infinity or 0 would make NaN of a difference of 0 or infinity.
            self.scale = (self.scale / temperature).clamp(1.0 / f32::MAX, f32::MAX);
        }
    }

    /// 1 / temperature.
    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// The `n` best candidates, best first, with infinite logits resolved.
    pub(super) fn settled_top(&mut self, n: usize) -> impl Iterator<Item = (TokenId, f32)> + '_ {
        self.settle();
        self.top(n)
    }

    /// The `n` best candidates, best first.
    pub(super) fn top(&mut self, n: usize) -> impl Iterator<Item = (TokenId, f32)> + '_ {
        let floor = if self.listed { f32::NEG_INFINITY } else { self.floor_of_best(n) };
        self.sort(floor, |_| true);
        self.buffers.keys.iter().take(n).map(|&key| {
            let Candidate { id, logit } = Candidate::of_key(key);
            (id, logit)
        })
    }

    /// Natural logarithm of a candidate's probability at the current temperature.
    pub(super) fn logprob(&mut self, id: TokenId) -> f32 {
        self.settle();
        let best = self.best().map_or(0.0, |(_, best)| best);
        let logit = self.logit(id).unwrap_or(f32::NEG_INFINITY);
        ((f64::from(logit) - f64::from(best)) * f64::from(self.scale) - self.mass(best).ln()) as f32
    }

    fn row(&self) -> &[f32] {
        if self.changed { &self.buffers.row } else { self.given }
    }

    /// Copies the row into the buffers, unless it is there.
    fn own_row(&mut self) {
        if !self.changed {
            self.changed = true;
            self.buffers.row.clear();
            self.buffers.row.extend_from_slice(self.given);
        }
    }

    /// Number of slots: candidates, and removed tokens that still occupy a slot.
    fn slots(&self) -> usize {
        if self.listed { self.buffers.list.len() } else { self.given.len() }
    }

    /// The first chunk with the best logit, and that logit.
    fn best_chunk(&self) -> (usize, f32) {
        let bests = &self.buffers.bests;
        let best = chunk_best(bests);
        (bests.iter().position(|&chunk| chunk == best).unwrap_or(0), best)
    }

    /// Sum of the candidates' probabilities, relative to a logit of `best`.
    fn mass(&self, best: f32) -> f64 {
        if self.listed {
            self.buffers.list.iter().map(|c| f64::from(exp((c.logit - best) * self.scale))).sum()
        } else {
            self.row().chunks(CHUNK).map(|chunk| mass(chunk, best, self.scale)).sum()
        }
    }

    /// Resolves infinite logits to their limit: their tokens share all of
    /// the probability evenly. Returns whether there is any candidate.
    fn settle(&mut self) -> bool {
        match self.best() {
            Some((_, f32::INFINITY)) => {
                self.list(f32::INFINITY);
                self.buffers.list.iter_mut().for_each(|c| c.logit = 0.0);
                true
            }
            best => best.is_some(),
        }
    }

    /// A logit reached by at least `k` candidates of the
    /// whole vocabulary: the `k`-th best of the chunk maxima.
    fn floor_of_best(&mut self, k: usize) -> f32 {
        let mut keys = std::mem::take(&mut self.buffers.keys);
        let floor = self.floor_of_chunks(k, &mut keys);
        self.buffers.keys = keys;
        floor
    }

    fn floor_of_chunks(&self, k: usize, keys: &mut Vec<Key>) -> f32 {
        let bests = &self.buffers.bests;
        if k == 0 || k > bests.len() {
            return f32::NEG_INFINITY;
        }
        // At least `k` chunks reach the `k`-th best maximum of groups of chunks, so only they need a key.
        let floor = match k <= bests.len() / GROUP {
            true => kth_best(bests.chunks(GROUP).map(chunk_best), k, keys),
            false => f32::NEG_INFINITY,
        };
        kth_best(bests.iter().copied().filter(|&best| best >= floor), k, keys)
    }

    /// Visits every candidate whose logit is at least `floor` and above negative infinity, in order of id.
    fn visit(&self, floor: f32, mut visit: impl FnMut(Candidate)) {
        let floor = floor.max(f32::MIN);
        if self.listed {
            self.buffers.list.iter().filter(|c| c.logit >= floor).for_each(|c| visit(*c));
            return;
        }
        for (i, chunk) in self.row().chunks(CHUNK).enumerate() {
            if self.buffers.bests[i] >= floor {
                for (j, &logit) in chunk.iter().enumerate() {
                    if logit >= floor {
                        visit(Candidate { id: (i * CHUNK + j) as TokenId, logit });
                    }
                }
            }
        }
    }

    /// Keeps the candidates whose logit is at least `floor`.
    fn list(&mut self, floor: f32) {
        let mut list = std::mem::take(&mut self.buffers.list);
        if self.listed {
            list.retain(|c| c.logit >= floor);
        } else {
            list.clear();
            self.visit(floor, |c| list.push(c));
        }
        self.buffers.list = list;
        self.listed = true;
    }

    /// Fills the keys, best first, with the `wanted` candidates whose logit is at least `floor`.
    fn sort(&mut self, floor: f32, wanted: impl Fn(Candidate) -> bool) {
        let mut keys = std::mem::take(&mut self.buffers.keys);
        keys.clear();
        self.visit(floor, |c| {
            if wanted(c) {
                keys.push(c.key());
            }
        });
        keys.sort_unstable();
        self.buffers.keys = keys;
    }
}
