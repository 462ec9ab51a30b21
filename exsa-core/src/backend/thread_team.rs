//! A thread team that several sessions share.

use super::ThreadOptions;
use parking_lot::FairMutex;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Compute threads shared by several sessions, so that N engines
/// do not start N teams on the same cores. Clones share the team.
///
/// Passes on a shared team run one at a time, in order of arrival. Thread types are backend-specific: each
/// kind of backend starts its own threads once, on first use by a session.
///
/// ```
/// use exsa_core::backend::{SessionOptions, ThreadOptions, ThreadTeam};
///
/// let team = ThreadTeam::new(ThreadOptions::compute(4));
/// let chat = SessionOptions::new().team(&team);
/// let embeddings = SessionOptions::new().team(&team);
/// # let _ = (chat, embeddings);
/// ```
#[derive(Clone)]
pub struct ThreadTeam(Arc<Shared>);

struct Shared {
    threads: ThreadOptions,
    /// At most one value of each type. The lock is acquired in order of arrival.
    teams: FairMutex<Vec<Box<dyn Any + Send>>>,
}

impl ThreadTeam {
    /// Creates a team with these thread options.
    #[must_use]
    pub fn new(threads: ThreadOptions) -> Self {
        Self(Arc::new(Shared { threads, teams: FairMutex::new(Vec::new()) }))
    }

    /// Thread options of the team.
    #[must_use]
    pub fn threads(&self) -> ThreadOptions {
        self.0.threads
    }

    /// For backends: waits for its turn and calls `work` with the
    /// team of type `T`, which `start` creates on the first call.
    ///
    /// # Errors
    ///
    /// The error of `start`; the next call retries.
    pub fn run<T: Any + Send, R, E>(
        &self,
        start: impl FnOnce(ThreadOptions) -> Result<T, E>,
        work: impl FnOnce(&mut T) -> R,
    ) -> Result<R, E> {
        let mut teams = self.0.teams.lock();
        let entry = teams.iter().position(|team| team.is::<T>()).map(|at| teams.swap_remove(at));
        let mut team = match entry.and_then(|team| team.downcast::<T>().ok()) {
            Some(team) => team,
            None => Box::new(start(self.0.threads)?),
        };
        // A team whose work panics is dropped; the next call starts a new team.
        let result = work(&mut team);
        teams.push(team);
        Ok(result)
    }
}

impl fmt::Debug for ThreadTeam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadTeam").field("threads", &self.0.threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::mpsc;
    use std::time::Duration;

    struct Squad(u32);

    fn work<R>(team: &ThreadTeam, started: &mut u32, work: impl FnOnce(&mut Squad) -> R) -> R {
        let start = |_| {
            *started += 1;
            Ok::<_, Infallible>(Squad(0))
        };
        team.run(start, work).unwrap()
    }

    #[test]
    fn one_team_of_each_type() {
        let team = ThreadTeam::new(ThreadOptions::compute(2));
        let mut started = 0;
        for expected in 1..4 {
            let n = work(&team.clone(), &mut started, |squad| {
                squad.0 += 1;
                squad.0
            });
            assert_eq!(n, expected);
        }
        assert_eq!(started, 1);
        let refused = team.run(|_| Err::<String, _>("no threads"), |_| ());
        assert_eq!(refused, Err("no threads"));
        assert_eq!(team.run(|_| Ok::<_, Infallible>(String::new()), |_| 5), Ok(5));
        assert_eq!(work(&team, &mut started, |squad| squad.0), 3);
    }

    #[test]
    fn a_panic_costs_the_team_and_not_the_handle() {
        let team = ThreadTeam::new(ThreadOptions::auto());
        let mut started = 0;
        let panicking = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            work(&team, &mut started, |_| panic!("in the pass"))
        }));
        assert!(panicking.is_err());
        assert_eq!(work(&team, &mut started, |squad| squad.0), 0);
        assert_eq!(started, 2);
    }

    #[test]
    fn passes_run_in_order_of_arrival() {
        let team = ThreadTeam::new(ThreadOptions::auto());
        let (done, order) = mpsc::channel();
        std::thread::scope(|scope| {
            work(&team, &mut 0, |_| {
                for i in 0..4 {
                    let (team, done) = (team.clone(), done.clone());
                    scope.spawn(move || work(&team, &mut 0, |_| done.send(i).unwrap()));
                    // Each thread waits for the lock before the next is started.
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        });
        let order: Vec<i32> = order.try_iter().collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}
