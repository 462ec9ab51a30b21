//! The threads that compute.

use crate::kernels::memory::team::Team;
use exsa_core::backend::{SessionOptions, ThreadOptions, ThreadTeam};
use exsa_core::error::LoadError;

/// Maximum threads of a team.
const THREADS_MAX: usize = 1024;

/// Threads of a session.
pub(crate) enum Threads {
    /// Its own.
    Own(Team),
    /// Those of a team that it shares with other sessions, and their number.
    Shared(ThreadTeam, usize),
}

impl Threads {
    /// The threads that `options` ask for, started if they are not yet.
    pub fn new(options: &SessionOptions) -> Result<Self, LoadError> {
        match &options.team {
            None => team(&options.threads).map(Self::Own),
            Some(shared) => {
                let count = shared.run(|options| team(&options), |team| team.threads())?;
                Ok(Self::Shared(shared.clone(), count))
            }
        }
    }

    /// Number of threads.
    pub fn count(&self) -> usize {
        match self {
            Self::Own(own) => own.threads(),
            Self::Shared(_, count) => *count,
        }
    }

    /// Calls `work` with the team; a shared one is waited for.
    ///
    /// # Errors
    ///
    /// Those of starting the threads of a shared team anew, after a panic.
    pub fn run<R>(&mut self, work: impl FnOnce(&mut Team) -> R) -> Result<R, LoadError> {
        match self {
            Self::Own(own) => Ok(work(own)),
            Self::Shared(shared, _) => shared.run(|options| team(&options), work),
        }
    }
}

/// Threads of a session by `options`.
pub(crate) fn session_threads(options: &SessionOptions) -> Result<usize, LoadError> {
    threads(&options.team.as_ref().map_or(options.threads, ThreadTeam::threads))
}

/// Threads by `options`: by default one for each physical core.
fn threads(options: &ThreadOptions) -> Result<usize, LoadError> {
    let threads = options.compute.map_or_else(physical_cores, usize::from);
    if threads > THREADS_MAX {
        let problem = format!("{threads} threads; 1 to {THREADS_MAX} are allowed");
        return Err(LoadError::Option { option: "threads.compute", problem });
    }
    Ok(threads)
}

/// A team of as many threads as `options` say.
pub(crate) fn team(options: &ThreadOptions) -> Result<Team, LoadError> {
    let threads = threads(options)?;
    Team::new(threads).map_err(|e| LoadError::Backend(format!("cannot start {threads} threads: {e}")))
}

/// Physical cores, but no more than the process may run on.
fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    num_cpus::get_physical().clamp(1, allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use exsa_core::SeqId;
    use exsa_core::backend::{InferenceBackend, LoadOptions, LoadProgress, ModelSource, Session};
    use exsa_core::batch::{Batch, Span};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn row(session: &mut dyn Session) -> Vec<f32> {
        let mut batch = Batch::new();
        batch.push(Span::tokens(SeqId(0), 0, &[5; 100]).rows(1));
        let row = session.forward(&batch).unwrap().row(0).unwrap().to_vec();
        session.release(SeqId(0));
        row
    }

    /// A pass that panics, on the calling thread or on a helper, costs the team and not its sessions.
    #[test]
    fn a_shared_team_survives_a_panic() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/llama-q8_0.gguf");
        let model = crate::CandleBackend::new()
            .load(&ModelSource::file(path), &LoadOptions::new(), &mut LoadProgress::none())
            .unwrap();
        let shared = ThreadTeam::new(ThreadOptions::compute(2));
        let options = SessionOptions::new().team(&shared);
        let mut session = model.session(&options).unwrap();
        let expected = row(&mut *session);
        let mut other = Threads::new(&options).unwrap();
        for _ in 0..2 {
            let pass = || other.run(|team| team.for_each(100, 1, |range| assert!(range.start < 50)));
            assert!(catch_unwind(AssertUnwindSafe(pass)).is_err());
            assert_eq!(row(&mut *session), expected);
        }
    }

    #[test]
    fn too_many_threads_are_refused() {
        let threads = ThreadOptions::compute(THREADS_MAX + 1);
        let own = SessionOptions::new().threads(threads);
        let shared = SessionOptions::new().team(&ThreadTeam::new(threads));
        for options in [own, shared] {
            let refused =
                |error: LoadError| matches!(error, LoadError::Option { option: "threads.compute", .. });
            assert!(Threads::new(&options).err().is_some_and(refused));
            assert!(session_threads(&options).err().is_some_and(refused));
        }
    }
}
