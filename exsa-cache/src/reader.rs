//! The reading thread, which reads records from files.

use crate::format::{EntryFile, FormatError};
use crate::shared::{ENTRY, Shared, is_gone};
use exsa_core::prompt_cache::{EntryId, ReadReply};
use std::time::{Instant, SystemTime};

/// Runs until the cache is dropped. Pending reads are then abandoned.
pub(crate) fn run(shared: &Shared) {
    while let Some((id, reply)) = next(shared) {
        let begun = Instant::now();
        match read(shared, id) {
            Ok(record) => {
                let mut state = shared.state.lock();
                state.stats.reads += 1;
                state.stats.read_bytes += record.len() as u64;
                let now = SystemTime::now();
                state.index.touch(id, now);
                drop(state);
                reply.done(record, begun.elapsed());
                // Records the use for other processes and the next start. Another process may have removed
                // the file.
                let _ = shared.disk.touch(&format!("{id}{ENTRY}"), now);
            }
            Err(error) => {
                shared.state.lock().stats.read_failures += 1;
                reply.failed(error.to_string());
                let name = format!("{id}{ENTRY}");
                match &error {
                    FormatError::Damaged(problem) => shared.remove_damaged(id, &name, problem),
                    FormatError::Io(error) if is_gone(error) => drop(shared.state.lock().index.remove(id)),
                    FormatError::Foreign(_) | FormatError::Io(_) => {}
                }
            }
        }
    }
}

fn next(shared: &Shared) -> Option<(EntryId, ReadReply)> {
    let mut state = shared.state.lock();
    loop {
        if state.is_stopping {
            // Dropped outside the lock, since dropping a reply wakes its engine.
            let given_up = std::mem::take(&mut state.reads);
            drop(state);
            drop(given_up);
            return None;
        }
        if let Some(read) = state.reads.pop_front() {
            return Some(read);
        }
        shared.to_read.wait(&mut state);
    }
}

/// Reads and checks a file.
fn read(shared: &Shared, id: EntryId) -> Result<Vec<u8>, FormatError> {
    let (mut from, bytes) = shared.disk.open(&format!("{id}{ENTRY}"))?;
    let (header, file) = EntryFile::read_index(&mut *from, bytes, &shared.sealer)?;
    if file.id != id {
        return Err(FormatError::Damaged("its name belongs to another entry"));
    }
    header.read_record(&mut *from, &shared.sealer)
}
