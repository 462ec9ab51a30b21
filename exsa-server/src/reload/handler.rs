//! `POST /v1/config/reload`.

use super::{ReloadReport, Reloader};
use crate::http::error::ApiError;
use axum::Json;
use std::sync::Arc;
use tracing::error;

/// Reloads the configuration; responds with the settings that have changed and those that need a restart.
pub(crate) async fn handle(reloader: Arc<Reloader>) -> Result<Json<ReloadReport>, ApiError> {
    match tokio::task::spawn_blocking(move || reloader.reload_logged()).await {
        Ok(Ok(report)) => Ok(Json(report)),
        Ok(Err(problems)) => {
            let message = format!("the configuration is not reloaded, nothing has changed: {problems}");
            Err(ApiError::invalid(message).code("invalid_configuration"))
        }
        Err(error) => {
            error!(%error, "the reload ended");
            Err(ApiError::internal("the reload ended"))
        }
    }
}
