//! Block tables, reference counts, and copy on write. No tensors here.

use crate::shape::{BLOCK_TOKENS, BlockId};
use exsa_core::SeqId;
use exsa_core::batch::Span;
use exsa_core::error::{KvError, StepError};

/// Part of a block to be copied before a sequence writes into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockCopy {
    /// The shared block.
    pub from: BlockId,
    /// The block that takes its place in the writing sequence.
    pub to: BlockId,
    /// Tokens to copy, from the start of the block.
    pub tokens: usize,
}

/// The tokens and blocks of one sequence.
#[derive(Clone, Debug, Default)]
struct Table {
    blocks: Vec<BlockId>,
    len: usize,
}

/// Block tables of all sequences over one pool of blocks.
///
/// A sequence of `len` tokens holds exactly `len.div_ceil(BLOCK_TOKENS)` blocks; `references[b]` is the
/// number of tables that list block `b`, and the blocks with none are those in `free`.
#[derive(Debug)]
pub(crate) struct BlockTables {
    tables: Vec<Table>,
    references: Vec<u32>,
    free: Vec<BlockId>,
    /// Blocks that a sequence may come to hold.
    blocks_max: usize,
    /// Memory of [`check_room`](Self::check_room).
    written: Vec<BlockId>,
}

impl BlockTables {
    /// Empty tables of `n_sequences` sequences of up to `tokens_max` tokens over `n_blocks` blocks.
    pub fn new(n_sequences: usize, n_blocks: u32, tokens_max: usize) -> Self {
        Self {
            tables: vec![Table::default(); n_sequences],
            references: vec![0; n_blocks as usize],
            free: (0..n_blocks).rev().collect(),
            blocks_max: tokens_max.div_ceil(BLOCK_TOKENS).min(n_blocks as usize),
            written: Vec::with_capacity(n_sequences),
        }
    }

    /// Bytes of tables that [`new`](Self::new) makes with these arguments, once all sequences have been full.
    pub fn bytes(n_sequences: usize, n_blocks: u32, tokens_max: usize) -> u64 {
        let n_blocks = n_blocks as usize;
        let table =
            size_of::<Table>() + tokens_max.div_ceil(BLOCK_TOKENS).min(n_blocks) * size_of::<BlockId>();
        let sequences = n_sequences * (table + size_of::<BlockId>());
        (sequences + n_blocks * (size_of::<BlockId>() + size_of::<u32>())) as u64
    }

    /// Tokens that `seq` holds; `None` if there is no such sequence.
    pub fn len(&self, seq: SeqId) -> Option<usize> {
        self.tables.get(seq.index()).map(|table| table.len)
    }

    /// The blocks of `seq`, in the order of its tokens.
    pub fn blocks(&self, seq: SeqId) -> &[BlockId] {
        self.tables.get(seq.index()).map_or(&[], |table| &table.blocks)
    }

