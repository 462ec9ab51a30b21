//! The decisions of a supervisor, without processes, threads or a clock: time is an argument.

use super::cause::ExitCause;
use super::policy::{RestartPolicy, Timeouts};
use std::collections::VecDeque;
use std::time::Duration;

/// Longest time between two calls after which silence is blamed on the host itself, which was stopped or had
/// no processor.
const OWN_GAP: Duration = Duration::from_millis(500);

/// A step for the supervisor to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process.
    Start,
    /// Kill the process.
    Kill(ExitCause),
    /// Ask the process to end: at once, or when its requests have ended.
    Stop {
        /// Whether requests are cancelled.
        abort: bool,
    },
}

/// The phase of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No process; the next starts then.
    Waiting(Duration),
    /// The process loads its model.
    Starting,
    /// It serves.
    Ready,
    /// It serves what it has, and takes no more; then it is replaced, or ends.
    Draining {
        /// Time after which its requests are lost.
        until: Duration,
        /// A new process follows.
        restart: bool,
    },
    /// It was asked to end, or killed.
    Ending {
        /// Time after which it is killed.
        until: Duration,
        /// A new process follows.
        restart: bool,
    },
    /// It has ended for good.
    Stopped,
    /// It was given up.
    Failed(ExitCause),
}

/// The last sign of life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sign {
    /// Time without progress, as the worker tells.
    pub(crate) idle: Duration,
    /// Time without progress that is allowed.
    pub(crate) allowance: Duration,
}

/// State of a supervised worker.
#[derive(Debug)]
pub(crate) struct Supervision {
    restart: RestartPolicy,
    timeouts: Timeouts,
    phase: Phase,
    /// Time of the last progress of loading, or of the last sign of life.
    last_sign: Duration,
    /// Time of the last heartbeat while the process loads; `None` before the first.
    last_beat: Option<Duration>,
    sign: Sign,
    loaded: u64,
    ready_since: Option<Duration>,
    backoff: Duration,
    restarts: VecDeque<Duration>,
    last_poll: Option<Duration>,
    /// The process was killed, and its end is awaited.
    killed: bool,
    /// The engine has ended, and the process is to follow by then.
    exit_by: Option<Duration>,
}

impl Supervision {
    pub(crate) fn new(restart: RestartPolicy, timeouts: Timeouts, now: Duration) -> Self {
        Self {
            backoff: restart.backoff_min,
            restart,
            timeouts,
            phase: Phase::Waiting(now),
            last_sign: now,
            last_beat: None,
            sign: Sign::default(),
            loaded: 0,
            ready_since: None,
            restarts: VecDeque::new(),
            last_poll: None,
            killed: false,
            exit_by: None,
        }
    }

    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The process runs, and loads its model.
    pub(crate) fn started(&mut self, now: Duration) {
        (self.last_sign, self.loaded, self.ready_since) = (now, 0, None);
        (self.killed, self.exit_by, self.last_beat) = (false, None, None);
        self.sign = Sign::default();
        self.phase = Phase::Starting;
    }

    /// The engine takes requests.
    pub(crate) fn ready(&mut self, now: Duration) {
        if self.phase == Phase::Starting {
            (self.last_sign, self.ready_since) = (now, Some(now));
            self.sign = Sign { allowance: self.timeouts.stall_min, ..Sign::default() };
            self.phase = Phase::Ready;
        }
    }

    /// A heartbeat came, with the bytes loaded so far.
    pub(crate) fn beat(&mut self, now: Duration, loaded: u64, sign: Sign) {
        let is_loading = self.phase == Phase::Starting;
        if is_loading {
            self.last_beat = Some(now);
        }
        if is_loading && loaded <= self.loaded {
            return;
        }
        (self.last_sign, self.loaded, self.sign) = (now, loaded, sign);
    }

    /// The engine has ended by itself: its process takes no more requests, and ends soon.
    pub(crate) fn engine_ended(&mut self, now: Duration) {
        self.exit_by.get_or_insert(now.saturating_add(self.timeouts.stop));
    }

    /// The process has ended.
    pub(crate) fn ended(&mut self, now: Duration, cause: &ExitCause) {
        let served = self.ready_since.take().map(|since| now.saturating_sub(since));
        match self.phase {
            Phase::Ending { restart: false, .. } | Phase::Draining { restart: false, .. } => {
                self.phase = Phase::Stopped;
            }
            Phase::Ending { restart: true, .. } => self.phase = Phase::Waiting(now),
            Phase::Stopped | Phase::Failed(_) => {}
            _ if cause.is_permanent() => self.phase = Phase::Failed(cause.clone()),
            _ => self.restart_after_crash(now, served, cause),
        }
    }

