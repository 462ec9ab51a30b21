//! Request bodies: JSON objects, with errors that name the field.

use crate::http::error::ApiError;
use crate::state::AppState;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Fields of which a request has exactly one.
const ALTERNATIVES: [&str; 2] = ["messages", "prompt"];

/// Fields of a body. Null fields are left out: null means the default.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl FromRequest<Arc<AppState>> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Self, ApiError> {
        let encoding = request.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let message = "compressed bodies are not accepted: send none, or identity, as content-encoding";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::new(status, "invalid_request_error", message).code("content_encoding"));
        }
        let limit = state.options.get().body_timeout;
        match tokio::time::timeout(limit, Bytes::from_request(request, state)).await {
            Ok(bytes) => Self::parse(&bytes.map_err(unreadable)?),
            Err(_) => {
                let message = format!("the body did not arrive within {} s", limit.as_secs_f64());
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", message).code("slow_body"))
            }
        }
    }
}

/// Limits the body of a request to the current limit.
pub(crate) async fn limit(State(state): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    DefaultBodyLimit::max(state.options.get().body_bytes_max).apply(&mut request);
    next.run(request).await
}

impl Fields {
    /// Creates an empty set of fields.
    pub(crate) fn new() -> Self {
        Self(Map::new())
    }

    /// Parses a JSON object. The last value of a duplicate field counts.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ApiError> {
        let mut fields: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| ApiError::invalid(format!("the body is not a JSON object: {error}")))?;
        fields.retain(|_, value| !value.is_null());
        // Clients that must send a model name send an empty one for the active model.
        if fields.get("model").is_some_and(|name| name == "") {
            fields.remove("model");
        }
        Ok(Self(fields))
    }

    /// Removes and returns a field.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        self.0.remove(name).map(|value| read(value, name)).transpose()
    }

    /// Returns a field without removing it.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Sets a field.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Returns a copy with one field changed.
    pub(crate) fn with(&self, name: &str, value: Value) -> Self {
        let mut fields = self.0.clone();
        fields.insert(name.to_owned(), value);
        Self(fields)
    }

    /// Deserializes all fields as one value.
    pub(crate) fn into<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        read(Value::Object(self.0), "")
    }

    /// Deserializes all fields as a type with flattened parts, whose errors do not name the field. If that
    /// fails, each field is read separately, together with the `required` fields, to find the invalid one.
    pub(crate) fn into_flattened<T: DeserializeOwned>(
        self,
        required: &[(&str, Value)],
    ) -> Result<T, ApiError> {
        let error = match read(Value::Object(self.0.clone()), "") {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        for (name, value) in self.0 {
            let others = required.iter().filter(|_| !ALTERNATIVES.contains(&name.as_str()));
            let mut fields: Map<_, _> =
                others.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            fields.insert(name.clone(), value);
            if let Err(error) = read::<T>(Value::Object(fields), "") {
                return Err(error.at(&name));
            }
        }
        Err(error)
    }
}

/// Deserializes a value; errors contain the path of the field below `place`.
fn read<T: DeserializeOwned>(value: Value, place: &str) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = match (place, error.path().to_string().as_str()) {
            (place, ".") => place.to_owned(),
            ("", path) => path.to_owned(),
            (place, path) => format!("{place}.{path}"),
        };
        let message = error.into_inner().to_string();
        if path.is_empty() {
            return ApiError::invalid(message);
        }
        ApiError::invalid(format!("{path}: {message}")).param(path)
    })
}

fn unreadable(rejection: BytesRejection) -> ApiError {
    let kind = "invalid_request_error";
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, kind, "the body is larger than the server's limit")
        }
        status => ApiError::new(status, kind, rejection.body_text()),
    }
}
