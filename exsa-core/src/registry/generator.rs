//! The registry as a [`Generator`].

use super::Registry;
use super::served::Served;
use crate::adapter::{AdapterError, AdapterStatus};
use crate::backend::ModelSource;
use crate::chat::Rendered;
use crate::embed::{EmbedOutput, EmbedRequest, Pending, RerankOutput, RerankRequest};
use crate::generator::{Continuation, Generator, SubmitError};
use crate::model_info::ModelInfo;
use crate::request::Request;
use crate::stats::EngineStats;
use crate::stream::TokenStream;
use crate::tokenizer::Tokenizer;
use std::borrow::Cow;
use std::sync::Arc;

impl Registry {
    /// Submits a request to a model, and holds its lease by `hold` until the request ends.
    fn submit_to<T>(
        &self,
        model: Option<&str>,
        submit: impl FnOnce(&Served) -> Result<T, SubmitError>,
        hold: impl FnOnce(&T, super::Lease),
    ) -> Result<T, SubmitError> {
        let (served, mut lease) = self.route(model)?;
        match submit(&served) {
            Ok(output) => {
                lease.submitted();
                hold(&output, lease);
                Ok(output)
            }
            // The engine was aborted in the meantime, or ended by a panic.
            Err(SubmitError::ShuttingDown) => Err(self.ended(lease.id(), &served)),
            Err(error) => Err(error),
        }
    }

    /// The reason why an engine does not accept requests.
    fn ended(&self, id: super::lifecycle::InstanceId, served: &Served) -> SubmitError {
        let model = served.info.name.clone();
        self.inner.event(|lifecycle, now| {
            if lifecycle.is_closed() {
                return SubmitError::ShuttingDown;
            }
            // No effect on an instance that was aborted.
            lifecycle.engine_ended(id, now);
            match lifecycle.failure(&model) {
                Some(reason) => SubmitError::ModelFailed { model, reason },
                None => SubmitError::ModelUnloaded { model },
            }
        })
    }
}

impl Generator for Registry {
    /// The ready models under their names in the registry, the active model first.
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        let mut ready = self.list();
        ready.sort_by_key(|model| !model.active);
        ready.into_iter().filter_map(|model| model.info).collect()
    }

    fn submit(&self, mut request: Request) -> Result<TokenStream, SubmitError> {
        let model = request.model.take();
        self.submit_to(
            model.as_deref(),
            |served| served.engine.submit(request),
            |stream, lease| stream.hold(lease),
        )
    }

    fn embed(&self, mut request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        let model = request.model.take();
        self.submit_to(
            model.as_deref(),
            |served| served.engine.embed(request),
            |output, lease| output.hold(lease),
        )
    }

    fn rerank(&self, mut request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        let model = request.model.take();
        self.submit_to(
            model.as_deref(),
            |served| served.engine.rerank(request),
            |output, lease| output.hold(lease),
        )
    }

    fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        let (served, _lease) = self.route(request.model.as_deref())?;
        served.engine.count_tokens(&unnamed(request))
    }

    fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        let (served, _lease) = self.route(request.model.as_deref())?;
        served.engine.render(&unnamed(request))
    }

    fn tokenizer(&self, model: Option<&str>) -> Result<Arc<dyn Tokenizer>, SubmitError> {
        let (served, _lease) = self.route(model)?;
        served.engine.tokenizer(None)
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        let (served, _lease) = self.route(request.model.as_deref())?;
        served.engine.check(&unnamed(request))
    }

    fn load_adapter(
        &self,
        model: Option<&str>,
        name: &str,
        source: &ModelSource,
    ) -> Result<AdapterStatus, AdapterError> {
        let (served, _lease) = self.route(model)?;
        served.engine.load_adapter(None, name, source)
    }

    fn unload_adapter(&self, model: Option<&str>, name: &str) -> Result<(), AdapterError> {
        let (served, _lease) = self.route(model)?;
        served.engine.unload_adapter(None, name)
    }

    /// The adapters of a ready model. The call neither loads the model nor counts as use.
    fn adapters(&self, model: Option<&str>) -> Vec<AdapterStatus> {
        let name = match model {
            Some(model) => self.status(model).ok().map(|status| status.name),
            None => self.active(),
        };
        let served = self.inner.ready().into_iter().find(|served| Some(&served.info.name) == name.as_ref());
        served.map(|served| served.engine.adapters(None)).unwrap_or_default()
    }

    fn continuation(&self, model: Option<&str>) -> Continuation {
        self.route(model).map_or(Continuation::refused(), |(served, _lease)| served.engine.continuation(None))
    }

    /// Counters over all models, including engines that have ended; gauges of running engines only.
    fn stats(&self) -> EngineStats {
        let mut total = EngineStats::default();
        self.inner.stats().values().for_each(|stats| total.merge(stats));
        total
    }

    fn stats_by_model(&self) -> Vec<(Arc<str>, EngineStats)> {
        self.inner.stats().into_iter().collect()
    }
}

/// The request without the model's name, which is the registry's own.
fn unnamed(request: &Request) -> Cow<'_, Request> {
    let mut request = Cow::Borrowed(request);
    if request.model.is_some() {
        request.to_mut().model = None;
    }
    request
}
