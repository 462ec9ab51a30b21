//! Remote engines of a model behind one queue.

use super::loader::{RemoteLoader, member};
use exsa_backend_remote::{RemoteEngine, RemoteOptions};
use exsa_core::chat::Rendered;
use exsa_core::embed::{EmbedOutput, Pending, RerankOutput};
use exsa_core::error::LoadError;
use exsa_core::model_info::ModelInfo;
use exsa_core::queue::FairOptions;
use exsa_core::registry::{Managed, MemberState};
use exsa_core::stats::EngineStats;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{
    Continuation, EmbedRequest, Generator, Request, RerankRequest, Shutdown, SubmitError, TokenStream,
};
use exsa_pool::Pool;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Interval between attempts to reach an engine that did not respond at start.
const RETRY: Duration = Duration::from_secs(5);

/// The engines of a model, and the search for missing ones.
#[derive(Debug)]
pub(super) struct Engines {
    pool: Arc<Pool>,
    search: Arc<Search>,
}

#[derive(Debug)]
struct Search {
    /// Missing engines; `None` ends the search.
    missing: Mutex<Option<Vec<RemoteOptions>>>,
    ended: Condvar,
}

impl Engines {
    pub(super) fn start(pool: Arc<Pool>, missing: Vec<RemoteOptions>) -> Result<Self, LoadError> {
        let search = Arc::new(Search { missing: Mutex::new(Some(missing)), ended: Condvar::new() });
        let (of_thread, of_pool) = (search.clone(), pool.clone());
        thread::Builder::new().name("exsa-remotes".into()).spawn(move || of_thread.run(&of_pool)).map_err(
            |error| LoadError::Backend(format!("cannot start the thread of remote engines: {error}")),
        )?;
        Ok(Self { pool, search })
    }
}

impl Search {
    /// Retries missing engines until all are reached, or the search is ended.
    fn run(&self, pool: &Pool) {
        let mut missing = self.missing.lock();
        while missing.as_ref().is_some_and(|missing| !missing.is_empty()) {
            self.ended.wait_for(&mut missing, RETRY);
            let Some(list) = missing.clone() else { return };
            for options in list {
                let connected = MutexGuard::unlocked(&mut missing, || RemoteEngine::connect(options.clone()));
                let Some(list) = missing.as_mut() else { return };
                if let Ok(engine) = connected {
                    tracing::info!(engine = %options.url, "a remote engine is reached");
                    list.retain(|other| other.url != options.url || other.model != options.model);
                    pool.add(member(&options, engine));
                }
            }
        }
    }

    fn end(&self) {
        *self.missing.lock() = None;
        self.ended.notify_all();
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        self.search.end();
    }
}

impl Managed for Engines {
    fn begin_shutdown(&self, how: Shutdown) {
        self.search.end();
        Managed::begin_shutdown(&*self.pool, how);
    }

    fn shut_down(&self, how: Shutdown) {
        self.search.end();
        Managed::shut_down(&*self.pool, how);
    }

    fn is_shut_down(&self) -> bool {
        self.pool.is_shut_down()
    }

    fn waiting_by_user(&self) -> Vec<(Arc<str>, usize)> {
        self.pool.waiting_by_user()
    }

    fn members(&self) -> Vec<MemberState> {
        let mut members = Managed::members(&*self.pool);
        let missing = self.search.missing.lock();
        let missing = missing.iter().flatten();
        members.extend(
            missing.map(|options| MemberState::new(RemoteLoader::name_of(options), "not reached yet")),
        );
        members
    }

    fn set_fair(&self, options: FairOptions) {
        self.pool.set_fair(options);
    }
}

impl Generator for Engines {
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        self.pool.models()
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        self.pool.submit(request)
    }

    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        self.pool.embed(request)
    }

    fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        self.pool.rerank(request)
    }

    fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        self.pool.count_tokens(request)
    }

    fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        self.pool.render(request)
    }

    fn tokenizer(&self, model: Option<&str>) -> Result<Arc<dyn Tokenizer>, SubmitError> {
        self.pool.tokenizer(model)
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        self.pool.check(request)
    }

    fn continuation(&self, model: Option<&str>) -> Continuation {
        self.pool.continuation(model)
    }

    fn stats(&self) -> EngineStats {
        self.pool.stats()
    }
}
