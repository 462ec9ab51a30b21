//! [`Pool`], a generator over several members.

use crate::affinity::keys;
use crate::dispatch::Refusal;
use crate::job::{Job, Part};
use crate::member::{Member, MemberState, MemberStatus};
use crate::options::PoolOptions;
use crate::progress::Progress;
use crate::shared::{Shared, State};
use exsa_core::chat::Rendered;
use exsa_core::embed::{EmbedOutput, Pending, RerankOutput};
use exsa_core::error::LoadError;
use exsa_core::generator::QueueScope;
use exsa_core::model_info::ModelInfo;
use exsa_core::priority::{Priority, UserId};
use exsa_core::queue::FairOptions;
use exsa_core::stats::EngineStats;
use exsa_core::stream::{QueuePosition, StreamSignal, channel};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{
    Continuation, EmbedRequest, FinishReason, Generator, Request, RerankRequest, SubmitError, TokenStream,
};
use parking_lot::Mutex;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Several generators behind one queue; see the [crate documentation](crate).
///
/// An answer whose member is lost ([`RequestError::is_lost_engine`](exsa_core::RequestError::is_lost_engine))
/// continues on another member whose terms allow it ([`Generator::continuation`]), or on the same member once
/// it is back. The consumer sees neither a gap nor a repetition; [`Finished::continued`] says how the answer
/// relates to an uninterrupted one. If a request has several answers, the open ones continue independently.
///
/// Dropping the pool ends all requests.
///
/// [`Finished::continued`]: exsa_core::stream::Finished::continued
pub struct Pool {
    pub(crate) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// Creates a pool without members, and starts its thread.
    ///
    /// # Errors
    ///
    /// [`LoadError::Backend`] if the thread cannot be started.
    pub fn new(options: PoolOptions) -> Result<Self, LoadError> {
        let shared = Arc::new(Shared::new(options));
        let runner = shared.clone();
        let thread = std::thread::Builder::new()
            .name("exsa-pool".into())
            .spawn(move || runner.run())
            .map_err(|error| LoadError::Backend(format!("cannot start the pool's thread: {error}")))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Adds a member. A member of the same name is replaced: it gets no more requests, and its running ones
    /// finish.
    pub fn add(&self, member: Member) {
        let models = member.generator.models();
        let mut state = self.shared.state.lock();
        self.shared.insert(&mut state, member, models);
        drop(state);
        self.shared.notify();
    }

    /// Stops sending requests to a member; its running requests finish. Returns whether there is a member of
    /// this name.
    pub fn drain(&self, name: &str) -> bool {
        self.set_draining(name, true)
    }

    /// Sends requests to a drained member again. Returns whether there is a member of this name.
    pub fn resume(&self, name: &str) -> bool {
        self.set_draining(name, false)
    }

    fn set_draining(&self, name: &str, draining: bool) -> bool {
        let mut state = self.shared.state.lock();
        let member = state.members.iter_mut().rev().find(|member| member.member.name == name);
        let found = member.map(|member| member.draining = draining).is_some();
        drop(state);
        self.shared.notify();
        found
    }

    /// Waits until a member has no requests, for at most `timeout`. Returns whether it has none.
    pub fn wait_idle(&self, name: &str, timeout: Duration) -> bool {
        let until = Instant::now().checked_add(timeout);
        let mut state = self.shared.state.lock();
        loop {
            let busy = |member: &MemberState| member.member.name == name && member.in_flight > 0;
            if !state.members.iter().any(busy) {
                return true;
            }
            match until {
                Some(until) if self.shared.wake.wait_until(&mut state, until).timed_out() => return false,
                Some(_) => {}
                None => self.shared.wake.wait(&mut state),
            }
        }
    }

    /// Removes a member, including one that is not available yet. Its running requests are lost only if it
    /// ends them.
    pub fn remove(&self, name: &str) -> bool {
        let mut state = self.shared.state.lock();
        let before = state.members.len() + state.missing.len();
        state.members.retain(|member| member.member.name != name);
        state.missing.retain(|missing| missing.name != name);
        let removed = state.members.len() + state.missing.len() < before;
        drop(state);
        self.shared.search.notify_all();
        self.shared.notify();
        removed
    }

    /// Announces that members may have become ready, or have different models.
    pub fn wake(&self) {
        self.shared.refresh();
        self.shared.notify();
    }

    /// Returns a function that calls [`wake`](Self::wake), for callbacks of members.
    pub fn waker(&self) -> impl Fn() + Send + Sync + Clone + 'static {
        let shared: Weak<Shared> = Arc::downgrade(&self.shared);
        move || {
            if let Some(shared) = shared.upgrade() {
                shared.refresh();
                shared.notify();
            }
        }
    }

