//! Resolves the model of a request, and waits until it is ready.

use crate::access::Caller;
use crate::http::error::ApiError;
use crate::state::AppState;
use exsa_core::SubmitError;
use exsa_core::model_info::ModelInfo;
use std::sync::Arc;
use std::time::Instant;

impl AppState {
    /// Returns the ready model named by a request of `caller`, or the active model. Waits for a loading model
    /// for at most [`load_wait`](super::ModelsConfig::load_wait).
    ///
    /// # Errors
    ///
    /// 403 for a model that the caller may not use, which is also not woken, or the reason why it is not
    /// ready.
    pub(crate) async fn ready(
        &self,
        caller: &Caller,
        name: Option<&str>,
    ) -> Result<Arc<ModelInfo>, ApiError> {
        self.authorise(caller, name)?;
        let name = name.filter(|name| !name.is_empty());
        let Some(models) = &self.models else { return self.model(name) };
        let since = Instant::now();
        loop {
            let loading = match self.find_ready(name) {
                Ok(info) => return Ok(info),
                Err(SubmitError::ModelLoading { model, retry_after }) => (model, retry_after),
                Err(error) => return Err(error.into()),
            };
            let (model, retry_after) = loading;
            let left = models.load_wait().and_then(|limit| limit.checked_sub(since.elapsed()));
            let refused = || SubmitError::ModelLoading { model: model.clone(), retry_after }.into();
            let Some(left) = left.filter(|left| !left.is_zero()) else { return Err(refused()) };
            match tokio::time::timeout(left, models.registry().load(&model)).await {
                // Ready, unless it was evicted in between.
                Ok(loaded) => loaded?,
                Err(_) => return Err(refused()),
            }
        }
    }

    /// Returns a ready model, or the error with which the generator would refuse a request to it; this may
    /// begin a load.
    fn find_ready(&self, name: Option<&str>) -> Result<Arc<ModelInfo>, SubmitError> {
        let unknown = || SubmitError::UnknownModel {
            model: name.unwrap_or_default().to_owned(),
            available: self.generator.models().iter().map(|model| model.name.clone()).collect(),
        };
        let Some(models) = &self.models else { return Err(unknown()) };
        let registry = models.registry();
        let active = if name.is_none() { registry.active() } else { None };
        let status = name.or(active.as_deref()).and_then(|name| registry.status(name).ok());
        match status.and_then(|status| status.info) {
            Some(info) => Ok(info),
            None => match registry.engine(name) {
                // It became ready between the two calls; the next call finds it.
                Ok(_) => Err(SubmitError::ModelLoading {
                    model: self.model_name(name).unwrap_or_default(),
                    retry_after: None,
                }),
                Err(error) => Err(error),
            },
        }
    }

    /// Returns information about a model; for a model that is not ready, from its file.
    ///
    /// # Errors
    ///
    /// 403 for a model that the caller may not use, 404 for an unknown one.
    pub(crate) async fn describe(&self, caller: &Caller, name: &str) -> Result<Arc<ModelInfo>, ApiError> {
        let name = self.model_name(Some(name))?;
        self.authorise(caller, Some(&name))?;
        let Some(models) = &self.models else { return self.model(Some(&name)) };
        if let Some(info) = models.registry().status(&name)?.info {
            return Ok(info);
        }
        let config = models.registry().config(&name)?;
        let inspect = move || config.loader.inspect(&config.source);
        let inspected = tokio::task::spawn_blocking(inspect).await;
        let inspected =
            inspected.map_err(|error| ApiError::internal(format!("a worker thread ended: {error}")))?;
        let mut info = inspected
            .map_err(|error| ApiError::internal(format!("model '{name}': {error}")).code("load_failed"))?;
        info.name = name;
        Ok(Arc::new(info))
    }

    /// Resolves a name or alias to a model, ready or not; without a name, returns the active model.
    ///
    /// # Errors
    ///
    /// 404 for an unknown model, 503 if none is active.
    pub(crate) fn model_name(&self, name: Option<&str>) -> Result<String, ApiError> {
        let name = name.filter(|name| !name.is_empty());
        let Some(models) = &self.models else { return Ok(self.model(name)?.name.clone()) };
        let registry = models.registry();
        let available = || registry.list().into_iter().map(|model| model.name).collect();
        match name {
            Some(name) => match registry.status(name) {
                Ok(status) => Ok(status.name),
                Err(_) => {
                    Err(SubmitError::UnknownModel { model: name.to_owned(), available: available() }.into())
                }
            },
            None => {
                registry.active().ok_or_else(|| SubmitError::NoActiveModel { available: available() }.into())
            }
        }
    }
}
