//! Accounts for the KV cells that sequences hold, since llama.cpp does not expose its own account.

use exsa_core::SeqId;
use exsa_core::error::KvError;

/// KV cells, of one token each, and the sequences that hold them. Several sequences may share a cell.
#[derive(Debug)]
pub(crate) struct Cells {
    /// Cells of each sequence, by position.
    sequences: Vec<Vec<u32>>,
    /// Reference count of each cell that was ever held.
    holders: Vec<u16>,
    /// Cells whose reference count fell back to 0.
    freed: Vec<u32>,
    total: usize,
}

impl Cells {
    /// `cells` free cells and `sequences` empty sequences.
    pub fn new(sequences: usize, cells: u32) -> Self {
        Self {
            sequences: vec![Vec::new(); sequences],
            holders: Vec::new(),
            freed: Vec::new(),
            total: cells as usize,
        }
    }

    /// Tokens that `seq` holds; `None` if there is no such sequence.
    pub fn len(&self, seq: SeqId) -> Option<usize> {
        self.sequences.get(seq.index()).map(Vec::len)
    }

    /// Cells that no sequence holds.
    pub fn free(&self) -> usize {
        self.freed.len() + self.total - self.holders.len()
    }

    /// Tokens that `seq` holds, or an error if there is no such sequence.
    pub fn existing_len(&self, seq: SeqId) -> Result<usize, KvError> {
        self.len(seq).ok_or(KvError::Sequence { seq, problem: "there is no such sequence" })
    }

    /// An error unless `seq` exists and is empty.
    pub fn check_empty(&self, seq: SeqId) -> Result<(), KvError> {
        match self.existing_len(seq)? {
            0 => Ok(()),
            _ => Err(KvError::Sequence { seq, problem: "it is not empty" }),
        }
    }

    /// An error unless `seq` exists and holds at least `len` tokens.
    pub fn check_len(&self, seq: SeqId, len: usize) -> Result<(), KvError> {
        let held = self.existing_len(seq)?;
        if len > held { Err(KvError::Length { seq, len, held }) } else { Ok(()) }
    }

    /// Appends `n` cells to `seq`; `false`, without a change, if fewer are free.
    pub fn append(&mut self, seq: SeqId, n: usize) -> bool {
        if n > self.free() {
            return false;
        }
        let Some(cells) = self.sequences.get_mut(seq.index()) else { return false };
        for _ in 0..n {
            let cell = self.freed.pop().unwrap_or_else(|| {
                self.holders.push(0);
                self.holders.len() as u32 - 1
            });
            self.holders[cell as usize] = 1;
            cells.push(cell);
        }
        true
    }

    /// Shares the first `len` cells of `from` with the empty `to`. Both were checked.
    pub fn share(&mut self, from: SeqId, to: SeqId, len: usize) {
        let shared: Vec<u32> = self.sequences[from.index()][..len].to_vec();
        for &cell in &shared {
            self.holders[cell as usize] += 1;
        }
        self.sequences[to.index()] = shared;
    }

    /// Truncates `seq` to its first `len` cells. Nothing happens if it is not longer or does not exist.
    pub fn truncate(&mut self, seq: SeqId, len: usize) {
        let Some(cells) = self.sequences.get_mut(seq.index()) else { return };
        for cell in cells.drain(len.min(cells.len())..) {
            let holders = &mut self.holders[cell as usize];
            *holders -= 1;
            if *holders == 0 {
                self.freed.push(cell);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_cells_are_counted_once_and_freed_by_the_last() {
        let mut cells = Cells::new(3, 10);
        assert!(cells.append(SeqId(0), 6));
        cells.share(SeqId(0), SeqId(1), 4);
        assert_eq!(cells.free(), 4);
        assert!(cells.append(SeqId(1), 4));
        assert!(!cells.append(SeqId(2), 1));
        assert_eq!(cells.len(SeqId(2)), Some(0));
        cells.truncate(SeqId(0), 0);
        assert_eq!(cells.free(), 2);
        cells.truncate(SeqId(1), 3);
        assert_eq!(cells.free(), 7);
        cells.truncate(SeqId(1), 0);
        cells.truncate(SeqId(7), 0);
        assert_eq!(cells.free(), 10);
    }

    #[test]
    fn wrong_ids_and_lengths_are_told() {
        let mut cells = Cells::new(1, 4);
        assert!(cells.append(SeqId(0), 2));
        assert!(matches!(cells.check_empty(SeqId(0)), Err(KvError::Sequence { .. })));
        assert!(matches!(cells.existing_len(SeqId(1)), Err(KvError::Sequence { .. })));
        assert!(matches!(cells.check_len(SeqId(0), 3), Err(KvError::Length { len: 3, held: 2, .. })));
        assert!(!cells.append(SeqId(1), 1));
    }
}
