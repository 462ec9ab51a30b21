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
}

impl<D: Device> Metadata<D> {
    /// Memory for batches of `tokens` tokens with tables of `blocks` blocks; it grows for longer tables.
    pub fn new(device: &D, tokens: usize, blocks: usize) -> Result<Self, DeviceError> {
        let capacity = fixed(tokens, tokens) + blocks;
        let buffer = device.allocate(4 * capacity as u64)?;
        Ok(Self { buffer, capacity, words: Vec::new(), tokens: 0, rows: 0, longest: 0 })
    }

    /// Fills in the tokens, positions, slots and views of `batch`, the rows with logits and their views, and the
    /// tables.
    pub fn fill(
        &mut self,
        device: &D,
        stream: &mut D::Stream,
        batch: &Batch,
        tables: &BlockTables,
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
        for chosen in [false, true] {
            let (mut table, mut row) = (0, 0);
            for span in batch.spans() {
                let skipped = if chosen { span.len() - span.rows } else { 0 };
                for i in skipped..span.len() {
                    words.extend([word(row + i)?, word(table)?, word(span.position + i + 1)?, 0]);
                }
                row += span.len();
                table += tables.blocks(span.seq).len();
            }
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

    /// Views of all rows, or of those with logits.
    pub fn views(&self, chosen: bool) -> At<'_, D> {
        let all = 3 * self.tokens + self.rows;
        self.at(if chosen { all + VIEW_WORDS * self.tokens } else { all })
    }

    /// The tables, one after another.
    pub fn tables(&self) -> At<'_, D> {
        self.at(fixed(self.tokens, self.rows))
    }
}

/// Words before the tables.
fn fixed(tokens: usize, rows: usize) -> usize {
    3 * tokens + rows + VIEW_WORDS * (tokens + rows)
}
