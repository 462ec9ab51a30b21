//! Filtering by a bit mask over the vocabulary, as grammars and JSON schemas give one for each token.

use super::{Buffers, CHUNK, Candidate, Candidates, chunk_best};
use crate::token::TokenId;

// A chunk of the row and a word of the mask cover the same tokens.
const _: () = assert!(CHUNK == u64::BITS as usize);

impl Candidates<'_> {
    /// Keeps the candidates whose bit is set: bit `i % 64` of word `i / 64` stands for token `i`. Tokens beyond the
    /// end of the mask are removed; bits beyond the vocabulary are ignored.
    ///
    /// One pass over the vocabulary; far less where the mask allows few tokens or a filter has left few.
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
        if !self.changed {
            self.changed = true;
            row.clear();
            row.extend_from_slice(self.given);
        }
        for (i, (chunk, best)) in row.chunks_mut(CHUNK).zip(bests).enumerate() {
            match word(i) {
                u64::MAX => {}
                0 => {
                    chunk.fill(f32::NEG_INFINITY);
                    *best = f32::NEG_INFINITY;
                }
                word => {
                    remove(chunk, word);
                    *best = chunk_best(chunk).0;
                }
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

/// Sets the logits of a chunk to negative infinity whose bit in `word` is 0.
#[inline]
fn remove(chunk: &mut [f32], word: u64) {
    // Constant bits and 32-bit halves let compilers make vector code of it.
    const BITS: [u32; 32] = {
        let mut bits = [0; 32];
        let mut i = 0;
        while i < 32 {
            bits[i] = 1 << i;
            i += 1;
        }
        bits
    };
    for (half, word) in chunk.chunks_mut(32).zip([word as u32, (word >> 32) as u32]) {
        for (logit, bit) in half.iter_mut().zip(BITS) {
            *logit = if word & bit == 0 { f32::NEG_INFINITY } else { *logit };
        }
    }
}
