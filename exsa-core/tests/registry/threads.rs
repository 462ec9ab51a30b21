//! The registry with its threads, on scripted models that load in parts and count what is in memory.

use exsa_core::adapter::AdapterError;
use exsa_core::backend::{
    DeviceInfo, InferenceBackend, LoadOptions, LoadProgress, MemoryEstimate, Model, ModelSource, Session,
    SessionOptions,
};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::registry::{
    LoadPacing, ModelConfig, ModelState, Registry, RegistryError, RegistryEvent, RegistryOptions, ReloadOrder,
};
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{FinishReason, Generator, Request, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const TEXT: &str = "The quick brown fox jumps over the lazy dog.";

/// Loads a scripted model in parts, and counts loads and models in memory.
struct Parts {
    inner: ScriptedBackend,
    parts: u64,
    time: Duration,
    loads: AtomicUsize,
    in_memory: Arc<AtomicUsize>,
}

struct Counted(Arc<dyn Model>, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model for Counted {
    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.0.tokenizer()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        self.0.session(options)
    }
}

impl InferenceBackend for Parts {
    fn name(&self) -> &str {
        "parts"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.inner.devices()
    }

    fn inspect(&self, source: &ModelSource) -> Result<ModelInfo, LoadError> {
        self.inner.inspect(source)
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        for part in 0..self.parts {
            progress.report(part, self.parts)?;
            std::thread::sleep(self.time);
        }
        let model = self.inner.load(source, options, &mut LoadProgress::none())?;
        self.in_memory.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Counted(model, self.in_memory.clone())))
    }

    fn estimate(
        &self,
        _source: &ModelSource,
        _load: &LoadOptions,
        _session: &SessionOptions,
    ) -> Result<MemoryEstimate, LoadError> {
        Ok(MemoryEstimate::new(100, 0, 0))
    }
}

fn backend(parts: u64, time: Duration) -> Arc<Parts> {
    let inner = ScriptedBackend::new(ScriptedModel::echo(TEXT));
    Arc::new(Parts { inner, parts, time, loads: AtomicUsize::new(0), in_memory: Arc::default() })
}

fn config(name: &str, backend: &Arc<Parts>) -> ModelConfig {
    ModelConfig::new(name, backend.clone(), ModelSource::file("scripted"))
}

fn request() -> Request {
    Request::text("> ").max_tokens(100)
}

/// Waits until `condition` holds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_model_from_its_load_to_its_unload() {
    let parts = backend(3, Duration::ZERO);
    let registry = Registry::new(RegistryOptions::new().memory_bytes(250)).unwrap();
    let mut events = registry.subscribe();
    registry.add(config("a", &parts).alias("x")).unwrap();
    assert!(matches!(registry.submit(request()), Err(SubmitError::NoActiveModel { .. })));
    registry.load("x").wait().unwrap();
    for model in [None, Some("a"), Some("x")] {
        let mut request = request();
        request.model = model.map(str::to_owned);
        assert_eq!(registry.submit(request).unwrap().complete().unwrap().text, TEXT);
    }
    assert_eq!(registry.active().as_deref(), Some("a"));
    assert_eq!(registry.models()[0].name, "a");
    assert_eq!(registry.engine(Some("x")).unwrap().count_tokens(&request()).unwrap(), 2);
    let status = registry.status("a").unwrap();
    assert_eq!((status.requests, status.memory.unwrap().total(), status.active), (0, 100, true));
    assert_eq!(registry.memory().used, 100);
    registry.unload("a", None).wait().unwrap();
    assert_eq!((parts.in_memory.load(Ordering::SeqCst), registry.memory().used), (0, 0));
    assert_eq!(registry.stats().finished, 3, "the counters of an engine outlive it");
    assert_eq!(registry.stats().scheduler.kv_tokens_max, 0);
    registry.remove("a").unwrap();
    drop(registry);
    let seen: Vec<_> = events
        .by_ref()
        .filter_map(|event| match event {
            RegistryEvent::State { state, .. } => Some(state.name()),
            RegistryEvent::Removed { .. } => Some("removed"),
            RegistryEvent::Progress { progress, .. } => {
                assert_eq!(progress.total, 3);
                None
            }
            _ => None,
        })
        .collect();
    assert_eq!(seen, ["loading", "ready", "draining", "unloaded", "removed"]);
}

