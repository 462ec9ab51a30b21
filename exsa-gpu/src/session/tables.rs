//! Block tables, reference counts, and copy on write. No device memory here.

use exsa_core::SeqId;
use exsa_core::batch::Span;
use exsa_core::error::{KvError, StepError};

/// Tokens of a block.
pub(crate) const BLOCK_TOKENS: usize = 32;

/// Number of a block.
pub(crate) type BlockId = u32;

/// A block to be copied before a sequence writes into its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockCopy {
    /// The shared block.
    pub from: BlockId,
    /// The block that takes its place in the writing sequence.
    pub to: BlockId,
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
}

impl BlockTables {
    /// Empty tables of `n_sequences` sequences over `n_blocks` blocks.
    pub fn new(n_sequences: usize, n_blocks: u32) -> Self {
        Self {
            tables: vec![Table::default(); n_sequences],
            references: vec![0; n_blocks as usize],
            free: (0..n_blocks).rev().collect(),
        }
    }

    /// Tokens that `seq` holds; `None` if there is no such sequence.
    pub fn len(&self, seq: SeqId) -> Option<usize> {
        self.tables.get(seq.index()).map(|table| table.len)
    }

    /// The blocks of `seq`, in the order of its tokens.
    pub fn blocks(&self, seq: SeqId) -> &[BlockId] {
        self.tables.get(seq.index()).map_or(&[], |table| &table.blocks)
    }

    /// Checks that there is room to append `spans`, whose sequences exist and occur once.
    pub fn check_room<'a>(&self, spans: impl Iterator<Item = Span<'a>>) -> Result<(), StepError> {
        let mut needed = 0;
        let mut written: Vec<BlockId> = Vec::new();
        for span in spans {
            let Some(table) = self.tables.get(span.seq.index()) else { continue };
            needed += (table.len + span.len()).div_ceil(BLOCK_TOKENS) - table.blocks.len();
            if table.len % BLOCK_TOKENS != 0 {
                written.extend(table.blocks.last());
            }
        }
        // Of the sequences that share a block, the last one to write into it keeps it, if no other holds it.
        written.sort_unstable();
        for writers in written.chunk_by(|a, b| a == b) {
            let holders = self.references[writers[0] as usize] as usize;
            needed += writers.len().min(holders - 1);
        }
        let free = self.free.len();
        if needed > free { Err(StepError::KvFull { needed, free }) } else { Ok(()) }
    }

    /// Lengthens `seq` by `n` tokens. Returns the copy to be made before they are written.
    pub fn append(&mut self, seq: SeqId, n: usize) -> Result<Option<BlockCopy>, StepError> {
        let Self { tables, references, free } = self;
        let Some(table) = tables.get_mut(seq.index()) else { return Ok(None) };
        let missing = (table.len + n).div_ceil(BLOCK_TOKENS) - table.blocks.len();
        let shared = match table.blocks.last_mut() {
            Some(last) if table.len % BLOCK_TOKENS != 0 && n > 0 && references[*last as usize] > 1 => {
                Some(last)
            }
            _ => None,
        };
        let needed = missing + usize::from(shared.is_some());
        if needed > free.len() {
            return Err(StepError::KvFull { needed, free: free.len() });
        }
        let mut fresh = free.drain(free.len() - needed..);
        let mut copy = None;
        if let Some(last) = shared
            && let Some(to) = fresh.next()
        {
            let from = std::mem::replace(last, to);
            references[from as usize] -= 1;
            references[to as usize] = 1;
            copy = Some(BlockCopy { from, to });
        }
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
#[allow(clippy::unwrap_used)]
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
        let unreferenced = (0..references.len() as u32).filter(|&b| references[b as usize] == 0);
        assert_eq!(free, unreferenced.collect::<Vec<u32>>());
    }

    fn span(seq: u32, position: usize, len: usize) -> Span<'static> {
        Span::tokens(SeqId(seq), position, &[0; 256][..len])
    }

    #[test]
    fn last_writer_keeps_a_shared_block() {
        let mut tables = BlockTables::new(3, 2);
        tables.append(SeqId(0), 5).unwrap();
        tables.fork(SeqId(0), SeqId(1), 4).unwrap();
        tables.check_room([span(0, 5, 1), span(1, 4, 1)].into_iter()).unwrap();
        assert!(tables.append(SeqId(0), 1).unwrap().is_some());
        assert_eq!(tables.append(SeqId(1), 1).unwrap(), None);
        check(&tables);
    }

    proptest! {
        #[test]
        fn accounting_holds(steps in prop::collection::vec((0u8..4, 0u32..4, 0u32..4, 0usize..100), 1..200)) {
            let mut tables = BlockTables::new(4, 12);
            for (kind, a, b, n) in steps {
                let (a, b) = (SeqId(a), SeqId(b));
                match kind {
                    0 => {
                        let len = tables.len(a).unwrap();
                        let one = span(a.0, len, n + 1);
                        let fits = tables.check_room([one].into_iter()).is_ok();
                        prop_assert_eq!(tables.append(a, n + 1).is_ok(), fits);
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