    fn restart_after_crash(&mut self, now: Duration, served: Option<Duration>, cause: &ExitCause) {
        if served.is_some_and(|time| time >= self.restart.good_service) {
            self.backoff = self.restart.backoff_min;
        }
        let window = self.restart.window;
        self.restarts.retain(|at| now.saturating_sub(*at) < window);
        if let Some(max) = self.restart.restarts_max {
            if self.restarts.len() >= max {
                self.phase = Phase::Failed(cause.clone());
                return;
            }
            self.restarts.push_back(now);
        }
        self.phase = Phase::Waiting(now.saturating_add(self.backoff));
        self.backoff = self.backoff.saturating_mul(2).min(self.restart.backoff_max);
    }

    /// Replaces the process once its requests have ended. A worker that was given up begins anew.
    pub(crate) fn restart(&mut self, now: Duration) {
        match self.phase {
            Phase::Ready => {
                let until = now.saturating_add(self.timeouts.drain);
                self.phase = Phase::Draining { until, restart: true };
            }
            Phase::Failed(_) | Phase::Stopped | Phase::Waiting(_) => {
                self.restarts.clear();
                self.backoff = self.restart.backoff_min;
                self.phase = Phase::Waiting(now);
            }
            Phase::Starting | Phase::Draining { .. } | Phase::Ending { .. } => {}
        }
    }

    /// Ends the worker once its requests have ended, or at once.
    pub(crate) fn stop(&mut self, now: Duration, abort: bool) {
        let until = now.saturating_add(self.timeouts.drain);
        self.phase = match self.phase {
            Phase::Waiting(_) | Phase::Stopped | Phase::Failed(_) => Phase::Stopped,
            Phase::Ready | Phase::Draining { .. } if !abort => Phase::Draining { until, restart: false },
            _ => Phase::Ending { until: now, restart: false },
        };
    }

    /// The next step, if one is due; to be called until it gives none. `open` is the number of open requests.
    pub(crate) fn poll(&mut self, now: Duration, open: usize) -> Option<Action> {
        let gap = self.last_poll.replace(now).map_or(Duration::ZERO, |last| now.saturating_sub(last));
        if gap > OWN_GAP {
            self.last_sign = self.last_sign.saturating_add(gap).min(now);
            self.last_beat = self.last_beat.map(|last| last.saturating_add(gap).min(now));
        }
        if self.exit_by.take_if(|by| now >= *by).is_some() {
            return self.kill(ExitCause::Panicked);
        }
        let silent = now.saturating_sub(self.last_sign);
        match self.phase {
            Phase::Waiting(at) if now >= at => Some(Action::Start),
            Phase::Starting if self.mute(now) > self.timeouts.stall_min => {
                self.kill(ExitCause::Silent(self.mute(now)))
            }
            Phase::Starting if silent > self.timeouts.start => self.kill(ExitCause::StartTimeout(silent)),
            Phase::Draining { until, restart } if open == 0 || now >= until => {
                self.phase = Phase::Ending { until: now.saturating_add(self.timeouts.stop), restart };
                Some(Action::Stop { abort: true })
            }
            Phase::Ending { until, restart } if now >= until => {
                self.phase = Phase::Ending { until: Duration::MAX, restart };
                Some(Action::Kill(ExitCause::Stopped))
            }
            Phase::Ready | Phase::Draining { .. } => self.watch(silent, open),
            _ => None,
        }
    }

    /// Time without a heartbeat since one came while the process loads.
    fn mute(&self, now: Duration) -> Duration {
        self.last_beat.map_or(Duration::ZERO, |last| now.saturating_sub(last))
    }

    fn watch(&mut self, silent: Duration, open: usize) -> Option<Action> {
        if silent > self.timeouts.stall_min {
            return self.kill(ExitCause::Silent(silent));
        }
        // Silence counts, since a stopped process does not tell how long it is idle.
        let idle = self.sign.idle.saturating_add(silent);
        let stalls = open > 0 && !self.sign.idle.is_zero() && idle > self.sign.allowance;
        if stalls { self.kill(ExitCause::Stalled(idle)) } else { None }
    }

    /// Kills the process, once; its end is then a crash.
    fn kill(&mut self, cause: ExitCause) -> Option<Action> {
        (!std::mem::replace(&mut self.killed, true)).then_some(Action::Kill(cause))
    }

    /// Time of the next step, as far as it is known.
    pub(crate) fn next(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting(at) => Some(at),
            _ => None,
        }
    }
}
