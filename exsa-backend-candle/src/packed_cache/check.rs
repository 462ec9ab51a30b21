//! Checksums of packed files.

use super::file::PackedFile;
use super::layout::BLOCK;
use crate::kernels::memory::team::Team;
use crate::load_steps::LoadSteps;
use exsa_core::backend::Fingerprint;
use exsa_core::error::LoadError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Blocks that are checked between two reports of progress.
const BLOCKS_PER_REPORT: usize = 64;

/// Checksum of a block, or of a header. A change within 8 bytes, at any place, always changes it.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = Fingerprint::default();
    hash.update(bytes);
    hash.0
}

/// Checksums of the blocks of a matrix, on the threads of `team`.
pub(super) fn checksums(matrix: &[u8], team: &mut Team) -> Vec<u64> {
    let mut sums = vec![0; matrix.len().div_ceil(BLOCK)];
    team.for_each_run(&mut sums, 1, |i, sum| {
        sum.fill(checksum(&matrix[i * BLOCK..matrix.len().min((i + 1) * BLOCK)]));
    });
    sums
}

impl PackedFile {
    /// The matrix that the first damaged block is in, while loading.
    pub fn first_damaged(
        &self,
        team: &mut Team,
        steps: &mut LoadSteps<'_, '_>,
    ) -> Result<Option<String>, LoadError> {
        steps.begin_phase(self.layout().matrix_bytes());
        for (name, matrix, sums) in self.matrices() {
            let parts = matrix.chunks(BLOCKS_PER_REPORT * BLOCK).zip(sums.chunks(BLOCKS_PER_REPORT));
            for (part, sums) in parts {
                if checksums(part, team) != sums {
                    return Ok(Some(name.to_owned()));
                }
                steps.add(part.len() as u64)?;
            }
        }
        Ok(None)
    }

    /// The same, alone; `None` too once `stop` is set.
    fn first_damaged_until(&self, stop: &AtomicBool) -> Option<String> {
        for (name, matrix, sums) in self.matrices() {
            for (block, sum) in matrix.chunks(BLOCK).zip(sums) {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                if checksum(block) != *sum {
                    return Some(name.to_owned());
                }
            }
        }
        None
    }
}

/// A check of a packed file on a thread of its own, which ends with this value.
pub(crate) struct BackgroundCheck {
    stop: Arc<AtomicBool>,
    damaged: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BackgroundCheck {
    /// Begins to check `file`. After damage was found the file is removed.
    pub fn start(file: PackedFile) -> std::io::Result<Self> {
        let (stop, damaged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stopped, found) = (Arc::clone(&stop), Arc::clone(&damaged));
        let check = move || {
            let Some(matrix) = file.first_damaged_until(&stopped) else { return };
            found.store(true, Ordering::Relaxed);
            let path = file.path();
            let removed = match std::fs::remove_file(path) {
                Ok(()) => "the file is removed".to_owned(),
                Err(error) => format!("the file cannot be removed: {error}"),
            };
            log::error!("packed weights in {} are damaged: '{matrix}'; {removed}", path.display());
        };
        let thread = std::thread::Builder::new().name("exsa-packed-check".to_owned()).spawn(check)?;
        Ok(Self { stop, damaged, thread: Some(thread) })
    }

    /// Whether damage was found so far.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }
}

impl Drop for BackgroundCheck {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the check is no concern of a model that goes away.
            let _ = thread.join();
        }
    }
}
