//! The draw: Gumbel-max, the candidate with the largest sum of logit and noise.

use super::{CHUNK, Candidates};
use crate::sampler::noise::{Noise, Screen, highest_word};
use crate::token::TokenId;

/// Running maximum of candidate scores.
struct Race<'a> {
    noise: &'a Noise,
    max: f64,
    scale: f64,
    leader: Option<(f64, TokenId)>,
}

impl Race<'_> {
    /// Score of a candidate before its noise.
    fn base(&self, logit: f32) -> f64 {
        (f64::from(logit) - self.max) * self.scale
    }

    /// Upper bound on the noise words with which a candidate of at most this logit can still lead.
    fn bound(&self, logit: f32) -> Option<u32> {
        self.leader.map_or(Some(u32::MAX), |(score, _)| highest_word(score - self.base(logit)))
    }

    /// Compares a candidate, whose high noise word is `word`, with the leader. Returns whether it leads now.
    fn enter(&mut self, id: TokenId, logit: f32, word: u32) -> bool {
        if self.bound(logit).is_none_or(|bound| word > bound) {
            return false;
        }
        let score = self.base(logit) + self.noise.gumbel(id);
        let leads = self.leader.is_none_or(|(best, leader)| score > best || (score == best && id < leader));
        if leads {
            self.leader = Some((score, id));
        }
        leads
    }
}

impl Candidates<'_> {
    /// Draws a candidate by probability, with the same result as scoring every candidate.
    ///
    /// The first 32 bits of noise rule out most candidates: the leader's score bounds
    /// the word with which any token of a chunk can still win, so a chunk costs hashes
    /// and integer comparisons, which compilers vectorize. Few tokens need logarithms.
    pub(in crate::sampler) fn draw(&mut self, noise: &Noise) -> Option<TokenId> {
        self.settle();
        let (best_id, best) = self.best()?;
        let mut race = Race { noise, max: best.into(), scale: self.scale.into(), leader: None };
        // Starts with the best candidate, whose score rules out the most others.
        race.enter(best_id, best, noise.high(best_id));
        if self.listed {
            let mut bound = race.bound(best);
            for c in &self.buffers.list {
                let word = noise.high(c.id);
                if bound.is_some_and(|bound| word <= bound) && race.enter(c.id, c.logit, word) {
                    bound = race.bound(best);
                }
            }
            return race.leader.map(|(_, id)| id);
        }
        let row = if self.changed { &self.buffers.row } else { self.given };
        let mut screen = Screen::new(noise);
        for (i, (chunk, &chunk_best)) in row.chunks(CHUNK).zip(&self.buffers.bests).enumerate() {
            let Some(bound) = race.bound(chunk_best) else { continue };
            let start = (i * CHUNK) as TokenId;
            if screen.any(start, bound) {
                for (&logit, id) in chunk.iter().zip(start..) {
                    let word = noise.high(id);
                    if word <= bound {
                        race.enter(id, logit, word);
                    }
                }
            }
        }
        race.leader.map(|(_, id)| id)
    }
}
