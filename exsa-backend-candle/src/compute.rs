//! The threads that compute.

use crate::kernels::memory::team::Team;
use exsa_core::backend::ThreadOptions;
use exsa_core::error::LoadError;

/// Threads in a team at most.
const THREADS_MAX: usize = 1024;

/// A team of as many threads as `options` say, else one for each physical core.
pub(crate) fn team(options: &ThreadOptions) -> Result<Team, LoadError> {
    let threads = options.compute.map_or_else(physical_cores, usize::from);
    if threads > THREADS_MAX {
        let problem = format!("{threads} threads; 1 to {THREADS_MAX} are allowed");
        return Err(LoadError::Option { option: "threads.compute", problem });
    }
    Team::new(threads).map_err(|e| LoadError::Backend(format!("cannot start {threads} threads: {e}")))
}

/// Physical cores, but no more than the process may run on.
fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, allowed)
}
