//! The tokens that may still be sampled, and what transforms do to them.

use super::exp::{exp, mass};
use super::random::Random;
use super::scan::{CHUNK, chunk_best, scan};
use crate::token::TokenId;
use std::cmp::Reverse;

/// Memory for [`Candidates`], kept between calls.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// A copy of the row, made when a logit is changed.
    row: Vec<f32>,
    /// The largest logit of each chunk of the row.
    bests: Vec<f32>,
    /// The candidates, ascending by id, once they are fewer than the whole vocabulary.
    list: Vec<Candidate>,
    /// Candidates or chunks while they are put in order.
    keys: Vec<Key>,
    /// Probability mass of each chunk of the row, while one is drawn.
    masses: Vec<f64>,
}

/// The tokens that may still be sampled, each with its logit.
///
/// They start as the whole vocabulary. Whatever cuts some off keeps those that come first by logit, the lower id
/// first among equals.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    /// The row as the model gave it.
    given: &'a [f32],
    buffers: &'a mut Buffers,
    /// Whether a logit was changed, and the row is the one in the buffers.
    changed: bool,
    /// Whether the list holds the candidates; else all tokens are.
    listed: bool,
    /// What logits are multiplied with before they become probabilities: 1 / temperature.
    scale: f32,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: TokenId,
    logit: f32,
}

/// Orders logits first, then ids, best first; as one integer, which sorts many times faster than a comparison
/// of two fields.
type Key = Reverse<u64>;

