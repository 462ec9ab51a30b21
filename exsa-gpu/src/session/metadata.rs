//! Places of a batch's tokens: one buffer of words, written once per pass.

use super::tables::{BLOCK_TOKENS, BlockTables};
use crate::device::{Device, DeviceError, Stream};
use crate::kernel::launch::At;
use crate::kernel::params::VIEW_WORDS;
use exsa_core::batch::Batch;

/// Metadata of a batch on the host and on the device.
#[derive(Debug)]
pub(crate) struct Metadata<D: Device> {
    buffer: D::Buffer,
    capacity: usize,
    words: Vec<u32>,
    /// Tokens of the batch.
    pub tokens: usize,
    /// Rows with logits.
    pub rows: usize,
    /// Tokens that a row of the batch sees at most.
    pub longest: usize,
    /// Views of all rows, and of those with logits: their number of one row, and of more.
    counts: [[usize; 2]; 2],
}

impl<D: Device> Metadata<D> {
    /// Memory for batches of `tokens` tokens with tables of `blocks` blocks; it grows for longer tables.
    pub fn new(device: &D, tokens: usize, blocks: usize) -> Result<Self, DeviceError> {
        let capacity = fixed(tokens, tokens) + blocks;
        let buffer = device.allocate(4 * capacity as u64)?;
        let counts = [[0; 2]; 2];
        Ok(Self { buffer, capacity, words: Vec::new(), tokens: 0, rows: 0, longest: 0, counts })
    }

    /// Fills in the tokens, positions, slots and views of `batch`, the rows with logits and their views, and
    /// the tables. Views have up to `view_rows` rows.
    pub fn fill(
        &mut self,
        device: &D,
        stream: &mut D::Stream,
        (batch, tables): (&Batch, &BlockTables),
        view_rows: usize,
    ) -> Result<(), DeviceError> {
        let word = |n: usize| {
            u32::try_from(n).map_err(|_| DeviceError::Range(format!("{n} in the metadata of a batch")))
        };
        (self.tokens, self.rows, self.longest) = (batch.len(), batch.rows(), 0);
        let words = &mut self.words;
        words.clear();
        words.extend_from_slice(batch.tokens());
        for position in batch.spans().flat_map(|span| span.position..span.end()) {
            words.push(word(position)?);
        }
        for span in batch.spans() {
            let blocks = tables.blocks(span.seq);
            for position in span.position..span.end() {
                let block = blocks.get(position / BLOCK_TOKENS).copied().unwrap_or(0);
                words.push(block * BLOCK_TOKENS as u32 + (position % BLOCK_TOKENS) as u32);
            }
        }
        for row in batch.row_tokens() {
            words.push(word(row)?);
        }
        for (chosen, counts) in [false, true].into_iter().zip(&mut self.counts) {
            for (is_single, count) in [true, false].into_iter().zip(counts.iter_mut()) {
                *count = 0;
                let (mut table, mut first, mut out) = (0, 0, 0);
                for span in batch.spans() {
                    let skipped = if chosen { span.len() - span.rows } else { 0 };
                    let rows = span.len() - skipped;
                    for start in (0..rows).step_by(view_rows) {
                        let n = view_rows.min(rows - start);
                        if (n == 1) == is_single {
                            let (i, seen) = (skipped + start, span.position + skipped + start + 1);
                            let view = [first + i, table, seen, n, out + start];
                            for value in view {
                                words.push(word(value)?);
                            }
                            *count += 1;
                        }
                    }
                    (first, out) = (first + span.len(), out + rows);
                    table += tables.blocks(span.seq).len();
                }
            }
            // Room for the most views that there can be, so that what follows has its place.
            let rows = if chosen { batch.rows() } else { batch.len() };
            words.resize(words.len() + VIEW_WORDS * (rows - counts_sum(counts)), 0);
        }
        for span in batch.spans() {
            self.longest = self.longest.max(span.end());
            words.extend_from_slice(tables.blocks(span.seq));
        }
        if words.len() > self.capacity {
            self.capacity = words.len().next_power_of_two();
            self.buffer = device.allocate(4 * self.capacity as u64)?;
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        stream.write(&self.buffer, 0, &bytes)
    }

    fn at(&self, word: usize) -> At<'_, D> {
        At(&self.buffer, 4 * word as u64)
    }

    /// Token ids, `[tokens]`.
    pub fn token_ids(&self) -> At<'_, D> {
        self.at(0)
    }

    /// `[tokens]`.
    pub fn positions(&self) -> At<'_, D> {
        self.at(self.tokens)
    }

    /// `[tokens]`.
    pub fn slots(&self) -> At<'_, D> {
        self.at(2 * self.tokens)
    }

    /// Indices of the rows with logits, `[rows]`.
    pub fn row_indices(&self) -> At<'_, D> {
        self.at(3 * self.tokens)
    }

    /// Views of all rows, or of those with logits, of one row or of more, and their number.
    pub fn views(&self, chosen: bool, is_single: bool) -> (At<'_, D>, usize) {
        let all = 3 * self.tokens + self.rows;
        let first = if chosen { all + VIEW_WORDS * self.tokens } else { all };
        let [single, longer] = self.counts[usize::from(chosen)];
        if is_single { (self.at(first), single) } else { (self.at(first + VIEW_WORDS * single), longer) }
    }

    /// The tables, one after another.
    pub fn tables(&self) -> At<'_, D> {
        self.at(fixed(self.tokens, self.rows))
    }
}

fn counts_sum(counts: &[usize; 2]) -> usize {
    counts.iter().sum()
}

/// Words before the tables.
fn fixed(tokens: usize, rows: usize) -> usize {
    3 * tokens + rows + VIEW_WORDS * (tokens + rows)
}
