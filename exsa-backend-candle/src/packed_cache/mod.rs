//! The packed cache: packed matrices of a model in a file, which later loads and other processes map.
//!
//! # File
//!
//! ```text
//! header     magic, version, layout, identity of the model, places of the matrices
//! checksums  one for each block of the data, then one of everything before
//! padding    to `DATA_ALIGNMENT`
//! data       the matrices, each on a multiple of `MATRIX_ALIGNMENT`, with zeros between
//! ```
//!
//! All numbers are little-endian. A reader does not parse the header: it computes the header that the model's
//! own file calls for ([`PackedLayout`]) and compares. Places and lengths are therefore never those that a
//! packed file claims.
//!
//! # Writing
//!
//! The file is written under a temporary name, which is locked meanwhile, synced and renamed. Other processes
//! that want to write the same file wait for the lock and then find it. A temporary file that was left by a
//! process that ended is overwritten.

mod cached;
mod check;
mod file;
mod identity;
mod layout;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use cached::CachedMatrices;
pub(crate) use check::BackgroundCheck;
pub(crate) use file::PackedFile;

use crate::kernels::memory::team::Team;
use crate::load_steps::LoadSteps;
use crate::model_files::ModelFiles;
use exsa_core::backend::{PackedCache, PackedCheck};
use exsa_core::error::LoadError;
use file::Refusal;
use identity::ModelIdentity;
use layout::PackedLayout;
use std::path::Path;
use std::sync::Arc;
use writer::WriteError;

/// The packed file of the model of `files`, whose first file is at `model`: the one that is there, else one
/// that is written now. `None` where there is none to be had, for a reason that is logged.
pub(crate) fn obtain(
    cache: &PackedCache,
    model: &Path,
    files: &ModelFiles,
    team: &mut Team,
    steps: &mut LoadSteps<'_, '_>,
) -> Result<Option<PackedFile>, LoadError> {
    let identity = ModelIdentity::of(files);
    let layout = identity.and_then(|identity| PackedLayout::new(files.gguf(), &identity));
    let Some(layout) = layout else { return Ok(None) };
    let (path, layout) = (cache.file(model), Arc::new(layout));
    let mut is_damaged = false;
    let refusal = match PackedFile::open(&path, &layout) {
        Ok(file) if cache.check == PackedCheck::Load => match file.first_damaged(team, steps)? {
            None => return Ok(Some(file)),
            Some(matrix) => {
                steps.end_phase();
                is_damaged = true;
                Refusal::Unusable(format!("'{matrix}' is damaged"))
            }
        },
        Ok(file) => return Ok(Some(file)),
        Err(refusal) => refusal,
    };
    if let Refusal::Unusable(problem) = refusal {
        log::warn!("packed weights in {} are not used, and packed anew: {problem}", path.display());
    }
    // Another process may have written it meanwhile.
    let is_there = || !is_damaged && PackedFile::open(&path, &layout).is_ok();
    let written = writer::write(&path, &layout, files, team, steps, is_there);
    steps.end_phase();
    match written {
        Ok(()) => log::info!("packed weights are in {}", path.display()),
        Err(WriteError::Load(error)) => return Err(error),
        Err(WriteError::Io(error)) => {
            log::warn!("packed weights cannot be written to {}: {error}", path.display());
            return Ok(None);
        }
    }
    match PackedFile::open(&path, &layout) {
        Ok(file) => Ok(Some(file)),
        Err(refusal) => {
            log::warn!("packed weights in {} were written, but: {refusal:?}", path.display());
            Ok(None)
        }
    }
}
