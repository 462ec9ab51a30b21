//! The `metrics` facade reports the values of the snapshot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::clock::ManualClock;
use exsa_core::queue::Fcfs;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{EngineLoop, EngineOptions, Request};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Values = Arc<Mutex<BTreeMap<String, f64>>>;

/// Keeps the last value of counters and gauges, and the number of a histogram's values.
#[derive(Clone, Default)]
struct Listener(Values);

struct Handle(String, Values);

impl Handle {
    fn set(&self, value: impl FnOnce(f64) -> f64) {
        let mut values = self.1.lock().unwrap();
        let entry = values.entry(self.0.clone()).or_default();
        *entry = value(*entry);
    }
}

impl CounterFn for Handle {
    fn increment(&self, value: u64) {
        self.set(|before| before + value as f64);
    }

    fn absolute(&self, value: u64) {
        self.set(|_| value as f64);
    }
}

impl GaugeFn for Handle {
    fn increment(&self, value: f64) {
        self.set(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.set(|before| before - value);
    }

    fn set(&self, value: f64) {
        Handle::set(self, |_| value);
    }
}

impl HistogramFn for Handle {
    fn record(&self, _value: f64) {
        self.set(|before| before + 1.0);
    }
}

impl Listener {
    fn handle(&self, key: &Key) -> Arc<Handle> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Handle(format!("{}{{{}}}", key.name(), labels.join(",")), self.0.clone()))
    }
}

impl Recorder for Listener {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.handle(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.handle(key))
    }
}

#[test]
fn the_facade_hears_what_the_snapshot_says() {
    let listener = Listener::default();
    let clock = ManualClock::new();
    let model =
        ScriptedModel::ngram(1).cost(clock.clone(), Duration::from_millis(5), Duration::from_millis(1));
    let mut engine = metrics::with_local_recorder(&listener, || {
        let queue = Box::new(Fcfs::new());
        EngineLoop::new(model.shared(), EngineOptions::default(), queue, Arc::new(clock)).unwrap()
    });
    let request = || Request::tokens(vec![7; 100]).max_tokens(5).ignore_eos(true);
    let streams: Vec<_> = (0..20).map(|_| engine.submit(request()).unwrap()).collect();
    engine.step();
    let value = |name: &str| {
        let values = listener.0.lock().unwrap();
        *values.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", values.keys()))
    };
    assert_eq!(value("exsa_running{model=scripted}"), 16.0);
    assert_eq!(value("exsa_waiting{model=scripted,class=normal}"), 4.0);
    while !engine.is_empty() {
        engine.step();
    }
    drop(streams);
    let stats = engine.stats();
    assert_eq!(value("exsa_requests_finished_total{model=scripted}"), 20.0);
    assert_eq!(value("exsa_tokens_computed_total{model=scripted}"), stats.tokens_computed as f64);
    assert_eq!(value("exsa_cached_tokens_total{model=scripted}"), stats.scheduler.cached_tokens as f64);
    assert_eq!(value("exsa_time_to_first_token_seconds{model=scripted}"), 20.0);
    assert_eq!(value("exsa_inter_token_seconds{model=scripted}"), 80.0);
    assert_eq!(value("exsa_queue_time_seconds{model=scripted}"), 20.0);
    let forward = value("exsa_step_microseconds_total{model=scripted,part=forward}");
    assert_eq!(forward, stats.step_times.forward.as_micros() as f64);
    assert!(forward > 0.0 && stats.scheduler.cached_tokens > 0);
}