impl Candidate {
    fn key(self) -> Key {
        // The bits of a float sort as integers once negative ones are turned around.
        // Adding zero makes -0 and 0 equal, as they are.
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

impl<'a> Candidates<'a> {
    /// All tokens of `row`, or the index of its first NaN.
    pub(super) fn new(row: &'a [f32], buffers: &'a mut Buffers) -> Result<Self, usize> {
        scan(row, &mut buffers.bests)?;
        Ok(Self { given: row, buffers, changed: false, listed: false, scale: 1.0 })
    }

    /// Replaces the logit of `id` by what `change` makes of it, if `id` is still a candidate. The result must not
    /// be NaN.
    pub(super) fn change(&mut self, id: TokenId, change: impl FnOnce(f32) -> f32) {
        if self.listed {
            if let Ok(i) = self.buffers.list.binary_search_by_key(&id, |c| c.id) {
                self.buffers.list[i].logit = change(self.buffers.list[i].logit);
            }
            return;
        }
        let i = id as usize;
        if i >= self.given.len() {
            return;
        }
        let Buffers { row, bests, .. } = &mut *self.buffers;
        if !self.changed {
            self.changed = true;
            row.clear();
            row.extend_from_slice(self.given);
        }
        let (old, new) = (row[i], change(row[i]));
        row[i] = new;
        let best = &mut bests[i / CHUNK];
        if new >= *best {
            *best = new;
        } else if old == *best {
            let start = i / CHUNK * CHUNK;
            *best = chunk_best(&row[start..row.len().min(start + CHUNK)]).0;
        }
    }

    /// The best candidate; `None` if all logits are negative infinity.
    pub(super) fn best(&self) -> Option<(TokenId, f32)> {
        if self.listed {
            let best = self.buffers.list.iter().min_by_key(|c| c.key())?;
            return (best.logit > f32::NEG_INFINITY).then_some((best.id, best.logit));
        }
        let mut top = (0, f32::NEG_INFINITY);
        for (i, &best) in self.buffers.bests.iter().enumerate() {
            if best > top.1 {
                top = (i, best);
            }
        }
        let (chunk, logit) = top;
        let start = chunk * CHUNK;
        // Nothing equals the best of all where that is negative infinity but banned tokens.
        let i = self.row().iter().skip(start).position(|&x| x == logit && x > f32::NEG_INFINITY)?;
        Some(((start + i) as TokenId, logit))
    }

    /// Keeps the `k` best.
    pub(super) fn keep_best(&mut self, k: usize) {
        if !self.settle() || k >= self.len() {
            return;
        }
        if !self.listed {
            let floor = self.floor_of_best(k);
            self.list(floor);
        }
        let Buffers { list, keys, .. } = &mut *self.buffers;
        if list.len() > k && k > 0 {
            keys.clear();
            keys.extend(list.iter().map(|c| c.key()));
            let (_, last, _) = keys.select_nth_unstable(k - 1);
            let last = *last;
            list.retain(|c| c.key() <= last);
        }
    }

    /// Keeps the fewest best candidates whose share of the probability is at least `share`, and never none.
    pub(super) fn keep_mass(&mut self, share: f64) {
        if !self.settle() {
            return;
        }
        let Some((_, best)) = self.best() else { return };
        let enough = share * self.mass(best);
        // Mostly a few tokens have nearly all of the mass, and those are quickly sorted.
        let few = if self.listed { f32::NEG_INFINITY } else { self.floor_of_best(256) };
        self.sort(few, |_| true);
        let mut last = self.reach(0.0, enough, best);
        if last.is_none() && few > f32::NEG_INFINITY {
            // A flat distribution: only the bucket in which enough is reached has to be put in order.
            let (bucket, before) = self.bucket_that_reaches(enough, best);
            let scale = self.scale;
            self.sort(f32::NEG_INFINITY, |c| bucket_of(c.logit, best, scale) == bucket);
            last = self.reach(before, enough, best);
        }
        // Where rounding kept the sum below, all are kept.
        if let Some(last) = last {
            self.list(Candidate::of_key(last).logit);
            self.buffers.list.retain(|c| c.key() <= last);
        }
    }

    /// Keeps candidates at least `ratio` times as probable as the best, `ratio` in `0..=1`.
    pub(super) fn keep_ratio(&mut self, ratio: f32) {
        if !self.settle() || ratio <= 0.0 {
            return;
        }
        let Some((_, best)) = self.best() else { return };
        // In f64, so that the last bit of a platform's logarithm is rounded away.
        let floor = best + (f64::from(ratio).ln() / f64::from(self.scale)) as f32;
        self.list(floor);
    }

    /// Divides the logits by `temperature`, above 0.
    pub(super) fn heat(&mut self, temperature: f32) {
        // Infinity would make NaN of the best candidate's zero.
        self.scale = (self.scale / temperature).min(f32::MAX);
    }

    /// Draws a candidate by its probability: walks them by id until their mass passes a random share of the whole.
    pub(super) fn draw(&mut self, random: &mut Random) -> Option<TokenId> {
        self.settle();
        let (best_id, best) = self.best()?;
        let scale = self.scale;
        if self.listed {
            let Buffers { list, masses, .. } = &mut *self.buffers;
            masses.clear();
            masses.extend(list.iter().map(|c| f64::from(exp((c.logit - best) * scale))));
            let target = random.unit() * masses.iter().sum::<f64>();
            let weights = list.iter().zip(masses.iter()).map(|(c, &mass)| (c.id, mass));
            return Some(walk(weights, target).unwrap_or(best_id));
        }
        let row = if self.changed { &self.buffers.row } else { self.given };
        let masses = &mut self.buffers.masses;
        masses.clear();
        masses.extend(row.chunks(CHUNK).map(|chunk| mass(chunk, best, scale)));
        let mut target = random.unit() * masses.iter().sum::<f64>();
        let mut chunk = 0;
        for (i, &mass) in masses.iter().enumerate() {
            if mass > 0.0 {
                chunk = i;
                if mass > target {
                    break;
                }
                target -= mass;
            }
        }
        let weights = (chunk * CHUNK..row.len())
            .take(CHUNK)
            .map(|i| (i as TokenId, f64::from(exp((row[i] - best) * scale))));
        Some(walk(weights, target).unwrap_or(best_id))
    }

    fn row(&self) -> &[f32] {
        if self.changed { &self.buffers.row } else { self.given }
    }

    fn len(&self) -> usize {
        if self.listed { self.buffers.list.len() } else { self.given.len() }
    }

    /// Sum of the candidates' probabilities, relative to a logit of `best`.
    fn mass(&self, best: f32) -> f64 {
        if self.listed {
            self.buffers.list.iter().map(|c| f64::from(exp((c.logit - best) * self.scale))).sum()
        } else {
            self.row().chunks(CHUNK).map(|chunk| mass(chunk, best, self.scale)).sum()
        }
    }

    /// Gives infinite logits the meaning that they have in the limit: their tokens share all of the probability
    /// evenly. Returns whether there is any candidate.
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

    /// A logit that at least `k` candidates of the whole vocabulary reach: the `k`-th best of the chunks' bests.
    fn floor_of_best(&mut self, k: usize) -> f32 {
        let Buffers { bests, keys, .. } = &mut *self.buffers;
        if k == 0 || k > bests.len() {
            return f32::NEG_INFINITY;
        }
        keys.clear();
        keys.extend(bests.iter().map(|&logit| Candidate { id: 0, logit }.key()));
        Candidate::of_key(*keys.select_nth_unstable(k - 1).1).logit
    }

    /// Visits, by id, every candidate whose logit is at least `floor` and above negative infinity.
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

    /// Fills the keys with the candidates whose logit is at least `floor` and that are `wanted`, best first.
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

    /// The key at which the mass of the keys, added up from `before`, is `enough`.
    fn reach(&self, before: f64, enough: f64, best: f32) -> Option<Key> {
        let mut sum = before;
        self.buffers.keys.iter().copied().find(|&key| {
            sum += f64::from(exp((Candidate::of_key(key).logit - best) * self.scale));
            sum >= enough
        })
    }

    /// The bucket of logits in which the mass, added up from the best, reaches `enough`, and the mass before it.
    fn bucket_that_reaches(&mut self, enough: f64, best: f32) -> (usize, f64) {
        let mut masses = std::mem::take(&mut self.buffers.masses);
        masses.clear();
        masses.resize(BUCKETS, 0.0);
        for chunk in self.row().chunks(CHUNK) {
            // Apart from the scattered sums, so that the exponentials become vector code.
            let mut weights = [0.0; CHUNK];
            for (weight, &logit) in weights.iter_mut().zip(chunk) {
                *weight = exp((logit - best) * self.scale);
            }
            for (&weight, &logit) in weights.iter().zip(chunk) {
                masses[bucket_of(logit, best, self.scale)] += f64::from(weight);
            }
        }
        let mut sum = 0.0;
        let bucket = masses.iter().position(|mass| {
            sum += mass;
            sum >= enough
        });
        let bucket = bucket.unwrap_or(BUCKETS - 1);
        let before = masses[..bucket].iter().sum();
        self.buffers.masses = masses;
        (bucket, before)
    }
}

/// Number of buckets that logits are sorted into, by their distance from the best.
const BUCKETS: usize = 1024;

/// The bucket of a logit: 11 to each factor of e in probability, so that the last begins beyond the reach of `exp`.
#[inline]
fn bucket_of(logit: f32, best: f32, scale: f32) -> usize {
    const PER_NAT: f32 = 11.0;
    (((best - logit) * (scale * PER_NAT)) as usize).min(BUCKETS - 1)
}

/// The token at which the sum of the weights passes `target`; the last one with any weight if rounding keeps the
/// sum below.
fn walk(weights: impl Iterator<Item = (TokenId, f64)>, target: f64) -> Option<TokenId> {
    let mut sum = 0.0;
    let mut last = None;
    for (id, weight) in weights {
        if weight > 0.0 {
            last = Some(id);
            sum += weight;
            if sum > target {
                break;
            }
        }
    }
    last
}
