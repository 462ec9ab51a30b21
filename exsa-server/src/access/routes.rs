//! `/v1/keys`: creates, lists, revokes and rotates keys.

use super::record::duration;
use super::{Caller, KeyError, KeyOptions, KeyRecord, Keys, SecretText};
use crate::http::body::Fields;
use crate::http::error::ApiError;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tracing::info;

/// Returns the routes. Each request needs an extension [`Caller`].
pub(crate) fn routes<S: Clone + Send + Sync + 'static>(keys: Arc<Keys>) -> Router<S> {
    Router::new()
        .route("/v1/keys", get(list).post(create))
        .route("/v1/keys/{id}/revoke", post(revoke))
        .route("/v1/keys/{id}/rotate", post(rotate))
        .with_state(keys)
}

/// Options of a rotation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RotateOptions {
    /// Time for which the old secret stays valid, such as `1h`.
    #[serde(deserialize_with = "duration")]
    overlap: Option<Duration>,
}

/// Lists keys that the caller may manage.
async fn list(State(keys): State<Arc<Keys>>, caller: Caller) -> Json<Value> {
    let records: Vec<_> = keys.list(&caller).iter().map(KeyRecord::json).collect();
    Json(json!({"object": "list", "data": records}))
}

async fn create(
    State(keys): State<Arc<Keys>>,
    caller: Caller,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let options: KeyOptions = read(body)?;
    let by = caller.id.clone();
    let (record, text) = blocking(move || keys.create(&options, &caller)).await?;
    info!(key = record.id, name = record.name, %by, "key made");
    Ok((StatusCode::CREATED, shown(&record, &text)).into_response())
}

async fn revoke(
    State(keys): State<Arc<Keys>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let by = caller.id.clone();
    let record = blocking(move || keys.revoke(&id, &caller)).await?;
    info!(key = record.id, name = record.name, %by, "key revoked");
    Ok(Json(record.json()))
}

async fn rotate(
    State(keys): State<Arc<Keys>>,
    caller: Caller,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let RotateOptions { overlap } = match body {
        Ok(body) if body.is_empty() => RotateOptions::default(),
        body => read(body)?,
    };
    let by = caller.id.clone();
    let (record, text) = blocking(move || keys.rotate(&id, overlap, &caller)).await?;
    info!(key = record.id, name = record.name, %by, "key rotated");
    Ok(shown(&record, &text))
}

/// Returns a record with the text of its key, which must not be cached.
fn shown(record: &KeyRecord, text: &SecretText) -> Response {
    let mut body = record.json();
    body["key"] = text.expose().into();
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let body = body.map_err(|rejection| {
        ApiError::new(rejection.status(), "invalid_request_error", rejection.body_text())
    })?;
    Fields::parse(&body)?.into()
}

/// Runs a change, which waits for the disk, on a blocking thread.
async fn blocking<T: Send + 'static>(
    change: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(change).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(ApiError::internal(format!("a worker thread ended: {error}"))),
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        let message = error.to_string();
        let permission = |param, message| {
            Self::new(StatusCode::FORBIDDEN, "permission_error", message).param(param).code("not_grantable")
        };
        match &error {
            KeyError::Option(error) => Self::invalid(message).param(error.field),
            KeyError::Grant(_) | KeyError::Outlives => {
                let param = message.split(':').next().unwrap_or_default().to_owned();
                permission(param, message)
            }
            KeyError::Unknown { .. } => {
                Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("key_not_found")
            }
            KeyError::NotValid { .. } => {
                Self::new(StatusCode::CONFLICT, "invalid_request_error", message).code("key_not_valid")
            }
            KeyError::TooMany => {
                Self::new(StatusCode::CONFLICT, "invalid_request_error", message).code("too_many_keys")
            }
            KeyError::Imported => {
                Self::new(StatusCode::CONFLICT, "invalid_request_error", message).code("keys_imported")
            }
            // File paths belong into the log.
            KeyError::Export(error) => {
                tracing::error!(%error, "the keys are not exported; other servers lack the last change");
                let message = "the change holds here; its export to other servers failed and is repeated";
                Self::internal(message).code("export_failed")
            }
            KeyError::Randomness(_) | KeyError::Store(_) => Self::internal(message),
        }
    }
}
