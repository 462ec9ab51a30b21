//! Whom the pass in progress computes for, so that one that nobody wants any more ends early.

use crate::backend::Interrupt;
use crate::scheduler::RequestId;
use parking_lot::Mutex;

/// The requests of the pass in progress that are still wanted. Shared by the engine's thread and those that cancel.
#[derive(Default)]
pub(crate) struct InFlight {
    interrupt: Interrupt,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wanted: Vec<RequestId>,
    /// Whether the interrupt was raised from here: then it is lowered from here.
    raised: bool,
}

impl InFlight {
    /// No pass yet; `interrupt` is the session's.
    pub(crate) fn new(interrupt: Interrupt) -> Self {
        Self { interrupt, state: Mutex::default() }
    }

    /// A pass for `requests` begins.
    pub(crate) fn begin(&self, requests: impl Iterator<Item = RequestId>) {
        let mut state = self.state.lock();
        state.wanted.clear();
        state.wanted.extend(requests);
    }

    /// The pass is over, in whatever way.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.wanted.clear();
        if std::mem::take(&mut state.raised) {
            self.interrupt.clear();
        }
    }

    /// Nobody waits for `request` any more. Interrupts the pass in progress if it computes for nobody else: what others get
    /// from a pass is worth more than the rest of it.
    pub(crate) fn cancel(&self, request: RequestId) {
        let mut state = self.state.lock();
        let Some(at) = state.wanted.iter().position(|wanted| *wanted == request) else { return };
        state.wanted.swap_remove(at);
        if state.wanted.is_empty() {
            state.raised = true;
            self.interrupt.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_one_interrupts() {
        let interrupt = Interrupt::default();
        let in_flight = InFlight::new(interrupt.clone());
        let [a, b, c] = [1, 2, 3].map(RequestId);
        in_flight.cancel(a);
        in_flight.begin([a, b].into_iter());
        for (request, raised) in [(c, false), (a, false), (a, false), (b, true)] {
            in_flight.cancel(request);
            assert_eq!(interrupt.is_raised(), raised, "{request:?}");
        }
        in_flight.end();
        in_flight.cancel(b);
        assert!(!interrupt.is_raised());
    }

    #[test]
    fn what_the_host_raised_stays() {
        let interrupt = Interrupt::default();
        let in_flight = InFlight::new(interrupt.clone());
        in_flight.begin([RequestId(1)].into_iter());
        interrupt.raise();
        in_flight.end();
        assert!(interrupt.is_raised());
    }
}