    /// Returns the members in the order in which they were added; those not available yet come last.
    pub fn members(&self) -> Vec<MemberStatus> {
        let state = self.shared.state.lock();
        let missing = state.missing.iter().map(|missing| MemberStatus::missing(&missing.name));
        state.members.iter().map(MemberState::status).chain(missing).collect()
    }

    /// Changes the settings of classes and shares.
    pub fn set_fair(&self, options: FairOptions) {
        self.shared.state.lock().queue.set_fair(options);
    }

    /// Returns the number of waiting requests by user; requests without a user count under an empty name.
    pub fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.shared.state.lock().queue.by_user()
    }

    /// Refuses further requests, and returns immediately.
    pub fn begin_shutdown(&self) {
        self.shared.state.lock().draining = true;
        self.shared.search.notify_all();
    }

    /// Refuses further requests, and waits for at most `timeout` until all have ended; the rest are
    /// cancelled. Returns whether all ended by themselves.
    pub fn shut_down(&self, timeout: Duration) -> bool {
        let until = Instant::now().checked_add(timeout);
        self.begin_shutdown();
        let mut state = self.shared.state.lock();
        while !state.running.is_empty() {
            match until {
                Some(until) if self.shared.wake.wait_until(&mut state, until).timed_out() => break,
                Some(_) => {}
                None => self.shared.wake.wait(&mut state),
            }
        }
        let rest = state.running.clone();
        drop(state);
        for job in &rest {
            self.shared.end(job, FinishReason::Cancelled);
        }
        self.shared.state.lock().stopped = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
        {
            // The thread never panics by itself; if a member's panic ended it, all requests have ended.
            let _ = thread.join();
        }
        rest.is_empty()
    }

    /// Returns whether the pool was shut down and all requests have ended.
    pub fn is_shut_down(&self) -> bool {
        let state = self.shared.state.lock();
        state.stopped && state.running.is_empty()
    }

    /// Calls the members of a model in order, and returns the first result that is not a refusal.
    fn first<T>(
        &self,
        model: Option<&str>,
        ask: impl Fn(&dyn Generator) -> Result<T, SubmitError>,
    ) -> Result<T, SubmitError> {
        let mut refused = None;
        for generator in self.shared.of_model(model)? {
            match ask(&*generator) {
                Ok(answer) => return Ok(answer),
                Err(error) => _ = refused.get_or_insert(error),
            }
        }
        Err(refused.unwrap_or_else(|| SubmitError::Generator("the pool has no members".into())))
    }
}

impl Shared {
    /// Adds a member, replacing one of the same name.
    pub(crate) fn insert(&self, state: &mut State, member: Member, models: Vec<Arc<ModelInfo>>) {
        for old in state.members.iter_mut().filter(|old| old.member.name == member.name) {
            (old.draining, old.replaced) = (true, true);
        }
        state.missing.retain(|missing| missing.name != member.name);
        state.members.retain(|old| !(old.replaced && old.in_flight == 0));
        state.members.push(MemberState::new(self.number(), member, models));
        self.search.notify_all();
    }

    /// Rereads the members' models. A member that reports none keeps its last ones.
    fn refresh(&self) {
        let list = |state: &State| -> Vec<_> {
            state.members.iter().map(|member| (member.id, member.member.generator.clone())).collect()
        };
        let members = list(&self.state.lock());
        for (id, generator) in members {
            let models = generator.models();
            let mut state = self.state.lock();
            if let Some(member) = state.members.iter_mut().find(|member| member.id == id)
                && !models.is_empty()
            {
                member.models = models;
            }
        }
    }

