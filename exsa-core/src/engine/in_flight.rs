//! Whom the pass in progress computes for, so that one that nobody wants any more ends early.

use crate::backend::Interrupt;
use crate::backend::interrupt::TimeLimit;
use crate::clock::Clock;
use crate::token::RequestId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The requests of the pass in progress that are still wanted. Shared by the engine's thread and those that cancel.
///
/// What others get from a pass is worth more than the rest of it, so it ends early only when the last one has been cancelled or
/// has expired.
pub(crate) struct InFlight {
    limit: Arc<TimeLimit>,
    wanted: Mutex<Vec<Wanted>>,
}

/// A request, and when it expires, if ever.
pub(crate) type Wanted = (RequestId, Option<Duration>);

impl InFlight {
    /// No pass yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { limit: Arc::new(TimeLimit::new(clock)), wanted: Mutex::default() }
    }

    /// What interrupts the session: the host's interrupt, and this.
    pub(crate) fn interrupt(&self, of_host: &Interrupt) -> Interrupt {
        of_host.or_after(self.limit.clone())
    }

    /// A pass for `requests` begins.
    pub(crate) fn begin(&self, requests: impl Iterator<Item = Wanted>) {
        let mut wanted = self.wanted.lock();
        wanted.clear();
        wanted.extend(requests);
        self.limit.set(last_expiry(&wanted));
    }

    /// The pass is over, in whatever way.
    pub(crate) fn end(&self) {
        let mut wanted = self.wanted.lock();
        wanted.clear();
        self.limit.set(None);
    }

    /// Nobody waits for `request` any more.
    pub(crate) fn cancel(&self, request: RequestId) {
        let mut wanted = self.wanted.lock();
        let Some(at) = wanted.iter().position(|(id, _)| *id == request) else { return };
        wanted.swap_remove(at);
        if wanted.is_empty() {
            self.limit.end();
        } else {
            self.limit.set(last_expiry(&wanted));
        }
    }
}

/// When the last of them expires; `None` for never.
fn last_expiry(wanted: &[Wanted]) -> Option<Duration> {
    wanted.iter().map(|(_, expiry)| *expiry).try_fold(Duration::ZERO, |last, expiry| Some(last.max(expiry?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn in_flight() -> (InFlight, Interrupt, Interrupt, ManualClock) {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1));
        let in_flight = InFlight::new(Arc::new(clock.clone()));
        let of_host = Interrupt::default();
        let of_session = in_flight.interrupt(&of_host);
        (in_flight, of_host, of_session, clock)
    }

    fn at(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn only_the_last_one_interrupts() {
        let (in_flight, of_host, interrupt, _) = in_flight();
        let [a, b, c] = [1, 2, 3].map(RequestId);
        in_flight.cancel(a);
        in_flight.begin([(a, None), (b, None)].into_iter());
        for (request, raised) in [(c, false), (a, false), (a, false), (b, true)] {
            in_flight.cancel(request);
            assert_eq!(interrupt.is_raised(), raised, "{request:?}");
        }
        assert!(!of_host.is_raised());
        in_flight.end();
        in_flight.cancel(b);
        assert!(!interrupt.is_raised());
    }

    #[test]
    fn the_last_expiry_interrupts() {
        let (in_flight, _, interrupt, clock) = in_flight();
        let [a, b, c] = [1, 2, 3].map(RequestId);
        in_flight.begin([(a, at(2)), (b, at(3))].into_iter());
        for raised in [false, true, true] {
            clock.advance(Duration::from_secs(1));
            assert_eq!(interrupt.is_raised(), raised, "at {:?}", clock.now());
        }
        in_flight.begin([(a, at(2)), (b, None), (c, at(5))].into_iter());
        assert!(!interrupt.is_raised(), "somebody waits without a limit");
        in_flight.cancel(b);
        assert!(!interrupt.is_raised(), "somebody waits until 5 s");
        clock.advance(Duration::from_secs(1));
        assert!(interrupt.is_raised());
        in_flight.end();
        assert!(!interrupt.is_raised(), "the next pass is not meant");
    }

    #[test]
    fn what_the_host_raised_stays() {
        let (in_flight, of_host, interrupt, _) = in_flight();
        in_flight.begin([(RequestId(1), None)].into_iter());
        of_host.raise();
        assert!(interrupt.is_raised());
        in_flight.end();
        assert!(of_host.is_raised() && interrupt.is_raised());
        of_host.clear();
        assert!(!interrupt.is_raised());
    }
}
