//! An engine behind a connection that can be cut between any two groups of events, like one in another
//! process.

use exsa_core::backend::Model;
use exsa_core::embed::{EmbedOutput, Pending};
use exsa_core::model_info::ModelInfo;
use exsa_core::stats::EngineStats;
use exsa_core::stream::{EventSink, Finished, StreamHandle, StreamSender, StreamSignal, channel};
use exsa_core::{
    Continuation, EmbedRequest, Engine, EngineOptions, Event, FinishReason, Generator, Request, RequestError,
    SubmitError, TokenStream,
};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

type Slot = Arc<Mutex<Option<StreamSender>>>;

/// An engine and its connections.
pub struct Proxy {
    engine: Engine,
    slots: Mutex<Vec<(Slot, Arc<OnceLock<StreamHandle>>)>>,
    pub up: AtomicBool,
    /// Groups of events until all connections are cut; never below 0.
    groups: Arc<AtomicI64>,
    pub submitted: AtomicUsize,
    /// The requests, in order.
    pub requests: Mutex<Vec<Request>>,
    pub terms: Mutex<Option<Continuation>>,
    down: Arc<AtomicBool>,
    /// Whether requests are accepted and then end as unavailable.
    pub unavailable: AtomicBool,
    /// Whether each event is a group. Otherwise events that come before a stream is piped, as on a busy
    /// machine, are one group together.
    pub each_event: AtomicBool,
    name: &'static str,
}

impl Proxy {
    pub fn new(model: Arc<dyn Model>, options: EngineOptions) -> Arc<Self> {
        Self::named("", model, options)
    }

    /// Like `new`; its model has this name.
    pub fn named(name: &'static str, model: Arc<dyn Model>, options: EngineOptions) -> Arc<Self> {
        Arc::new(Self {
            name,
            engine: Engine::start(model, options).unwrap(),
            slots: Mutex::default(),
            up: AtomicBool::new(true),
            groups: Arc::new(AtomicI64::new(-1)),
            submitted: AtomicUsize::new(0),
            requests: Mutex::default(),
            terms: Mutex::new(None),
            down: Arc::default(),
            unavailable: AtomicBool::new(false),
            each_event: AtomicBool::new(false),
        })
    }

    /// Cuts all connections after `groups` more groups of events, and refuses requests from then on.
    pub fn cut_after(&self, groups: usize) {
        self.groups.store(groups as i64, SeqCst);
    }

    /// Cuts all connections now. Further requests are accepted if `up`.
    pub fn cut(&self, up: bool) {
        self.up.store(up, SeqCst);
        for (slot, handle) in std::mem::take(&mut *self.slots.lock()) {
            let sender = slot.lock().take();
            if let Some(sender) = sender {
                sender.finish(Finished::new(FinishReason::Failed(lost())));
            }
            if let Some(handle) = handle.get() {
                handle.cancel();
            }
        }
    }

    /// Accepts requests again.
    pub fn revive(&self) {
        self.down.store(false, SeqCst);
        self.up.store(true, SeqCst);
    }

    pub fn is_up(&self) -> bool {
        self.up.load(SeqCst) && !self.down.load(SeqCst)
    }
}

fn lost() -> RequestError {
    RequestError::Lost("the connection was cut on purpose".into())
}

struct Forward {
    slot: Slot,
    groups: Arc<AtomicI64>,
    down: Arc<AtomicBool>,
    each_event: bool,
}

impl EventSink for Forward {
    fn events(&mut self, events: &mut Vec<Event>) -> bool {
        if !self.each_event {
            return self.group(events);
        }
        events.drain(..).fold(true, |_, event| self.group(&mut vec![event]))
    }
}

impl Forward {
    fn group(&mut self, events: &mut Vec<Event>) -> bool {
        let mut slot = self.slot.lock();
        if slot.is_none() {
            events.clear();
            return true;
        }
        // The group that would be the next after the last is lost.
        if self.groups.load(SeqCst) >= 0 && self.groups.fetch_sub(1, SeqCst) == 0 {
            self.down.store(true, SeqCst);
            events.clear();
            if let Some(sender) = slot.take() {
                sender.finish(Finished::new(FinishReason::Failed(lost())));
            }
            return true;
        }
        match events.pop() {
            Some(Event::Finished(finished)) => {
                if let Some(sender) = slot.take() {
                    sender.finish_with(std::mem::take(events), finished);
                }
                true
            }
            last => {
                events.extend(last);
                slot.as_ref().is_none_or(|sender| sender.send(events))
            }
        }
    }
}

impl Generator for Proxy {
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        let mut model = self.engine.model().clone();
        model.name = self.name.into();
        vec![Arc::new(model)]
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        if !self.is_up() {
            return Err(SubmitError::Generator("the connection is cut".into()));
        }
        self.submitted.fetch_add(1, SeqCst);
        self.requests.lock().push(request.clone());
        if self.unavailable.load(SeqCst) {
            let (sender, stream) = channel(1, |_| {});
            let error = RequestError::Unavailable("nobody is there".into());
            sender.finish(Finished::new(FinishReason::Failed(error)));
            return Ok(stream);
        }
        let inner = self.engine.submit(request)?;
        let handle: Arc<OnceLock<StreamHandle>> = Arc::default();
        let signals = handle.clone();
        let (sender, stream) = channel(1024, move |signal| match (signal, signals.get()) {
            (StreamSignal::Cancelled, Some(handle)) => handle.cancel(),
            (StreamSignal::Drained, Some(handle)) => handle.drained(),
            _ => {}
        });
        let slot: Slot = Arc::new(Mutex::new(Some(sender)));
        self.slots.lock().push((slot.clone(), handle.clone()));
        let (groups, down, each_event) =
            (self.groups.clone(), self.down.clone(), self.each_event.load(SeqCst));
        let sink = Forward { slot, groups, down, each_event };
        let piped = inner.pipe(Box::new(sink));
        let _ = handle.set(piped);
        Ok(stream)
    }

    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        self.engine.embed(request)
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        self.engine.check(request)
    }

    fn continuation(&self, model: Option<&str>) -> Continuation {
        self.terms.lock().unwrap_or_else(|| self.engine.continuation(model))
    }

    fn stats(&self) -> EngineStats {
        self.engine.stats()
    }
}