    /// Returns the members of a model, ready ones first.
    pub(crate) fn of_model(&self, model: Option<&str>) -> Result<Vec<Arc<dyn Generator>>, SubmitError> {
        let state = self.state.lock();
        let mut found: Vec<_> = state.members.iter().filter(|member| member.has(model)).collect();
        if let (Some(model), true) = (model, found.is_empty()) {
            let names = state.members.iter().flat_map(|member| &member.models);
            let mut available: Vec<_> = names.map(|model| model.name.clone()).collect();
            available.sort();
            available.dedup();
            return Err(SubmitError::UnknownModel { model: model.into(), available });
        }
        found.sort_by_key(|member| !member.is_ready());
        Ok(found.into_iter().map(|member| member.member.generator.clone()).collect())
    }

    /// Takes a place in the queue, or refuses.
    fn admit(&self, request: &Request, user: &str) -> Result<(), SubmitError> {
        let state = self.state.lock();
        let (waiting, own) = (state.queue.len(), state.queue.of_user(user));
        let (waiting, limit, scope) = match self.options.user_queue_max {
            _ if waiting >= self.options.queue_max => (waiting, self.options.queue_max, QueueScope::All),
            Some(limit) if own >= limit => (own, limit, QueueScope::User),
            _ => return Ok(()),
        };
        let priority = request.priority;
        let class_depth = state.queue.depth(priority);
        let ahead =
            Priority::ALL.iter().take(priority.index() + 1).map(|class| state.queue.depth(*class)).sum();
        Err(SubmitError::QueueFull {
            waiting,
            limit,
            scope,
            priority,
            class_depth,
            ahead,
            estimated_wait: None,
        })
    }
}

/// Refuses adapters: the members of a pool load their own, so an answer that continues elsewhere could use a
/// different adapter of the same name.
fn refuse_adapters(request: &Request) -> Result<(), SubmitError> {
    if request.adapters.is_empty() {
        return Ok(());
    }
    let reason = "a pool of engines takes no adapters per request; a single engine does".to_owned();
    Err(SubmitError::Unsupported { operation: "lora", reason })
}