/// Streams that run while a model is loaded, unloaded and reloaded fifty times fail only as documented, and
/// nothing stays in memory.
#[test]
fn fifty_cycles_under_eight_streams() {
    let parts = backend(2, Duration::from_micros(200));
    let registry = Registry::new(RegistryOptions::new().memory_bytes(250)).unwrap();
    registry.add(config("a", &parts)).unwrap();
    registry.load("a").wait().unwrap();
    let stop = AtomicBool::new(false);
    let (answered, refused, aborted) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    match registry.submit(request().model("a")) {
                        Ok(stream) => {
                            let answer = stream.complete().unwrap();
                            match answer.reason {
                                FinishReason::EndOfGeneration => {
                                    assert_eq!(answer.text, TEXT);
                                    answered.fetch_add(1, Ordering::Relaxed);
                                }
                                FinishReason::Cancelled => {
                                    assert!(TEXT.starts_with(&answer.text));
                                    aborted.fetch_add(1, Ordering::Relaxed);
                                }
                                other => panic!("{other:?}"),
                            }
                        }
                        Err(SubmitError::ModelUnloaded { .. } | SubmitError::ModelLoading { .. }) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            std::thread::sleep(Duration::from_micros(100));
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        let before = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        for cycle in 0..50 {
            let seen = before(&answered);
            eventually("streams go on", || before(&answered) > seen);
            let order = registry.reload("a", None).wait().unwrap();
            assert_eq!(order, ReloadOrder::LoadFirst);
            let grace = (cycle % 5 == 4).then_some(Duration::ZERO);
            registry.unload("a", grace).wait().unwrap();
            assert_eq!(parts.in_memory.load(Ordering::SeqCst), 0);
            registry.load("a").wait().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(before_all(&answered) >= 50 && before_all(&refused) > 0);
    registry.unload("a", None).wait().unwrap();
    assert_eq!((parts.in_memory.load(Ordering::SeqCst), registry.memory().used), (0, 0));
    let stats = registry.stats();
    assert_eq!((stats.submitted, stats.failed), (stats.finished, 0));
    assert_eq!(stats.finished as usize, before_all(&answered) + before_all(&aborted));
}

fn before_all(count: &AtomicUsize) -> usize {
    count.load(Ordering::Relaxed)
}

/// A reload for which both instances fit refuses no request and aborts none.
#[test]
fn reloads_are_seamless() {
    let parts = backend(2, Duration::from_micros(200));
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    registry.add(config("a", &parts)).unwrap();
    registry.load("a").wait().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(registry.submit(request()).unwrap().complete().unwrap().text, TEXT);
                }
            });
        }
        for _ in 0..30 {
            registry.reload("a", None).wait().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    eventually("old instances are gone", || parts.in_memory.load(Ordering::SeqCst) == 1);
}

#[test]
fn concurrent_loads_join() {
    let parts = backend(5, Duration::from_millis(5));
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    registry.add(config("a", &parts)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| registry.load("a").wait().unwrap());
        }
    });
    assert_eq!(parts.loads.load(Ordering::SeqCst), 1);
}

/// Loads are cancelled at points spread over their whole length, by a cancel or an unload.
#[test]
fn loads_are_cancelled_at_any_point() {
    let parts = backend(10, Duration::from_micros(300));
    let registry = Registry::new(RegistryOptions::new().memory_bytes(100)).unwrap();
    registry.add(config("a", &parts)).unwrap();
    let mut cancelled = 0;
    for i in 0..60 {
        let load = registry.load("a");
        std::thread::sleep(Duration::from_micros(i * 97 % 5000));
        if i % 2 == 0 {
            let was_loading = registry.cancel_load("a").unwrap();
            assert_eq!(load.wait().is_err(), was_loading);
        }
        registry.unload("a", None).wait().unwrap();
        match load.wait() {
            Ok(()) => {}
            Err(RegistryError::Cancelled { .. }) => cancelled += 1,
            Err(other) => panic!("{other}"),
        }
        assert_eq!((parts.in_memory.load(Ordering::SeqCst), registry.memory().used), (0, 0));
    }
    assert!(cancelled > 0);
    registry.load("a").wait().unwrap();
}

