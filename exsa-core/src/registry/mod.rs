//! Several models in one program: loaded, unloaded, reloaded and switched while requests run.
//!
//! A [`Registry`] holds named models, each with a backend or another [`Loader`], a source and options
//! ([`ModelConfig`]). It is itself a [`Generator`](crate::Generator), so servers use it like an engine.
//! [`Request::model`](crate::Request::model) selects a model by name or alias; requests without a name go to
//! the active model. `docs/lifecycle.md` lists which requests fail in which transition.
//!
//! ```
//! use exsa_core::backend::ModelSource;
//! use exsa_core::registry::{ModelConfig, Registry, RegistryOptions};
//! use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
//! use exsa_core::{Generator, Request};
//! use std::sync::Arc;
//!
//! let registry = Registry::new(RegistryOptions::new())?;
//! for (name, text) in [("first", "One."), ("second", "Two.")] {
//!     let backend = Arc::new(ScriptedBackend::new(ScriptedModel::echo(text)));
//!     registry.add(ModelConfig::new(name, backend, ModelSource::file("none.gguf")))?;
//!     registry.load(name).wait()?;
//! }
//! registry.set_active("second")?;
//! assert_eq!(registry.submit(Request::text("-"))?.complete()?.text, "Two.");
//! assert_eq!(registry.submit(Request::text("-").model("first"))?.complete()?.text, "One.");
//! registry.unload("first", None).wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adapter_budget;
mod config;
mod driver;
mod error;
mod event;
mod generator;
#[doc(hidden)]
pub mod lifecycle;
mod load_job;
mod managed;
mod operation;
mod options;
mod served;
mod state;

pub use config::ModelConfig;
pub use error::RegistryError;
pub use event::{RegistryEvent, Subscription};
pub use managed::{EngineLoader, Loader, Managed, MemberState};
pub use operation::Operation;
pub use options::{LoadPacing, RegistryOptions};
pub use served::EngineHandle;
pub use state::{
    LoadingState, MembersByModel, MemoryUse, ModelCounters, ModelState, ModelStatus, ReloadOrder,
    WaitingByUser,
};

