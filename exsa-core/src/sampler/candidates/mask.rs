//! Filtering by a bit mask over the vocabulary, for grammars and JSON schemas.

use super::{Buffers, CHUNK, Candidate, Candidates};
use crate::sampler::scan::{LANES, largest};
use crate::token::TokenId;

// A chunk of the row and a word of the mask cover the same tokens.
const _: () = assert!(CHUNK == u64::BITS as usize);

impl Candidates<'_> {
    /// Keeps the candidates whose bit is set: bit `i % 64` of word `i / 64` stands for token `i`. Tokens
    /// beyond the end of the mask are removed; bits beyond the vocabulary are ignored.
    ///
    /// One pass over the vocabulary; far less if the mask allows few tokens or a filter has left few.
    pub fn retain(&mut self, mask: &[u64]) {
        let word = |i: usize| mask.get(i).copied().unwrap_or(0);
        if self.listed {
            self.buffers.list.retain(|c| word(c.id as usize / CHUNK) >> (c.id as usize % CHUNK) & 1 == 1);
            return;
        }
        let chunks = self.buffers.bests.len();
        let allowed: usize = mask.iter().take(chunks).map(|word| word.count_ones() as usize).sum();
        if allowed <= chunks {
            self.list_allowed(mask);
            return;
        }
        let Buffers { row, bests, .. } = &mut *self.buffers;
        let fresh = !self.changed;
        self.changed = true;
        row.resize(self.given.len(), 0.0);
        let chunks = row.chunks_mut(CHUNK).zip(self.given.chunks(CHUNK));
        for (i, ((chunk, given), best)) in chunks.zip(bests).enumerate() {
            if fresh {
                chunk.copy_from_slice(given);
            }
            match word(i) {
                u64::MAX => {}
                0 => {
                    chunk.fill(f32::NEG_INFINITY);
                    *best = f32::NEG_INFINITY;
                }
                word => *best = mask_chunk(chunk, word),
            }
        }
    }

    /// Lists the allowed tokens of the whole vocabulary, in time that depends on their number.
    fn list_allowed(&mut self, mask: &[u64]) {
        let mut list = std::mem::take(&mut self.buffers.list);
        list.clear();
        let row = self.row();
        for (i, &word) in mask.iter().take(self.buffers.bests.len()).enumerate() {
            let mut rest = word;
            while rest != 0 {
                let at = i * CHUNK + rest.trailing_zeros() as usize;
                rest &= rest - 1;
                match row.get(at) {
                    Some(&logit) if logit > f32::NEG_INFINITY => {
                        list.push(Candidate { id: at as TokenId, logit });
                    }
                    _ => {}
                }
            }
        }
        self.buffers.list = list;
        self.listed = true;
    }
}

/// Sets the logits whose bit in `word` is 0 to negative infinity. Returns the largest other logit.
#[inline]
fn mask_chunk(chunk: &mut [f32], word: u64) -> f32 {
    const BITS: [u32; LANES] = {
        let mut bits = [0; LANES];
        let mut i = 0;
        while i < LANES {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    let mut best = [f32::NEG_INFINITY; LANES];
    let (parts, rest) = chunk.as_chunks_mut::<LANES>();
    // Fixed lengths, constant bits and selection by bit masks, so that compilers vectorize it.
    for (part, shift) in parts.iter_mut().zip((0..).step_by(LANES)) {
        let word = (word >> shift) as u32;
        for i in 0..LANES {
            let keep = u32::from(word & BITS[i] != 0).wrapping_neg();
            let bits = part[i].to_bits() & keep | f32::NEG_INFINITY.to_bits() & !keep;
            part[i] = f32::from_bits(bits);
            best[i] = if part[i] > best[i] { part[i] } else { best[i] };
        }
    }
    let first = parts.len() * LANES;
    for (i, logit) in rest.iter_mut().enumerate() {
        if word >> (first + i) & 1 == 0 {
            *logit = f32::NEG_INFINITY;
        }
        best[i] = if *logit > best[i] { *logit } else { best[i] };
    }
    largest(best)
}