/// Submits race with unloads: each request is answered in full, cancelled, or refused.
#[test]
fn unloads_race_with_submits() {
    let parts = backend(1, Duration::ZERO);
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    registry.add(config("a", &parts)).unwrap();
    for i in 0..60 {
        registry.load("a").wait().unwrap();
        std::thread::scope(|scope| {
            let submit = || match registry.submit(request().model("a")) {
                Ok(stream) => {
                    let answer = stream.complete().unwrap();
                    let whole = answer.text == TEXT;
                    assert!(whole || i % 2 == 1 && answer.reason == FinishReason::Cancelled, "{answer:?}");
                }
                Err(error) => assert!(matches!(error, SubmitError::ModelUnloaded { .. }), "{error}"),
            };
            (0..4).for_each(|_| drop(scope.spawn(submit)));
            let grace = (i % 2 == 1).then_some(Duration::ZERO);
            registry.unload("a", grace).wait().unwrap();
        });
        assert_eq!(parts.in_memory.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn requests_load_models_and_evict_idle_ones() {
    let parts = backend(2, Duration::from_millis(1));
    let options = RegistryOptions::new().memory_bytes(200).load_on_request(true);
    let registry = Registry::new(options).unwrap();
    for name in ["a", "b", "c"] {
        registry.add(config(name, &parts)).unwrap();
    }
    for name in ["a", "b", "c", "a"] {
        let refused = registry.submit(request().model(name)).unwrap_err();
        assert!(matches!(refused, SubmitError::ModelLoading { .. }), "{refused}");
        registry.load(name).wait().unwrap();
        assert_eq!(registry.submit(request().model(name)).unwrap().complete().unwrap().text, TEXT);
        assert!(registry.memory().used <= 200);
    }
    let ready: Vec<_> = registry.list().into_iter().filter(|m| m.state.is_ready()).map(|m| m.name).collect();
    assert_eq!(ready, ["a", "c"]);
}

#[test]
fn an_idle_model_sleeps_by_itself() {
    let parts = backend(1, Duration::ZERO);
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    registry.add(config("a", &parts).idle_timeout(Duration::from_millis(20))).unwrap();
    registry.load("a").wait().unwrap();
    eventually("it sleeps", || registry.status("a").unwrap().state == ModelState::Sleeping);
    assert_eq!(parts.in_memory.load(Ordering::SeqCst), 0);
    registry.wake("a").wait().unwrap();
}

/// A handle keeps the memory of an unloaded model, and its drop ends the unload.
#[test]
fn a_handle_keeps_the_memory() {
    let parts = backend(1, Duration::ZERO);
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    registry.add(config("a", &parts)).unwrap();
    registry.load("a").wait().unwrap();
    let handle = registry.engine(None).unwrap();
    assert_eq!(registry.status("a").unwrap().requests, 1);
    let unload = registry.unload("a", None);
    assert!(unload.wait_timeout(Duration::from_millis(30)).is_none());
    assert!(matches!(registry.engine(None), Err(SubmitError::NoActiveModel { .. })));
    drop(handle);
    unload.wait().unwrap();
    assert_eq!(parts.in_memory.load(Ordering::SeqCst), 0);
}

/// The `prepare` callback runs before the model accepts requests, and its failure fails the load.
#[test]
fn engines_are_prepared_before_they_are_ready() {
    let parts = backend(1, Duration::ZERO);
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    let warm_up = |engine: &dyn exsa_core::registry::Managed| {
        let answer = engine.submit(request()).unwrap().complete().unwrap();
        if answer.text == TEXT { Ok(()) } else { Err(LoadError::Backend("wrong answer".into())) }
    };
    registry.add(config("a", &parts).prepare(warm_up)).unwrap();
    registry.load("a").wait().unwrap();
    assert_eq!(registry.stats().finished, 1);
    registry.add(config("b", &parts).prepare(|_| Err(LoadError::Backend("not today".into())))).unwrap();
    assert!(registry.load("b").wait().unwrap_err().to_string().contains("not today"));
    registry.add(config("c", &parts).prepare(|_| panic!("in the preparation"))).unwrap();
    assert!(matches!(registry.load("c").wait(), Err(RegistryError::Panicked { .. })));
    eventually("failed loads leave nothing", || parts.in_memory.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_drop_ends_loads_and_requests() {
    let parts = backend(1000, Duration::from_millis(1));
    let quick = backend(1, Duration::ZERO);
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    registry.add(config("slow", &parts)).unwrap();
    registry.add(config("quick", &quick)).unwrap();
    registry.load("quick").wait().unwrap();
    let endless = registry.submit(request().max_tokens(None).ignore_eos(true)).unwrap();
    let load = registry.load("slow");
    eventually("it loads", || parts.loads.load(Ordering::SeqCst) == 1);
    drop(registry);
    assert!(matches!(load.wait(), Err(RegistryError::Cancelled { .. })));
    assert_eq!(endless.complete().unwrap().reason, FinishReason::Cancelled);
    assert_eq!((parts.in_memory.load(Ordering::SeqCst), quick.in_memory.load(Ordering::SeqCst)), (0, 0));
}

#[test]
fn a_graceful_shutdown_answers_what_was_accepted() {
    let parts = backend(1, Duration::ZERO);
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    registry.add(config("a", &parts)).unwrap();
    registry.load("a").wait().unwrap();
    let streams: Vec<_> = (0..20).map(|_| registry.submit(request()).unwrap()).collect();
    assert!(registry.shut_down_timeout(None, Duration::from_secs(60)));
    assert!(streams.into_iter().all(|stream| stream.complete().unwrap().text == TEXT));
    assert!(matches!(registry.submit(request()), Err(SubmitError::ShuttingDown)));
    assert!(matches!(registry.load("a").wait(), Err(RegistryError::ShuttingDown)));
    assert!(matches!(registry.unload("a", None).wait(), Err(RegistryError::ShuttingDown)));
}

/// A paced load pauses only while another model is busy.
#[test]
fn paced_loads_rest_while_others_are_busy() {
    let (parts, served) = (backend(10, Duration::from_millis(4)), backend(1, Duration::ZERO));
    let options = RegistryOptions::new().load_pacing(LoadPacing::keep_streams(0.9));
    let registry = Registry::new(options).unwrap();
    registry.add(config("a", &served)).unwrap();
    registry.add(config("b", &parts)).unwrap();
    registry.load("a").wait().unwrap();
    let load = || {
        let start = Instant::now();
        registry.load("b").wait().unwrap();
        let time = start.elapsed();
        registry.unload("b", None).wait().unwrap();
        time
    };
    let idle = load();
    let busy = registry.engine(Some("a")).unwrap();
    let paced = load();
    // Nine of the ten parts are followed by a report, with a rest of nine times their 4 ms.
    assert!(paced >= Duration::from_millis(9 * 36), "{paced:?}");
    assert!(paced > 2 * idle, "{paced:?} beside {idle:?}");
    let started = registry.load("b");
    std::thread::sleep(Duration::from_millis(20));
    let cancelled = Instant::now();
    registry.unload("b", None).wait().unwrap();
    assert!(matches!(started.wait(), Err(RegistryError::Cancelled { .. })));
    assert!(cancelled.elapsed() < Duration::from_millis(300), "a rest ends when the load is cancelled");
    drop(busy);
}

#[test]
fn statistics_and_counters_are_kept_by_model() {
    let parts = backend(2, Duration::ZERO);
    let registry = Registry::new(RegistryOptions::new().memory_bytes(150)).unwrap();
    for (name, requests) in [("a", 2), ("b", 1)] {
        registry.add(config(name, &parts)).unwrap();
        registry.load(name).wait().unwrap();
        for _ in 0..requests {
            registry.submit(request().model(name)).unwrap().complete().unwrap();
        }
    }
    let finished = || {
        let stats = registry.stats_by_model();
        stats.iter().map(|(name, stats)| (name.to_string(), stats.finished)).collect::<Vec<_>>()
    };
    assert_eq!(finished(), [("a".to_owned(), 2), ("b".to_owned(), 1)], "though 'a' was evicted");
    assert_eq!(registry.stats().finished, 3);
    let counters = |name| registry.status(name).unwrap().counters;
    assert_eq!((counters("a").loads, counters("a").evictions), (1, 1));
    assert_eq!((counters("b").loads, counters("b").evictions), (1, 0));
    assert_eq!(registry.config("a").unwrap().name, "a");
    assert!(registry.config("c").is_err());
}

/// Adapters count in the budget of all models from before they are loaded until the last request that uses
/// them has ended.
#[test]
fn adapters_count_in_the_budget() {
    let registry = Registry::new(RegistryOptions::new().memory_bytes(300)).unwrap();
    for name in ["a", "b"] {
        let model = ScriptedModel::echo(&TEXT.repeat(200)).adapters(2, 1);
        let config = ModelConfig::new(name, Arc::new(ScriptedBackend::new(model)), ModelSource::file("x"));
        registry.add(config.memory(MemoryEstimate::new(100, 0, 0))).unwrap();
        registry.load(name).wait().unwrap();
    }
    let adapter = |len: usize| ModelSource::Memory(vec![7; len].into());
    let load = |name: &str, len| registry.load_adapter(Some("a"), name, &adapter(len));
    load("small", 60).unwrap();
    let status = registry.status("a").unwrap();
    assert_eq!((status.adapter_bytes, status.adapters.len()), (60, 1));
    assert_eq!(&*status.adapters[0].name, "small");
    assert_eq!((registry.memory().used, registry.memory().adapters), (260, 60));
    // It needs the memory of the other model, which is idle: it is loaded once that is free.
    load("large", 90).unwrap();
    assert_eq!(registry.status("b").unwrap().state, ModelState::Unloaded);
    assert_eq!(registry.status("b").unwrap().counters.evictions, 1);
    assert_eq!(registry.memory().used, 250);
    let refused = load("larger", 51).unwrap_err();
    assert!(matches!(refused, AdapterError::Budget { needed: 51, held: 250, budget: 300, .. }), "{refused}");
    assert!(matches!(load("broken", 0).unwrap_err(), AdapterError::Load(LoadError::Adapter { .. })));
    assert!(matches!(load("small", 1).unwrap_err(), AdapterError::AlreadyLoaded { .. }));
    assert_eq!(registry.memory().used, 250, "what was refused holds nothing");
    // A request keeps the memory of its adapter.
    let request = request().max_tokens(1000).adapter("large", 1.0).model("a");
    let stream = registry.submit(request).unwrap();
    registry.unload_adapter(Some("a"), "large").unwrap();
    registry.unload_adapter(Some("a"), "small").unwrap();
    assert!(registry.memory().used <= 190);
    stream.complete().unwrap();
    eventually("its memory is free", || registry.memory().used == 100);
    registry.load("b").wait().unwrap();
    registry.unload("a", None).wait().unwrap();
    assert_eq!((registry.memory().used, registry.memory().adapters), (100, 0));
}

/// Adapters that are loaded with their model count too, and a model whose adapters do not fit is not loaded.
#[test]
fn adapters_of_a_load_count_in_the_budget() {
    let registry = Registry::new(RegistryOptions::new().memory_bytes(150)).unwrap();
    let model = ScriptedModel::echo(TEXT).adapters(2, 1);
    for (name, len) in [("fits", 50), ("large", 51)] {
        let config =
            ModelConfig::new(name, Arc::new(ScriptedBackend::new(model.clone())), ModelSource::file("x"));
        let config = config.memory(MemoryEstimate::new(100, 0, 0)).prepare(move |engine| {
            let loaded = engine.load_adapter(None, "alice", &ModelSource::Memory(vec![7; len].into()));
            loaded.map(drop).map_err(LoadError::from)
        });
        registry.add(config).unwrap();
    }
    registry.load("fits").wait().unwrap();
    assert_eq!(registry.memory().used, 150);
    let refused = registry.load("large").wait().unwrap_err();
    assert!(matches!(refused, RegistryError::Load { .. }), "{refused}");
    assert!(refused.to_string().contains("51 bytes"), "{refused}");
    eventually("nothing of it stays", || registry.memory().used == 0);
    registry.load("fits").wait().unwrap();
}
