//! [`Host`]: the interface to the program that runs the requests.

use crate::proto::KvEventSource;
use crate::status;
use exsa_core::model_info::ModelInfo;
use exsa_core::stats::EngineStats;
use exsa_core::stream::CancelHandle;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Event, Generator, Request, SubmitError, TokenStream};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::{Extensions, Status};

/// Runs the requests of the services. `Arc<impl Generator>` implements it; a server with access control,
/// quotas and logs has its own implementation.
///
/// `from` holds the extensions of a call, such as the caller's identity as determined by a layer before the
/// services.
pub trait Host: Send + Sync + 'static {
    /// An accepted request.
    type Answer: Answer;

    /// Returns a ready model by name, or the default one.
    ///
    /// # Errors
    ///
    /// The reason why there is none for this caller.
    fn model(
        &self,
        from: &Extensions,
        name: Option<&str>,
    ) -> impl Future<Output = Result<Served, Status>> + Send;

    /// Accepts a request.
    ///
    /// # Errors
    ///
    /// The reason why it is refused.
    fn submit(
        &self,
        from: &Extensions,
        request: Request,
    ) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// Returns whether the services accept requests.
    fn is_ready(&self) -> bool;

    /// Name of the caller, whose requests `Abort` can cancel; by default all callers are one.
    fn sender(&self, from: &Extensions) -> Arc<str> {
        let _ = from;
        "".into()
    }

    /// Sources of prefix cache events; none by default.
    ///
    /// # Errors
    ///
    /// The reason why this caller may not see them.
    fn kv_event_sources(&self, from: &Extensions) -> Result<Vec<KvEventSource>, Status> {
        let _ = from;
        Ok(Vec::new())
    }
}

/// Events of an accepted request. Dropping it cancels the request.
pub trait Answer: Send + 'static {
    /// Returns the next event; `Ready(Ok(None))` after the last.
    ///
    /// # Errors
    ///
    /// The reason why the call ends.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Event>, Status>>;

    /// Returns a handle that can cancel the request from elsewhere.
    fn cancel_handle(&self) -> CancelHandle;
}

/// A ready model.
#[derive(Clone)]
#[non_exhaustive]
pub struct Served {
    /// Model information.
    pub info: Arc<ModelInfo>,
    /// Its tokenizer, if the generator has one.
    pub tokenizer: Option<Arc<dyn Tokenizer>>,
    /// Its counters.
    pub stats: EngineStats,
}

impl Served {
    /// Describes a model of a generator, by its name there.
    pub fn of(generator: &(impl Generator + ?Sized), info: Arc<ModelInfo>) -> Self {
        let tokenizer = generator.tokenizer(Some(&info.name)).ok();
        let by_model = generator.stats_by_model();
        let stats = by_model.into_iter().find(|(name, _)| **name == *info.name).map(|(_, stats)| stats);
        Self { tokenizer, stats: stats.unwrap_or_default(), info }
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Served").field("info", &self.info).finish_non_exhaustive()
    }
}

impl<G: Generator + ?Sized + 'static> Host for Arc<G> {
    type Answer = TokenStream;

    async fn model(&self, _: &Extensions, name: Option<&str>) -> Result<Served, Status> {
        let models = self.models();
        let found = match name {
            None => models.first(),
            Some(name) => models.iter().find(|model| model.name == name),
        };
        let found = found.cloned().ok_or_else(|| {
            let available = models.iter().map(|model| model.name.clone()).collect();
            let model = name.unwrap_or_default().to_owned();
            status::of_refusal(&SubmitError::UnknownModel { model, available })
        })?;
        Ok(Served::of(&**self, found))
    }

    async fn submit(&self, _: &Extensions, request: Request) -> Result<TokenStream, Status> {
        let generator = self.clone();
        status::off_thread(move || {
            Generator::submit(&*generator, request).map_err(|error| status::of_refusal(&error))
        })
        .await
    }

    fn is_ready(&self) -> bool {
        !self.models().is_empty()
    }
}

impl Answer for TokenStream {
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Event>, Status>> {
        TokenStream::poll_event(self, context).map(Ok)
    }

    fn cancel_handle(&self) -> CancelHandle {
        TokenStream::cancel_handle(self)
    }
}
