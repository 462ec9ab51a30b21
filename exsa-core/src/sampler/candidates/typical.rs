//! Locally typical candidates: those whose surprise is nearest to the entropy.

use super::{Candidate, Candidates, Key, exp};
use crate::token::TokenId;
use std::cmp::Reverse;

/// Number of candidates sorted at first; quadrupled each time they do not reach the mass.
const FIRST: usize = 256;

impl Candidates<'_> {
    /// Keeps the smallest set of candidates, nearest to the entropy in surprise first, whose probability at
    /// the current temperature sums to at least `share`; at least one candidate. Ties go to the lower id.
    pub fn keep_typical(&mut self, share: f64) {
        if !self.settle() {
            return;
        }
        let Some((_, best)) = self.best() else { return };
        let (mass, product) = self.moments();
        // Surprise is ln(mass) - y, and the entropy is ln(mass) less the mean of y: their distance is that of
        // y from its mean.
        let (mean, scale, enough) = ((product / mass) as f32, self.scale, share * mass);
        let mut keys = std::mem::take(&mut self.buffers.keys);
        keys.clear();
        self.visit(f32::NEG_INFINITY, |c| keys.push(key((c.logit - best) * scale - mean, c.id)));
        let (mut done, mut sum, mut step, mut kept) = (0, 0.0, FIRST, keys.len());
        'all: while done < keys.len() {
            let rest = &mut keys[done..];
            let n = step.min(rest.len());
            if n < rest.len() {
                rest.select_nth_unstable(n - 1);
            }
            rest[..n].sort_unstable();
            for (i, &key) in rest[..n].iter().enumerate() {
                let logit = self.logit(id_of(key)).unwrap_or(f32::NEG_INFINITY);
                sum += f64::from(exp((logit - best) * scale));
                if sum >= enough {
                    kept = done + i + 1;
                    break 'all;
                }
            }
            done += n;
            step *= 4;
        }
        keys.truncate(kept);
        keys.sort_unstable_by_key(|&key| id_of(key));
        let mut list = std::mem::take(&mut self.buffers.list);
        if self.listed {
            list.retain(|c| keys.binary_search_by_key(&c.id, |&key| id_of(key)).is_ok());
        } else {
            list.clear();
            let row = self.row();
            list.extend(keys.iter().map(|&key| {
                let id = id_of(key);
                Candidate { id, logit: row[id as usize] }
            }));
        }
        self.listed = true;
        (self.buffers.list, self.buffers.keys) = (list, keys);
    }
}

/// Sort key by distance, then id, nearest first. Floats of 0 or more sort as integers.
fn key(distance: f32, id: TokenId) -> Key {
    Reverse(!(u64::from(distance.abs().to_bits()) << 32 | u64::from(id)))
}

fn id_of(Reverse(key): Key) -> TokenId {
    !key as TokenId
}
