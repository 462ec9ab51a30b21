//! Who sends a request, and what that sender may do.

mod caller;

pub use caller::{Caller, Scope, Scopes};

use crate::error::ApiError;
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// Finds the sender of a request and adds it as an extension. Without authentication every sender is
/// [`Caller::anonymous`].
pub(crate) async fn authenticate(
    State(_state): State<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    request.extensions_mut().insert(Caller::anonymous());
    Ok(next.run(request).await)
}

/// Lets requests pass whose sender has `scope`.
pub(crate) async fn require(
    State(scope): State<Scope>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if caller.scopes.contains(scope) {
        return Ok(next.run(request).await);
    }
    let message = format!("this needs the scope '{}', which the key does not have", scope.name());
    Err(ApiError::new(StatusCode::FORBIDDEN, "permission_error", message).code("missing_scope"))
}
