//! Tracks which requests the running pass serves, so that
//! it can be interrupted once all are cancelled or expired.

use crate::backend::Interrupt;
use crate::backend::interrupt::TimeLimit;
use crate::clock::Clock;
use crate::token::RequestId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The requests that the running pass serves, and the engine's
/// interrupt. Shared by the engine's thread and cancelling threads.
///
/// A pass ends early only once all of its requests are cancelled
/// or expired: until then its result serves the others.
pub(crate) struct InFlight {
    interrupt: Interrupt,
    limit: Arc<TimeLimit>,
    running: Mutex<Running>,
}

/// The running pass.
#[derive(Default)]
struct Running {
    is_running: bool,
    wanted: Vec<Wanted>,
}

/// A request and its expiry, if any; once for each of its sequences in the pass.
pub(crate) type Wanted = (RequestId, Option<Duration>);

impl InFlight {
    /// Creates the tracker without a running pass.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let limit = Arc::new(TimeLimit::new(clock));
        Self { interrupt: Interrupt::with_limit(limit.clone()), limit, running: Mutex::default() }
    }

    /// The interrupt for the engine's session.
    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Begins a pass for `requests`.
    pub(crate) fn begin(&self, requests: impl Iterator<Item = Wanted>) {
        let mut running = self.running.lock();
        running.is_running = true;
        running.wanted.clear();
        running.wanted.extend(requests);
        self.limit.set(last_expiry(&running.wanted));
    }

    /// Ends the pass, whatever its outcome.
    pub(crate) fn end(&self) {
        let mut running = self.running.lock();
        running.is_running = false;
        running.wanted.clear();
        self.limit.set(None);
    }

    /// Removes a cancelled request from the running pass.
    pub(crate) fn cancel(&self, request: RequestId) {
        let mut running = self.running.lock();
        let before = running.wanted.len();
        running.wanted.retain(|(id, _)| *id != request);
        if running.wanted.len() == before {
            return;
        }
        if running.wanted.is_empty() {
            self.limit.end();
        } else {
            self.limit.set(last_expiry(&running.wanted));
        }
    }

    /// Interrupts the running pass, if any, but no later pass.
    pub(crate) fn end_pass(&self) {
        let mut running = self.running.lock();
        if running.is_running {
            // Later cancels must not postpone the limit.
            running.wanted.clear();
            self.limit.end();
        }
    }

    /// Interrupts the running pass and all later passes.
    pub(crate) fn abort(&self) {
        self.interrupt.raise();
    }
}

/// The latest expiry; `None` if a request never expires.
fn last_expiry(wanted: &[Wanted]) -> Option<Duration> {
    wanted.iter().map(|(_, expiry)| *expiry).try_fold(Duration::ZERO, |last, expiry| Some(last.max(expiry?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn in_flight() -> (InFlight, Interrupt, ManualClock) {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1));
        let in_flight = InFlight::new(Arc::new(clock.clone()));
        let interrupt = in_flight.interrupt();
        (in_flight, interrupt, clock)
    }

    fn at(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn only_the_last_one_interrupts() {
        let (in_flight, interrupt, _) = in_flight();
        let [a, b, c] = [1, 2, 3].map(RequestId);
        in_flight.cancel(a);
        in_flight.begin([(a, None), (b, None)].into_iter());
        for (request, raised) in [(c, false), (a, false), (a, false), (b, true)] {
            in_flight.cancel(request);
            assert_eq!(interrupt.is_raised(), raised, "{request:?}");
        }
        in_flight.end();
        in_flight.cancel(b);
        assert!(!interrupt.is_raised());
    }

    #[test]
    fn the_last_expiry_interrupts() {
        let (in_flight, interrupt, clock) = in_flight();
        let [a, b, c] = [1, 2, 3].map(RequestId);
        in_flight.begin([(a, at(2)), (b, at(3))].into_iter());
        for raised in [false, true, true] {
            clock.advance(Duration::from_secs(1));
            assert_eq!(interrupt.is_raised(), raised, "at {:?}", clock.now());
        }
        in_flight.begin([(a, at(2)), (b, None), (c, at(5))].into_iter());
        assert!(!interrupt.is_raised(), "b waits without a limit");
        in_flight.cancel(b);
        assert!(!interrupt.is_raised(), "c waits until 5 s");
        clock.advance(Duration::from_secs(1));
        assert!(interrupt.is_raised());
        in_flight.end();
        assert!(!interrupt.is_raised(), "the next pass is not meant");
    }

    #[test]
    fn an_interrupt_ends_the_running_pass_and_an_abort_every_later_one() {
        let (in_flight, interrupt, _) = in_flight();
        in_flight.end_pass();
        assert!(!interrupt.is_raised(), "no pass is running");
        let [a, b] = [1, 2].map(RequestId);
        in_flight.begin([(a, None), (b, None)].into_iter());
        in_flight.end_pass();
        in_flight.cancel(a);
        assert!(interrupt.is_raised());
        in_flight.end();
        in_flight.begin([(b, None)].into_iter());
        assert!(!interrupt.is_raised(), "the next pass is not meant");
        in_flight.abort();
        in_flight.end();
        in_flight.begin([(b, None)].into_iter());
        assert!(interrupt.is_raised());
    }
}
