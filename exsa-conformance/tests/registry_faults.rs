//! The registry on backends that fail and panic: each caller and each request gets exactly one answer, and
//! models recover by loading again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_conformance::faulty::{Effect, Faults, FaultyBackend, Operation, When};
use exsa_core::backend::ModelSource;
use exsa_core::finish::RequestError;
use exsa_core::registry::{ModelConfig, ModelState, Registry, RegistryError, RegistryOptions};
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::{Generator, Request, SubmitError};
use std::sync::Arc;
use std::time::Duration;

const TEXT: &str = "Hello, world.";

fn registry(faults: &Faults) -> Registry {
    let registry = Registry::new(RegistryOptions::new()).unwrap();
    let inner = ScriptedBackend::new(ScriptedModel::echo(TEXT));
    let backend = Arc::new(FaultyBackend::new(inner, faults.clone()));
    registry.add(ModelConfig::new("a", backend, ModelSource::file("scripted"))).unwrap();
    registry
}

fn answers(registry: &Registry) {
    assert_eq!(registry.submit(Request::text("x")).unwrap().complete().unwrap().text, TEXT);
}

#[test]
fn failed_loads_are_tried_again_only_by_a_load() {
    for operation in [Operation::Load, Operation::Session] {
        for effect in [Effect::Fail, Effect::FailLate, Effect::Panic] {
            let faults = Faults::new().with(When::Always(operation), effect);
            let registry = registry(&faults);
            let loads = [registry.load("a"), registry.load("a")];
            for load in loads {
                let error = load.wait().unwrap_err();
                assert!(error.to_string().contains("on purpose"), "{operation:?} {effect:?}: {error}");
                let is_panic = matches!(error, RegistryError::Panicked { .. });
                assert_eq!(is_panic, effect == Effect::Panic && operation == Operation::Load, "{error:?}");
            }
            assert!(matches!(registry.status("a").unwrap().state, ModelState::Failed { .. }));
            let refused = registry.submit(Request::text("x").model("a")).unwrap_err();
            assert!(
                matches!(&refused, SubmitError::ModelFailed { reason, .. } if reason.contains("on purpose"))
            );
            let calls = faults.calls(operation);
            faults.clear();
            assert_eq!(faults.calls(operation), calls, "requests start no load");
            registry.load("a").wait().unwrap();
            answers(&registry);
        }
    }
}

#[test]
fn a_failed_reload_leaves_the_old_engine_serving() {
    for effect in [Effect::Fail, Effect::Panic] {
        let faults = Faults::new();
        let registry = registry(&faults);
        registry.load("a").wait().unwrap();
        faults.add(When::Always(Operation::Load), effect);
        registry.reload("a", None).wait().unwrap_err();
        answers(&registry);
        faults.clear();
        registry.reload("a", None).wait().unwrap();
        answers(&registry);
    }
}

/// An engine that ends because its backend panics makes its model fail; all its requests end.
#[test]
fn a_panic_in_a_pass_fails_the_model() {
    let faults = Faults::new();
    let registry = registry(&faults);
    for _ in 0..3 {
        registry.load("a").wait().unwrap();
        answers(&registry);
        // Outside a pass, where the engine does not expect it.
        faults.add(When::Always(Operation::Release), Effect::Panic);
        faults.add(When::Always(Operation::Truncate), Effect::Panic);
        faults.add(When::Always(Operation::Forward), Effect::Panic);
        let streams: Vec<_> = (0..4).map(|_| registry.submit(Request::text("y"))).collect();
        for stream in streams {
            match stream {
                Ok(stream) => {
                    let error = stream.complete().unwrap_err();
                    let ended = matches!(error, RequestError::Panicked(_) | RequestError::EngineStopped);
                    assert!(ended, "{error:?}");
                }
                Err(error) => assert!(matches!(error, SubmitError::ModelFailed { .. }), "{error}"),
            }
        }
        let start = std::time::Instant::now();
        while !matches!(registry.status("a").unwrap().state, ModelState::Failed { .. }) {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", registry.status("a"));
            std::thread::sleep(Duration::from_millis(1));
        }
        let refused = registry.submit(Request::text("x").model("a")).unwrap_err();
        assert!(matches!(refused, SubmitError::ModelFailed { .. }), "{refused}");
        faults.clear();
    }
    assert_eq!(registry.stats().submitted, registry.stats().finished);
}

/// A pass that ignores its interrupt delays the unload that aborts it, but nothing else in the registry.
#[test]
fn a_stalled_backend_delays_its_own_unload_alone() {
    let faults = Faults::new();
    let registry = registry(&faults);
    let other = ScriptedBackend::new(ScriptedModel::echo("Other."));
    registry.add(ModelConfig::new("b", Arc::new(other), ModelSource::file("scripted"))).unwrap();
    registry.load("a").wait().unwrap();
    faults.add(When::Always(Operation::Forward), Effect::Stall(Duration::from_millis(400)));
    let stream = registry.submit(Request::text("x").model("a")).unwrap();
    while faults.fired() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let unload = registry.unload("a", Some(Duration::ZERO));
    registry.load("b").wait_timeout(Duration::from_millis(300)).expect("b loads meanwhile").unwrap();
    let answer = registry.submit(Request::text("x").model("b")).unwrap().complete().unwrap();
    assert_eq!(answer.text, "Other.");
    unload.wait().unwrap();
    stream.complete().unwrap();
}
