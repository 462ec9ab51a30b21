//! Alarms on a thread of their own.

use parking_lot::{Condvar, Mutex};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

/// Called at the time of an alarm. Returns the time of its next call, if any.
pub(crate) type Alarm = Box<dyn FnMut() -> Option<Instant> + Send>;

struct Entry {
    at: Instant,
    /// Alarms of the same time ring in the order of their setting.
    order: u64,
    alarm: Alarm,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[derive(Default)]
struct State {
    entries: BinaryHeap<Reverse<Entry>>,
    set: u64,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Rings alarms until it is dropped.
pub(crate) struct Timers {
    shared: Arc<Shared>,
}

impl Timers {
    /// Starts the thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let of_thread = shared.clone();
        std::thread::Builder::new().name("exsa-remote-timers".to_owned()).spawn(move || of_thread.run())?;
        Ok(Self { shared })
    }

    /// Sets an alarm.
    pub(crate) fn set(&self, at: Instant, alarm: Alarm) {
        self.shared.push(at, alarm);
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.entries.clear();
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn push(&self, at: Instant, alarm: Alarm) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.set += 1;
        let order = state.set;
        state.entries.push(Reverse(Entry { at, order, alarm }));
        drop(state);
        self.changed.notify_one();
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let Some(Reverse(next)) = state.entries.peek() else {
                self.changed.wait(&mut state);
                continue;
            };
            let at = next.at;
            if Instant::now() < at {
                self.changed.wait_until(&mut state, at);
                continue;
            }
            let Some(Reverse(mut entry)) = state.entries.pop() else { continue };
            drop(state);
            if let Some(at) = (entry.alarm)() {
                self.push(at, entry.alarm);
            }
            state = self.state.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn alarms_ring_in_order_and_again() {
        let timers = Timers::start().unwrap();
        let (sender, rung) = mpsc::channel();
        let start = Instant::now();
        for (name, after) in [("late", 60), ("soon", 20)] {
            let sender = sender.clone();
            let mut again = name == "soon";
            let alarm = move || {
                sender.send(name).unwrap();
                std::mem::take(&mut again).then(|| start + Duration::from_millis(120))
            };
            timers.set(start + Duration::from_millis(after), Box::new(alarm));
        }
        let names: Vec<_> = (0..3).map(|_| rung.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
        assert_eq!(names, ["soon", "late", "soon"]);
        assert!(start.elapsed() >= Duration::from_millis(120));
        drop(timers);
        drop(sender);
        assert!(rung.recv_timeout(Duration::from_secs(20)).is_err(), "the thread has ended");
    }
}
