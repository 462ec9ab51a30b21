//! Supervision with time as an argument, and estimates of costs.
#![allow(clippy::unwrap_used)]

use super::cause::ExitCause;
use super::policy::{RestartPolicy, Timeouts};
use super::step_cost::StepCost;
use super::supervision::{Action, Phase, Sign, Supervision};
use exsa_core::stats::EngineStats;
use std::time::Duration;

const KILLED: ExitCause = ExitCause::Signal(9);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A supervision, and the time, which passes in steps of 20 ms.
struct Simulation {
    supervision: Supervision,
    now: Duration,
    open: usize,
}

impl Simulation {
    fn new(policy: RestartPolicy) -> Self {
        Self {
            supervision: Supervision::new(policy, Timeouts::new(), Duration::ZERO),
            now: Duration::ZERO,
            open: 0,
        }
    }

    fn ready(policy: RestartPolicy) -> Self {
        let mut simulation = Self::new(policy);
        simulation.start_now();
        simulation
    }

    fn start_now(&mut self) {
        assert_eq!(self.next_action(ms(60_000)).unwrap().0, Action::Start);
        self.supervision.started(self.now);
        self.supervision.ready(self.now);
    }

    /// Lets time pass until an action is due, or for `time`; heartbeats come as `beat` says.
    fn pass(
        &mut self,
        time: Duration,
        beat: impl Fn(Duration) -> Option<Sign>,
    ) -> Option<(Action, Duration)> {
        let start = self.now;
        while self.now < start + time {
            if let Some(sign) = beat(self.now - start) {
                self.supervision.beat(self.now, 0, sign);
            }
            if let Some(action) = self.supervision.poll(self.now, self.open) {
                return Some((action, self.now - start));
            }
            self.now += ms(20);
        }
        None
    }

    fn next_action(&mut self, time: Duration) -> Option<(Action, Duration)> {
        self.pass(time, |_| None)
    }

    fn crash(&mut self) {
        self.supervision.ended(self.now, &KILLED);
    }
}

/// A busy engine whose passes may take so long.
fn idle(idle: Duration, allowance: Duration) -> Sign {
    Sign { idle, allowance }
}

#[test]
fn pauses_double_and_good_service_resets_them() {
    let mut simulation = Simulation::ready(RestartPolicy::new().backoff(ms(100), ms(400)));
    for expected in [100, 200, 400, 400] {
        simulation.crash();
        let (action, waited) = simulation.next_action(ms(60_000)).unwrap();
        assert_eq!((action, waited), (Action::Start, ms(expected)));
        simulation.supervision.started(simulation.now);
        simulation.supervision.ready(simulation.now);
    }
    let served = simulation.pass(ms(30_020), |_| Some(idle(ms(0), ms(2000))));
    assert_eq!(served, None);
    simulation.crash();
    assert_eq!(simulation.next_action(ms(60_000)), Some((Action::Start, ms(100))));
}

#[test]
fn too_many_restarts_in_a_window_give_up_until_asked() {
    let policy = RestartPolicy::new().backoff(ms(20), ms(20)).restarts_max(3, ms(10_000));
    let mut simulation = Simulation::ready(policy);
    for _ in 0..3 {
        simulation.crash();
        simulation.start_now();
    }
    simulation.crash();
    assert_eq!(*simulation.supervision.phase(), Phase::Failed(KILLED));
    assert_eq!(simulation.next_action(ms(60_000)), None);
    simulation.supervision.restart(simulation.now);
    simulation.start_now();
    // Crashes that are far apart do not add up.
    for _ in 0..20 {
        assert_eq!(simulation.pass(ms(4000), |_| Some(idle(ms(0), ms(2000)))), None);
        simulation.crash();
        simulation.start_now();
    }
}

#[test]
fn a_process_whose_engine_has_ended_is_killed_if_it_stays() {
    let alive = |_| Some(idle(ms(0), ms(2000)));
    let mut simulation = Simulation::ready(RestartPolicy::new().restarts_max(0, ms(60_000)));
    simulation.pass(ms(1000), alive);
    simulation.supervision.engine_ended(simulation.now);
    simulation.supervision.engine_ended(simulation.now + ms(500));
    let killed = simulation.pass(ms(60_000), alive);
    assert_eq!(killed, Some((Action::Kill(ExitCause::Panicked), ms(2000))));
    simulation.supervision.ended(simulation.now, &ExitCause::Panicked);
    assert_eq!(*simulation.supervision.phase(), Phase::Failed(ExitCause::Panicked), "it counts as a crash");
}

#[test]
fn without_a_limit_restarts_go_on() {
    let policy = RestartPolicy::new().backoff(ms(20), ms(20)).restarts_max(None, ms(0));
    let mut simulation = Simulation::ready(policy);
    for _ in 0..1000 {
        simulation.crash();
        simulation.start_now();
    }
}

#[test]
fn a_model_that_cannot_be_loaded_is_not_tried_again() {
    let mut simulation = Simulation::new(RestartPolicy::new());
    assert_eq!(simulation.next_action(ms(100)).unwrap().0, Action::Start);
    simulation.supervision.started(simulation.now);
    let cause = ExitCause::Load("no such file".into());
    simulation.supervision.ended(simulation.now, &cause);
    assert_eq!(*simulation.supervision.phase(), Phase::Failed(cause));
}

#[test]
fn silence_ends_a_worker_and_heartbeats_keep_it() {
    let mut simulation = Simulation::ready(RestartPolicy::new());
    assert_eq!(simulation.pass(ms(60_000), |_| Some(idle(ms(0), ms(2000)))), None);
    let (action, after) = simulation.next_action(ms(60_000)).unwrap();
    assert!(matches!(action, Action::Kill(ExitCause::Silent(_))), "{action:?}");
    assert!(after > ms(1900) && after < ms(2100), "{after:?}");
    // Once.
    assert_eq!(simulation.next_action(ms(10_000)), None);
}