use crate::generator::SubmitError;
use driver::{Inner, Waiter};
use lifecycle::{Lifecycle, ModelSettings, Status, WaiterId};
use operation::{OperationSender, operation};
use parking_lot::Mutex;
use served::{Lease, Served};
use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Named models that are loaded, unloaded and switched while the program runs.
///
/// All methods return at once, except for [`shut_down`](Self::shut_down) and its variants; operations that
/// take time return an [`Operation`] to wait for or to await. Wherever a method takes a model's name, an
/// alias works too.
///
/// **Memory.** With [`RegistryOptions::memory_bytes_max`], the estimated memory of all models and the bytes
/// of their adapters stay within that budget. If a model or an adapter to load does not fit, idle models are
/// evicted, least recently used first, but never pinned models or models with requests in flight. If that
/// does not suffice, the load is refused and nothing is evicted.
///
/// **Active model.** A model that becomes ready while none is chosen becomes the chosen one, for requests
/// without a name. [`set_active`](Self::set_active) chooses another, and only [`unload`](Self::unload) of the
/// chosen model clears the choice. The chosen model is active while it is ready.
///
/// Dropping the registry aborts all requests, and waits for all engines and loads to end. It must not be
/// dropped by a stream's waker, which runs on the thread of an engine.
pub struct Registry {
    inner: Arc<Inner>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Registry {
    /// Creates a registry without models and starts its supervisor thread.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Thread`] if the thread cannot be started.
    pub fn new(options: RegistryOptions) -> Result<Self, RegistryError> {
        let inner = Arc::new(Inner::new(&options));
        let supervisor = inner.clone();
        let supervisor = std::thread::Builder::new()
            .name("exsa-registry".into())
            .spawn(move || supervisor.supervise())
            .map_err(|error| RegistryError::Thread(error.to_string()))?;
        Ok(Self { inner, supervisor: Mutex::new(Some(supervisor)) })
    }

    /// Adds a model, without loading it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Name`] for a name or alias that is empty or in use.
    pub fn add(&self, config: ModelConfig) -> Result<(), RegistryError> {
        let name: Arc<str> = config.name.as_str().into();
        self.inner.with(|shared, _| {
            shared.lifecycle.add(name.clone(), settings(&config))?;
            shared.configs.insert(name, Arc::new(config));
            Ok(())
        })
    }

    /// Replaces the configuration of the model [`ModelConfig::name`]. Aliases, pinning and idle timeout
    /// change at once; backend, source and options apply from the next load or reload on.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`], and [`RegistryError::Name`] for an alias that is empty or in use.
    pub fn configure(&self, mut config: ModelConfig) -> Result<(), RegistryError> {
        let replaced = self.inner.with(|shared, _| {
            let name = shared.lifecycle.resolve(&config.name)?;
            shared.lifecycle.configure(&name, settings(&config))?;
            config.name = name.to_string();
            Ok(shared.configs.insert(name, Arc::new(config)))
        })?;
        // Dropped outside the lock: the host's backend may run code on drop.
        drop(replaced);
        Ok(())
    }

    /// Removes a model that is not in memory.
    ///
    /// # Errors
    ///
    /// [`RegistryError::State`] for a model that is loading, ready or draining.
    pub fn remove(&self, model: &str) -> Result<(), RegistryError> {
        let removed = self.inner.with(|shared, _| {
            let name = shared.lifecycle.remove(model)?;
            Ok(shared.configs.remove(&name))
        })?;
        // Dropped outside the lock: the host's backend may run code on drop.
        drop(removed);
        Ok(())
    }

    /// Loads a model. If the model is already being loaded, joins that load; if it is ready, completes at
    /// once.
    ///
    /// The operation fails with [`RegistryError::Memory`] if the model does not fit the budget, with
    /// [`RegistryError::Load`] or [`RegistryError::Panicked`] if the backend fails, and with
    /// [`RegistryError::Cancelled`] if the load is cancelled or the model is unloaded in the meantime.
    pub fn load(&self, model: &str) -> Operation {
        self.begin(Waiter::Plain, |lifecycle, now| lifecycle.load(model, now))
    }

    /// Loads a ready model again from its current configuration, or joins its running reload. The old
    /// instance completes its requests and is aborted after `grace`; `None` sets no limit.
    ///
    /// The result is the order that the memory budget allowed, which [`RegistryEvent::Reload`] announces
    /// before the load begins. With [`ReloadOrder::LoadFirst`], the old instance keeps serving if the load
    /// fails or is refused for lack of memory. The errors are those of [`load`](Self::load), and
    /// [`RegistryError::State`] for a model that is not ready.
    pub fn reload(&self, model: &str, grace: Option<Duration>) -> Operation<ReloadOrder> {
        self.begin(Waiter::Reload, |lifecycle, now| lifecycle.reload(model, grace, now))
    }

    /// Unloads a model. A running load is cancelled. A ready model accepts no more requests; requests in
    /// flight are completed, but aborted after `grace`: `None` sets no limit, zero aborts at once. A later
    /// call can shorten the grace. The operation completes when the memory of all instances of the model is
    /// free.
    pub fn unload(&self, model: &str, grace: Option<Duration>) -> Operation {
        self.begin(Waiter::Plain, |lifecycle, now| lifecycle.unload(model, grace, now))
    }

    /// Puts a ready model to sleep: frees its memory, like [`unload`](Self::unload). The next request to the
    /// model, or [`wake`](Self::wake), loads it again. Fails with [`RegistryError::State`] for a model that
    /// is not ready.
    pub fn sleep(&self, model: &str, grace: Option<Duration>) -> Operation {
        self.begin(Waiter::Plain, |lifecycle, now| lifecycle.sleep(model, grace, now))
    }

    /// Loads a sleeping model. The errors are those of [`load`](Self::load), and [`RegistryError::State`] for
    /// a model that is unloaded or has failed.
    pub fn wake(&self, model: &str) -> Operation {
        self.begin(Waiter::Plain, |lifecycle, now| lifecycle.wake(model, now))
    }

    /// Cancels the load or reload of a model: all waiting operations fail with [`RegistryError::Cancelled`]
    /// at once, and the backend stops at its next progress report. Returns whether there was a load to
    /// cancel.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`] if there is no model with this name.
    pub fn cancel_load(&self, model: &str) -> Result<bool, RegistryError> {
        self.inner.event(|lifecycle, now| lifecycle.cancel_load(model, now))
    }

    /// Makes a ready model the active one, for requests without a name, from the next request on.
    ///
    /// # Errors
    ///
    /// [`RegistryError::State`] for a model that is not ready; the active model is then unchanged.
    pub fn set_active(&self, model: &str) -> Result<(), RegistryError> {
        self.inner.event(|lifecycle, now| lifecycle.set_active(model, now))
    }

    /// Name of the active model; `None` if none is chosen, or the chosen one is not ready.
    pub fn active(&self) -> Option<String> {
        self.inner.event(|lifecycle, _| lifecycle.active().map(|name| name.to_string()))
    }

    /// Configuration of the next load of a model.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`] if there is no model with this name.
    pub fn config(&self, model: &str) -> Result<ModelConfig, RegistryError> {
        let config = self.inner.with(|shared, _| {
            let name = shared.lifecycle.resolve(model)?;
            Ok(shared.configs.get(&name).cloned())
        })?;
        let removed = || RegistryError::UnknownModel { model: model.to_owned(), available: Vec::new() };
        config.map(|config| (*config).clone()).ok_or_else(removed)
    }

    /// Overrides the idle timeout for the ready instance, until it is unloaded, reloaded or put to sleep;
    /// `None` means unlimited. Returns whether the model is ready.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`] if there is no model with this name.
    pub fn keep_alive(&self, model: &str, time: Option<Duration>) -> Result<bool, RegistryError> {
        self.inner.event(|lifecycle, _| lifecycle.keep_alive(model, time))
    }

    /// Sets whether a model is pinned: neither evicted nor put to sleep when idle.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`] if there is no model with this name.
    pub fn pin(&self, model: &str, pinned: bool) -> Result<(), RegistryError> {
        self.inner.event(|lifecycle, _| lifecycle.change(model, |settings| settings.pinned = pinned))
    }

    /// Sets the time without requests after which a model is put to sleep; `None` means never.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`] if there is no model with this name.
    pub fn set_idle_timeout(&self, model: &str, timeout: Option<Duration>) -> Result<(), RegistryError> {
        self.inner.event(|lifecycle, _| lifecycle.change(model, |settings| settings.idle_timeout = timeout))
    }

    /// All models, by name.
    pub fn list(&self) -> Vec<ModelStatus> {
        self.statuses(Lifecycle::names)
    }

    /// Status of a model.
    ///
    /// # Errors
    ///
    /// [`RegistryError::UnknownModel`] if there is no model with this name.
    pub fn status(&self, model: &str) -> Result<ModelStatus, RegistryError> {
        let name = self.inner.event(|lifecycle, _| lifecycle.resolve(model))?;
        let removed = || RegistryError::UnknownModel { model: model.to_owned(), available: Vec::new() };
        self.statuses(|_| vec![name.to_string()]).pop().ok_or_else(removed)
    }

    /// Estimated memory of all models, with their adapters.
    pub fn memory(&self) -> MemoryUse {
        self.inner.event(|lifecycle, _| MemoryUse {
            used: lifecycle.held_bytes(),
            adapters: lifecycle.adapter_bytes(),
            budget: lifecycle.budget(),
        })
    }

    /// Number of answers that wait for a sequence, by ready model and user; see
    /// [`Engine::waiting_by_user`](crate::Engine::waiting_by_user). Unlike [`engine`](Self::engine), the call
    /// does not count as use of a model, and does not keep it awake.
    pub fn waiting_by_user(&self) -> WaitingByUser {
        self.inner.waiting_by_user()
    }

    /// Members of each ready model, such as worker processes or remote engines. The call does not count as
    /// use of a model.
    pub fn members(&self) -> MembersByModel {
        self.inner.members()
    }

    /// Subscribes to changes from now on. To get the initial state, call [`list`](Self::list) after
    /// subscribing.
    pub fn subscribe(&self) -> Subscription {
        self.inner.observers.subscribe()
    }

    /// The engine of a model, or of the active model, for example to query its mode, tokenizer and
    /// statistics.
    ///
    /// # Errors
    ///
    /// The errors of [`submit`](crate::Generator::submit) that concern the model's state; a sleeping model is
    /// woken.
    pub fn engine(&self, model: Option<&str>) -> Result<EngineHandle, SubmitError> {
        let (served, mut lease) = self.route(model)?;
        lease.submitted();
        Ok(EngineHandle { served, _lease: lease })
    }

    /// Begins a shutdown and returns at once: further requests and operations are refused, all loads are
    /// cancelled, and all models are drained, but aborted after `grace`. Can be called again with a shorter
    /// `grace`.
    pub fn begin_shutdown(&self, grace: Option<Duration>) {
        self.inner.event(|lifecycle, now| lifecycle.close(grace, now));
    }

    /// Calls [`begin_shutdown`](Self::begin_shutdown) and waits until all engines and loads have ended.
    pub fn shut_down(&self, grace: Option<Duration>) {
        self.begin_shutdown(grace);
        self.wait_for_end(None);
    }

    /// Calls [`begin_shutdown`](Self::begin_shutdown) and waits at most `timeout`. Returns whether all
    /// engines and loads have ended.
    #[must_use = "engines may still be running"]
    pub fn shut_down_timeout(&self, grace: Option<Duration>, timeout: Duration) -> bool {
        self.begin_shutdown(grace);
        self.wait_for_end(Some(timeout))
    }

    fn wait_for_end(&self, timeout: Option<Duration>) -> bool {
        let this = std::thread::current().id();
        // A waker can drop the registry on the supervisor thread, which must not wait for itself.
        let is_supervisor = |thread: &JoinHandle<()>| thread.thread().id() == this;
        if self.supervisor.lock().as_ref().is_some_and(is_supervisor) || !self.inner.wait_for_end(timeout) {
            return false;
        }
        if let Some(thread) = self.supervisor.lock().take() {
            // The supervisor has ended, and catches the panics of wakers.
            let _ = thread.join();
        }
        true
    }

    /// Begins an operation and creates its two ends.
    fn begin<T: Clone>(
        &self,
        waiter: impl FnOnce(OperationSender<T>) -> Waiter,
        begin: impl FnOnce(&mut Lifecycle<Arc<Served>>, Duration) -> Result<WaiterId, RegistryError>,
    ) -> Operation<T> {
        let (sender, operation) = operation();
        let refused = self.inner.with(|shared, now| match begin(&mut shared.lifecycle, now) {
            Ok(id) if !shared.has_ended() => {
                shared.waiters.insert(id, waiter(sender));
                None
            }
            // The supervisor has ended, so there is nothing left to unload.
            Ok(_) => Some((sender, RegistryError::ShuttingDown)),
            Err(error) => Some((sender, error)),
        });
        if let Some((sender, error)) = refused {
            sender.send(Err(error));
        }
        operation
    }

    /// The engine for a request, and its lease.
    fn route(&self, model: Option<&str>) -> Result<(Arc<Served>, Lease), SubmitError> {
        let (id, served) = self.inner.event(|lifecycle, now| lifecycle.route(model, now))?;
        Ok((served, Lease::new(id, self.inner.clone())))
    }

    fn statuses(&self, names: impl FnOnce(&Lifecycle<Arc<Served>>) -> Vec<String>) -> Vec<ModelStatus> {
        self.inner.find_ended();
        let statuses: Vec<_> = self.inner.event(|lifecycle, now| {
            names(lifecycle).iter().filter_map(|name| lifecycle.status(name, now)).collect()
        });
        statuses.into_iter().map(model_status).collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let models = self.inner.event(|lifecycle, _| lifecycle.names());
        f.debug_struct("Registry")
            .field("models", &models)
            .field("memory", &self.memory())
            .finish_non_exhaustive()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shut_down(Some(Duration::ZERO));
    }
}

fn settings(config: &ModelConfig) -> ModelSettings {
    ModelSettings {
        aliases: config.aliases.iter().map(|alias| alias.as_str().into()).collect(),
        pinned: config.pinned,
        idle_timeout: config.idle_timeout,
    }
}

fn model_status(status: Status<Arc<Served>>) -> ModelStatus {
    ModelStatus {
        name: status.name.to_string(),
        aliases: status.settings.aliases.iter().map(|alias| alias.to_string()).collect(),
        state: status.state,
        active: status.active,
        pinned: status.settings.pinned,
        reloading: status.reloading,
        reload_order: status.reload_order,
        loading: status.loading,
        memory: status.memory,
        adapters: status.handle.as_ref().map(|served| served.engine.adapters(None)).unwrap_or_default(),
        adapter_bytes: status.adapter_bytes,
        requests: status.requests,
        idle: status.idle,
        keep_alive: status.keep_alive,
        counters: status.counters,
        info: status.handle.map(|served| served.info.clone()),
    }
}