impl Generator for Pool {
    /// The models of all members, without duplicate names.
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        let state = self.shared.state.lock();
        let mut models: Vec<Arc<ModelInfo>> = Vec::new();
        for model in state.members.iter().flat_map(|member| &member.models) {
            if !models.iter().any(|known| known.name == model.name) {
                models.push(model.clone());
            }
        }
        models
    }

    fn submit(&self, mut request: Request) -> Result<TokenStream, SubmitError> {
        let shared = &self.shared;
        refuse_adapters(&request)?;
        shared.may_serve(request.model.as_deref())?;
        let generators = shared.of_model(request.model.as_deref())?;
        let Some(generator) = generators.first() else {
            return Err(SubmitError::Generator("the pool has no members".into()));
        };
        let number = shared.number();
        let now = shared.now();
        let base = request.resume.take().unwrap_or_default();
        // 53 bits, which every JSON reader represents exactly.
        request.sampling.seed.get_or_insert_with(|| shared.hasher.hash_one(number) >> 11);
        let user_name: Arc<str> = request.user.clone().unwrap_or_default().into();
        let user = UserId(shared.hasher.hash_one(&user_name));
        let expiry = |limit: Duration| now.saturating_add(limit.saturating_sub(base.elapsed));
        let own: Arc<OnceLock<Weak<Job>>> = Arc::default();
        let (of_signals, known) = (Arc::downgrade(shared), own.clone());
        let (sender, stream) = channel(shared.options.stream_events_max, move |signal| {
            let job = known.get().and_then(Weak::upgrade);
            if let (Some(shared), Some(job)) = (of_signals.upgrade(), job) {
                shared.signal(&job, signal);
            }
        });
        let answers = request.best_of.unwrap_or(request.n).max(request.n);
        let progress = Progress::new(sender, answers.min(exsa_core::request::ANSWERS_MAX), &base);
        let job = Arc::new(Job {
            number,
            user,
            keys: keys(&request, &shared.hasher),
            submitted: now,
            deadline: request.timeout.map(expiry),
            first_token_by: request.first_token_timeout.map(expiry),
            progress: Mutex::new(progress),
            user_name,
            base,
            request,
        });
        _ = own.set(Arc::downgrade(&job));
        let part = Part { id: number, job: job.clone(), answer: None, excluded: Vec::new(), placed: false };
        let mut state = shared.state.lock();
        if state.draining {
            return Err(SubmitError::ShuttingDown);
        }
        // Waiting requests go first.
        let placed = if state.queue.len() == 0 { state.place(&part, shared, now) } else { None };
        drop(state);
        let mut waits = part;
        if let Some(placed) = placed {
            shared.begin(&job);
            match shared.start(placed) {
                Ok(()) => return Ok(stream),
                Err((part, refusal)) => {
                    shared.forget(&job);
                    match refusal {
                        Refusal::Request(error) => return Err(error),
                        Refusal::Member => waits = Part { placed: true, ..part },
                    }
                }
            }
        }
        let request = waits.request(&job.progress.lock(), now);
        generator.check(&request)?;
        shared.admit(&job.request, &job.user_name)?;
        shared.begin(&job);
        job.progress.lock().waiting = 1;
        let mut state = shared.state.lock();
        state.queue.push(waits, now);
        state.changed = true;
        drop(state);
        shared.wake.notify_all();
        Ok(stream)
    }

    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        let model = request.model.clone();
        self.shared.elsewhere(model.as_deref(), move |generator| generator.embed(request.clone()))
    }

    fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        let model = request.model.clone();
        self.shared.elsewhere(model.as_deref(), move |generator| generator.rerank(request.clone()))
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        refuse_adapters(request)?;
        self.first(request.model.as_deref(), |generator| generator.check(request))
    }

    fn continuation(&self, model: Option<&str>) -> Continuation {
        let terms = self.shared.of_model(model).unwrap_or_default();
        let terms = terms.into_iter().map(|generator| generator.continuation(model));
        let together = |a: Continuation, b: Continuation| Continuation::new(a.with(&b), a.fingerprint);
        terms.reduce(together).unwrap_or_else(Continuation::refused)
    }

    fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        self.first(request.model.as_deref(), |generator| generator.count_tokens(request))
    }

    fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        self.first(request.model.as_deref(), |generator| generator.render(request))
    }

    fn tokenizer(&self, model: Option<&str>) -> Result<Arc<dyn Tokenizer>, SubmitError> {
        self.first(model, |generator| generator.tokenizer(model))
    }

    /// Sums the counters of all members, with the pool's own request counters: requests waiting in the pool
    /// count as waiting.
    fn stats(&self) -> EngineStats {
        let generators: Vec<_> = {
            let state = self.shared.state.lock();
            state.members.iter().map(|member| member.member.generator.clone()).collect()
        };
        let mut total = EngineStats::default();
        generators.iter().for_each(|generator| total.merge(&generator.stats()));
        let state = self.shared.state.lock();
        (total.submitted, total.finished, total.failed) = (state.submitted, state.finished, state.failed);
        total.scheduler.waiting += state.queue.len();
        for class in exsa_core::Priority::ALL {
            total.scheduler.waiting_by_class[class.index()] += state.queue.depth(class);
        }
        total
    }
}

impl Shared {
    /// Registers a request.
    fn begin(&self, job: &Arc<Job>) {
        let mut state = self.state.lock();
        state.submitted += 1;
        state.running.push(job.clone());
        if self.options.hedge_after.is_some() {
            // The dispatcher may sleep without a timeout, since nothing was running.
            state.changed = true;
            drop(state);
            self.wake.notify_all();
        }
    }

    /// Undoes [`begin`](Self::begin).
    fn forget(&self, job: &Arc<Job>) {
        let mut state = self.state.lock();
        state.submitted -= 1;
        state.running.retain(|running| !Arc::ptr_eq(running, job));
    }

    /// Handles a signal of the consumer.
    fn signal(&self, job: &Arc<Job>, signal: StreamSignal) {
        match signal {
            StreamSignal::Cancelled => self.cancel(job),
            StreamSignal::Drained => {
                let mut progress = job.progress.lock();
                let attempts = &progress.attempts;
                let handles: Vec<_> = attempts.iter().filter_map(|attempt| attempt.handle.clone()).collect();
                progress.drained |= handles.len() < attempts.len();
                drop(progress);
                handles.iter().for_each(|handle| handle.drained());
                self.state.lock().retired.extend(handles);
            }
            StreamSignal::Position => {
                let ahead = self.state.lock().queue.position(job.number);
                if let Some(stream) = &job.progress.lock().stream {
                    stream.position(ahead.map(|ahead| QueuePosition::new(ahead, None)));
                }
            }
            _ => {}
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("members", &self.members()).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shut_down(Duration::ZERO);
    }
}
