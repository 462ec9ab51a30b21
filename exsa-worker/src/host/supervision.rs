//! Decisions of a supervisor, without processes, threads or a clock: time is an argument.

use super::cause::ExitCause;
use super::policy::{RestartPolicy, Timeouts};
use std::collections::VecDeque;
use std::time::Duration;

/// Maximum time between two calls; after a longer gap, missing heartbeats are blamed on the host itself,
/// which was stopped or had no processor.
const OWN_GAP: Duration = Duration::from_millis(500);

/// An action for the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a process.
    Start,
    /// Kill the process.
    Kill(ExitCause),
    /// Ask the process to exit: immediately, or when its requests have ended.
    Stop {
        /// Whether requests are cancelled.
        abort: bool,
    },
}

/// The phase of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No process; the next one starts at this time.
    Waiting(Duration),
    /// The process loads its model.
    Starting,
    /// It serves requests.
    Ready,
    /// It serves running requests and accepts no more; then it is replaced, or ends.
    Draining {
        /// Time after which its remaining requests are lost.
        until: Duration,
        /// Whether a new process follows.
        restart: bool,
    },
    /// It was asked to exit, or killed.
    Ending {
        /// Time after which it is killed.
        until: Duration,
        /// Whether a new process follows.
        restart: bool,
    },
    /// It was stopped on request.
    Stopped,
    /// It was given up.
    Failed(ExitCause),
}

/// Progress information of the last heartbeat.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sign {
    /// Time without progress, as reported by the worker.
    pub(crate) idle: Duration,
    /// Allowed time without progress.
    pub(crate) allowance: Duration,
}

/// State of a supervised worker.
#[derive(Debug)]
pub(crate) struct Supervision {
    restart: RestartPolicy,
    timeouts: Timeouts,
    phase: Phase,
    /// Time of the last loading progress, or of the last heartbeat.
    last_sign: Duration,
    /// Time of the last heartbeat while the process loads; `None` before the first.
    last_beat: Option<Duration>,
    sign: Sign,
    loaded: u64,
    ready_since: Option<Duration>,
    backoff: Duration,
    restarts: VecDeque<Duration>,
    last_poll: Option<Duration>,
    /// Whether the process was killed and its exit is pending.
    killed: bool,
    /// The engine has stopped; the process must exit by this time.
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

    /// Records that the process runs and loads its model.
    pub(crate) fn started(&mut self, now: Duration) {
        (self.last_sign, self.loaded, self.ready_since) = (now, 0, None);
        (self.killed, self.exit_by, self.last_beat) = (false, None, None);
        self.sign = Sign::default();
        self.phase = Phase::Starting;
    }

    /// Records that the engine accepts requests.
    pub(crate) fn ready(&mut self, now: Duration) {
        if self.phase == Phase::Starting {
            (self.last_sign, self.ready_since) = (now, Some(now));
            self.sign = Sign { allowance: self.timeouts.stall_min, ..Sign::default() };
            self.phase = Phase::Ready;
        }
    }

    /// Records a heartbeat, with the bytes loaded so far.
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

    /// Records that the engine has stopped by itself: its process accepts no more requests and exits soon.
    pub(crate) fn engine_ended(&mut self, now: Duration) {
        self.exit_by.get_or_insert(now.saturating_add(self.timeouts.stop));
    }

    /// Records the exit of the process.
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

    /// Replaces the process once its requests have ended. Also restarts a worker that was given up.
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

    /// Ends the worker immediately, or once its requests have ended.
    pub(crate) fn stop(&mut self, now: Duration, abort: bool) {
        let until = now.saturating_add(self.timeouts.drain);
        self.phase = match self.phase {
            Phase::Waiting(_) | Phase::Stopped | Phase::Failed(_) => Phase::Stopped,
            Phase::Ready | Phase::Draining { .. } if !abort => Phase::Draining { until, restart: false },
            _ => Phase::Ending { until: now, restart: false },
        };
    }

    /// Returns the next due action; call it until it returns none. `open` is the number of open requests.
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

    /// Returns the time without a heartbeat, once one was received while loading.
    fn mute(&self, now: Duration) -> Duration {
        self.last_beat.map_or(Duration::ZERO, |last| now.saturating_sub(last))
    }

    fn watch(&mut self, silent: Duration, open: usize) -> Option<Action> {
        if silent > self.timeouts.stall_min {
            return self.kill(ExitCause::Silent(silent));
        }
        // Missing heartbeats count, since a stopped process does not report its idle time.
        let idle = self.sign.idle.saturating_add(silent);
        let stalls = open > 0 && !self.sign.idle.is_zero() && idle > self.sign.allowance;
        if stalls { self.kill(ExitCause::Stalled(idle)) } else { None }
    }

    /// Kills the process once; its exit counts as a crash.
    fn kill(&mut self, cause: ExitCause) -> Option<Action> {
        (!std::mem::replace(&mut self.killed, true)).then_some(Action::Kill(cause))
    }

    /// Returns the time of the next action, if known.
    pub(crate) fn next(&self) -> Option<Duration> {
        match self.phase {
            Phase::Waiting(at) => Some(at),
            _ => None,
        }
    }
}