    /// Number of blocks that nobody holds.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Checks that there is room to append `spans`, whose sequences exist and occur once.
    pub fn check_room<'a>(&mut self, spans: impl Iterator<Item = Span<'a>>) -> Result<(), StepError> {
        let mut needed = 0;
        let mut written = std::mem::take(&mut self.written);
        written.clear();
        for span in spans {
            let Some(table) = self.tables.get(span.seq.index()) else { continue };
            needed += (table.len + span.len()).div_ceil(BLOCK_TOKENS) - table.blocks.len();
            if table.len % BLOCK_TOKENS != 0 {
                written.extend(table.blocks.last());
            }
        }
        // Of the sequences that share a block, the last one to write into it keeps it, if nobody else holds
        // it.
        written.sort_unstable();
        for writers in written.chunk_by(|a, b| a == b) {
            let holders = self.references[writers[0] as usize] as usize;
            needed += writers.len().min(holders - 1);
        }
        self.written = written;
        let free = self.free.len();
        if needed > free { Err(StepError::KvFull { needed, free }) } else { Ok(()) }
    }

    /// Lengthens `seq` by `n` tokens. Returns the copy to be made before they are written.
    pub fn append(&mut self, seq: SeqId, n: usize) -> Result<Option<BlockCopy>, StepError> {
        let Self { tables, references, free, blocks_max, .. } = self;
        let Some(table) = tables.get_mut(seq.index()) else { return Ok(None) };
        let missing = (table.len + n).div_ceil(BLOCK_TOKENS) - table.blocks.len();
        let filled = table.len % BLOCK_TOKENS;
        let shared = match table.blocks.last() {
            Some(&last) if filled != 0 && n > 0 && references[last as usize] > 1 => Some(last),
            _ => None,
        };
        let needed = missing + usize::from(shared.is_some());
        if needed > free.len() {
            return Err(StepError::KvFull { needed, free: free.len() });
        }
        // At once, so that a sequence that grows by single tokens allocates nothing.
        table.blocks.reserve_exact(blocks_max.saturating_sub(table.blocks.len()).max(missing));
        let mut fresh = free.drain(free.len() - needed..);
        let copy = match (shared, table.blocks.last_mut()) {
            (Some(from), Some(last)) => fresh.next().map(|to| {
                references[from as usize] -= 1;
                references[to as usize] = 1;
                *last = to;
                BlockCopy { from, to, tokens: filled }
            }),
            _ => None,
        };
        for block in fresh {
            references[block as usize] = 1;
            table.blocks.push(block);
        }
        table.len += n;
        Ok(copy)
    }

    /// Makes the empty sequence `to` share the first `len` tokens of `from`.
    pub fn fork(&mut self, from: SeqId, to: SeqId, len: usize) -> Result<(), KvError> {
        self.check_empty(to)?;
        let held = self.existing(from)?.len;
        if len > held {
            return Err(KvError::Length { seq: from, len, held });
        }
        let blocks = self.blocks(from)[..len.div_ceil(BLOCK_TOKENS)].to_vec();
        for &block in &blocks {
            self.references[block as usize] += 1;
        }
        self.tables[to.index()] = Table { blocks, len };
        Ok(())
    }

    /// Cuts `seq` to its first `len` tokens.
    pub fn truncate(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        let held = self.existing(seq)?.len;
        if len > held {
            return Err(KvError::Length { seq, len, held });
        }
        let table = &mut self.tables[seq.index()];
        table.len = len;
        for block in table.blocks.drain(len.div_ceil(BLOCK_TOKENS)..) {
            let references = &mut self.references[block as usize];
            *references -= 1;
            if *references == 0 {
                self.free.push(block);
            }
        }
        Ok(())
    }

    /// Gives the empty sequence `seq` blocks for `len` tokens.
    pub fn fill(&mut self, seq: SeqId, len: usize) -> Result<(), KvError> {
        self.check_empty(seq)?;
        self.append(seq, len).map(|_| ()).map_err(|_| {
            let free = self.free.len();
            KvError::Full { needed: len.div_ceil(BLOCK_TOKENS), free }
        })
    }

    /// Tokens that `seq` holds; an error if there is no such sequence.
    pub fn existing_len(&self, seq: SeqId) -> Result<usize, KvError> {
        self.existing(seq).map(|table| table.len)
    }

    /// An error unless `seq` exists and is empty.
    pub fn check_empty(&self, seq: SeqId) -> Result<(), KvError> {
        match self.existing(seq)?.len {
            0 => Ok(()),
            _ => Err(KvError::Sequence { seq, problem: "the target sequence is not empty" }),
        }
    }

    fn existing(&self, seq: SeqId) -> Result<&Table, KvError> {
        self.tables
            .get(seq.index())
            .ok_or(KvError::Sequence { seq, problem: "the id is not below the session's sequences_max" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(tables: &BlockTables) {
        let mut references = vec![0; tables.references.len()];
        for table in &tables.tables {
            assert_eq!(table.blocks.len(), table.len.div_ceil(BLOCK_TOKENS));
            for &block in &table.blocks {
                references[block as usize] += 1;
            }
        }
        assert_eq!(references, tables.references);
        let mut free = tables.free.clone();
        free.sort_unstable();
        let unreferenced: Vec<u32> =
            (0..references.len() as u32).filter(|&b| references[b as usize] == 0).collect();
        assert_eq!(free, unreferenced);
    }

    fn span(seq: u32, position: usize, len: usize) -> Span<'static> {
        Span::tokens(SeqId(seq), position, &[0; 256][..len])
    }

    #[test]
    fn last_writer_keeps_a_shared_block() {
        let mut tables = BlockTables::new(3, 2, 64);
        tables.append(SeqId(0), 5).unwrap();
        tables.fork(SeqId(0), SeqId(1), 4).unwrap();
        let spans = [span(0, 5, 1), span(1, 4, 1)];
        tables.check_room(spans.iter().copied()).unwrap();
        let copy = tables.append(SeqId(0), 1).unwrap().unwrap();
        assert_eq!(copy.tokens, 5);
        assert_eq!(tables.append(SeqId(1), 1).unwrap(), None);
        check(&tables);
    }

    #[test]
    fn fork_refuses_what_it_must() {
        let mut tables = BlockTables::new(2, 4, 128);
        tables.append(SeqId(0), 40).unwrap();
        assert!(matches!(tables.fork(SeqId(0), SeqId(0), 1), Err(KvError::Sequence { .. })));
        assert!(matches!(tables.fork(SeqId(0), SeqId(9), 1), Err(KvError::Sequence { .. })));
        assert!(matches!(tables.fork(SeqId(9), SeqId(1), 0), Err(KvError::Sequence { .. })));
        assert!(matches!(tables.fork(SeqId(0), SeqId(1), 41), Err(KvError::Length { held: 40, .. })));
        assert!(matches!(tables.truncate(SeqId(0), 41), Err(KvError::Length { .. })));
        assert!(matches!(tables.truncate(SeqId(7), 0), Err(KvError::Sequence { .. })));
    }

    proptest! {
        #[test]
        fn accounting_holds(steps in prop::collection::vec((0u8..4, 0u32..4, 0u32..4, 0usize..100), 1..200)) {
            let mut tables = BlockTables::new(4, 12, 384);
            for (kind, a, b, n) in steps {
                let (a, b) = (SeqId(a), SeqId(b));
                match kind {
                    0 => {
                        let len = tables.len(a).unwrap();
                        let other = tables.len(b).unwrap();
                        let mut spans = vec![span(a.0, len, n + 1)];
                        if a != b {
                            spans.push(span(b.0, other, n / 2 + 1));
                        }
                        if tables.check_room(spans.iter().copied()).is_ok() {
                            for span in &spans {
                                tables.append(span.seq, span.len()).unwrap();
                            }
                        } else {
                            let before = tables.free();
                            let all = spans.iter().try_for_each(|s| tables.append(s.seq, s.len()).map(|_| ()));
                            prop_assert!(all.is_err());
                            prop_assert!(tables.free() <= before);
                            tables.truncate(a, len).unwrap();
                            tables.truncate(b, other).unwrap();
                        }
                    }
                    1 => drop(tables.fork(a, b, n)),
                    2 => drop(tables.truncate(a, n)),
                    _ => tables.truncate(a, 0).unwrap(),
                }
                check(&tables);
            }
        }
    }
}
