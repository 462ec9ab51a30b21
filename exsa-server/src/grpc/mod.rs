//! The gRPC services `vllm.Inference` and `vllm.Control`, with the access rights, limits and records of the
//! HTTP routes.

mod host;
mod layers;
mod status;

use crate::access::{self, Scope};
use crate::config::GrpcConfig;
use crate::http::{context, origin, request_log};
use crate::observe::metrics;
use crate::quota;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use exsa_grpc::{GrpcOptions, Services};
pub(crate) use host::ServerHost;

/// Routes of the services.
pub(crate) fn router(host: ServerHost, config: &GrpcConfig) -> Router {
    let state = host.state.clone();
    // The layer below enforces the current limit before memory is reserved.
    let options = GrpcOptions::new()
        .model(config.model.clone())
        .model_id(config.model_id.clone())
        .message_bytes_max(usize::MAX);
    let services = Services::new(host, options);
    let whole = || from_fn_with_state(state.clone(), layers::whole_message);
    let inference = Router::new()
        .route_service("/vllm.Inference/{*method}", services.inference())
        .route_service("/vllm.Control/{*method}", services.control())
        .route_layer(whole())
        .route_layer(from_fn_with_state(Scope::Infer, access::require));
    // Probes need no key, as on the HTTP routes.
    let health = Router::new()
        .route_service("/grpc.health.v1.Health/{*method}", services.health())
        .route_layer(whole());
    Router::new()
        .merge(inference)
        .merge(health)
        .fallback(status::no_such_method)
        .layer(from_fn_with_state(state.clone(), quota::add_headers))
        .layer(from_fn(request_log::name_caller))
        .layer(from_fn_with_state(state.clone(), access::authenticate))
        .layer(from_fn_with_state(state.clone(), origin::check))
        .layer(from_fn(layers::in_form))
        .layer(from_fn_with_state(state.clone(), context::add))
        .layer(from_fn_with_state(state, metrics::count))
}