#[test]
fn a_stall_needs_open_requests_and_more_than_the_allowance() {
    let grows = |allowance: Duration| move |since: Duration| Some(idle(since, allowance));
    let mut simulation = Simulation::ready(RestartPolicy::new());
    assert_eq!(simulation.pass(ms(60_000), grows(ms(2000))), None, "no request is open");
    simulation.open = 1;
    assert_eq!(simulation.pass(ms(5000), |_| Some(idle(ms(0), ms(2000)))), None);
    let (action, after) = simulation.pass(ms(60_000), grows(ms(7000))).unwrap();
    assert!(matches!(action, Action::Kill(ExitCause::Stalled(_))), "{action:?}");
    assert!(after > ms(6900) && after < ms(7100), "{after:?}");
    assert_eq!(simulation.pass(ms(60_000), grows(ms(7000))), None, "once");
}

#[test]
fn a_host_that_was_stopped_itself_blames_nobody() {
    let mut simulation = Simulation::ready(RestartPolicy::new());
    simulation.pass(ms(1000), |_| Some(idle(ms(0), ms(2000))));
    simulation.now += ms(3_600_000);
    assert_eq!(simulation.pass(ms(1000), |_| None), None);
    assert!(simulation.pass(ms(3000), |_| None).is_some(), "the worker is silent now");
}

#[test]
fn loading_may_take_long_but_not_without_progress() {
    let mut simulation = Simulation::new(RestartPolicy::new());
    simulation.next_action(ms(100)).unwrap();
    simulation.supervision.started(simulation.now);
    for loaded in 1..20 {
        simulation.supervision.beat(simulation.now, loaded, Sign::default());
        assert_eq!(simulation.pass(ms(50_000), |_| Some(Sign::default())), None);
    }
    let (action, _) = simulation.pass(ms(60_000), |_| Some(Sign::default())).unwrap();
    assert!(matches!(action, Action::Kill(ExitCause::StartTimeout(_))), "{action:?}");
}

#[test]
fn a_process_that_falls_silent_while_it_loads_is_ended() {
    let mut simulation = Simulation::new(RestartPolicy::new());
    simulation.next_action(ms(100)).unwrap();
    simulation.supervision.started(simulation.now);
    assert_eq!(simulation.next_action(ms(10_000)), None, "the first heartbeat may take its time");
    assert_eq!(simulation.pass(ms(1000), |_| Some(Sign::default())), None);
    let (action, after) = simulation.next_action(ms(60_000)).unwrap();
    assert!(matches!(action, Action::Kill(ExitCause::Silent(_))), "{action:?}");
    assert!(after > ms(1900) && after < ms(2100), "{after:?}");
}

#[test]
fn a_drain_waits_for_requests_and_then_asks_and_then_kills() {
    let alive = |_| Some(idle(ms(0), ms(2000)));
    let mut simulation = Simulation::ready(RestartPolicy::new());
    simulation.open = 1;
    simulation.supervision.restart(simulation.now);
    assert_eq!(simulation.pass(ms(5000), alive), None);
    simulation.open = 0;
    assert_eq!(simulation.pass(ms(100), alive).unwrap().0, Action::Stop { abort: true });
    assert_eq!(simulation.pass(ms(60_000), alive).unwrap(), (Action::Kill(ExitCause::Stopped), ms(2000)));
    simulation.supervision.ended(simulation.now, &KILLED);
    assert_eq!(simulation.next_action(ms(100)), Some((Action::Start, ms(0))), "a replacement needs no pause");

    let mut simulation = Simulation::ready(RestartPolicy::new());
    simulation.open = 1;
    simulation.supervision.stop(simulation.now, false);
    let (action, after) = simulation.pass(ms(60_000), alive).unwrap();
    assert_eq!((action, after), (Action::Stop { abort: true }, ms(30_000)));
    simulation.supervision.ended(simulation.now, &ExitCause::Code(0));
    assert_eq!(*simulation.supervision.phase(), Phase::Stopped);
    assert_eq!(simulation.next_action(ms(60_000)), None);
}

fn stats(steps: u64, tokens: u64, forward: Duration) -> EngineStats {
    let mut stats = EngineStats::default();
    (stats.steps, stats.tokens_computed, stats.step_times.forward) = (steps, tokens, forward);
    stats
}

#[test]
fn the_allowance_follows_the_cost_of_passes_and_prompts() {
    let mut cost = StepCost::default();
    let allowance = |cost: &StepCost, tokens| cost.allowance(tokens, ms(2000), ms(60_000));
    assert_eq!(allowance(&cost, 0), ms(60_000), "the first pass has no measure");
    // Ten passes of one token in 3 s.
    cost.observe(&stats(10, 10, ms(3000)));
    assert_eq!(allowance(&cost, 0), ms(3000));
    assert_eq!(allowance(&cost, 100), ms(303_000), "no more per token than when they come one by one");
    // One pass of 500 tokens in 1 s.
    cost.observe(&stats(11, 510, ms(4000)));
    assert_eq!(allowance(&cost, 100), ms(12_000));
    // Fast passes are forgotten slowly.
    for n in 1..100 {
        cost.observe(&stats(11 + n, 510 + n, ms(4000 + n)));
    }
    assert_eq!(allowance(&cost, 0), ms(2000));
    assert!(allowance(&cost, 500) >= ms(10_000));
}
