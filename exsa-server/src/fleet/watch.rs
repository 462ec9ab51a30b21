//! Watches the models of a registry, and the prefix cache of each.

use super::hub::Hub;
use super::payload;
use exsa_core::cache_events::{CacheEvent, CacheEvents};
use exsa_core::registry::{ModelState, Registry, RegistryEvent};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::{error, warn};

/// Maximum bytes of events that wait for a watcher thread.
const EVENTS_BYTES_MAX: usize = 16 << 20;

/// Interval at which a watcher checks whether it should stop.
const PAUSE: Duration = Duration::from_millis(250);

/// The topic of a model's messages.
pub(super) type TopicOf = dyn Fn(&str) -> String + Send + Sync;

/// Watches the caches of all ready models until the registry is shut down. Runs on its own thread.
pub(super) fn follow(registry: &Weak<Registry>, hub: &Arc<Hub>, topic: &TopicOf) {
    let Some(mut changes) = registry.upgrade().map(|registry| registry.subscribe()) else { return };
    let mut watchers = HashMap::new();
    let mut attach = |model: &str| {
        let Some(registry) = registry.upgrade() else { return };
        // The watch must not keep a request in flight, so the handle is dropped immediately. Models in worker
        // processes do not report their cache.
        let events = registry.engine(Some(model)).ok();
        let events = events.and_then(|engine| Some(engine.as_engine()?.watch_cache(EVENTS_BYTES_MAX)));
        // Stops the watcher of the previous instance.
        watchers.remove(model);
        if let Some(events) = events {
            watchers.insert(model.to_owned(), Watcher::start(events, hub.clone(), topic(model)));
        }
    };
    let attach_ready = |attach: &mut dyn FnMut(&str)| {
        let models = registry.upgrade().map(|registry| registry.list()).unwrap_or_default();
        models.iter().filter(|model| model.info.is_some()).for_each(|model| attach(&model.name));
    };
    attach_ready(&mut attach);
    for change in &mut changes {
        match change {
            RegistryEvent::State { model, state: ModelState::Ready }
            | RegistryEvent::Reloaded { model, error: None } => attach(&model),
            RegistryEvent::Missed(_) => attach_ready(&mut attach),
            _ => {}
        }
    }
}

/// A thread that publishes the events of one engine. Dropping this waits for the thread, so its messages
/// precede those of a later instance's watcher.
struct Watcher {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    fn start(events: CacheEvents, hub: Arc<Hub>, topic: String) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let publish = move || publish(events, &hub, &topic.into(), &end);
        let thread = thread::Builder::new().name("exsa-kv-events".into()).spawn(publish);
        let thread =
            thread.inspect_err(|error| error!(%error, "the cache of a model is not told: no thread"));
        Self { ended, thread: thread.ok() }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already reported.
            let _ = thread.join();
        }
    }
}

fn publish(mut events: CacheEvents, hub: &Hub, topic: &Arc<str>, ended: &AtomicBool) {
    let (mut refreshes, mut resets) = (hub.refreshes(), 0);
    while !ended.load(Ordering::Relaxed) {
        let Some(changes) = events.wait(PAUSE) else {
            // The engine has ended, and its cache with it.
            hub.publish(topic, payload::encode(now(), &[CacheEvent::Cleared]));
            return;
        };
        if !changes.is_empty() {
            hub.publish(topic, payload::encode(now(), &changes));
        }
        let (asked, lost) = (hub.refreshes(), events.resets());
        if asked != refreshes {
            refreshes = asked;
            events.refresh();
        }
        if lost != resets {
            resets = lost;
            warn!(topic = %topic, "events of the prefix cache were dropped; all blocks are announced anew");
        }
    }
}

/// Unix time in seconds.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
