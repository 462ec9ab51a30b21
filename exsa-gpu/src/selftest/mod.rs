//! Checks of every kernel on a device against plain arithmetic in f64 on the host, on random shapes with
//! tails.
//!
//! The emulated device runs them in tests; on a GPU they are the first thing to run.

mod attention;
mod products;
mod rig;
mod rows;

use crate::device::{Device, DeviceError};
use crate::kernel::Module;
use rig::Rig;
use std::fmt;

/// Result of the check of one kernel.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// The kernel, and the shape that it ran on.
    pub name: String,
    /// Largest error, relative to the size of the terms of each result; infinite for values that are not
    /// numbers, and for writes past an output's end.
    pub error: f64,
    /// Largest error allowed.
    pub limit: f64,
}

impl Outcome {
    /// Whether the error is within the limit.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.error <= self.limit
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        write!(f, "{verdict} {}: error {:.1e}, limit {:.1e}", self.name, self.error, self.limit)
    }
}

/// Checks the kernels of `module` on random shapes, which follow from `seed`.
///
/// # Errors
///
/// Those of the device; a wrong result is no error, but an [`Outcome`] that did not pass.
pub fn check<D: Device>(device: &D, module: Module, seed: u64) -> Result<Vec<Outcome>, DeviceError> {
    let mut rig = Rig::new(device, seed)?;
    match module {
        Module::Rows => rows::check(&mut rig)?,
        Module::Combine => attention::check_combine(&mut rig)?,
        Module::Attention(element) => attention::check(&mut rig, element)?,
        Module::Weights(weight) => products::check(&mut rig, weight)?,
    }
    Ok(rig.outcomes)
}

/// Checks all kernels.
///
/// # Errors
///
/// Those of [`check`].
pub fn check_all<D: Device>(device: &D, seed: u64) -> Result<Vec<Outcome>, DeviceError> {
    let mut outcomes = Vec::new();
    for module in Module::all() {
        outcomes.extend(check(device, module, seed)?);
    }
    Ok(outcomes)
}
