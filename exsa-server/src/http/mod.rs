//! Parts that all routes share: bodies, errors, streams, and the layers around the handlers.

pub(crate) mod body;
pub(crate) mod closing;
pub(crate) mod context;
pub(crate) mod cors;
pub(crate) mod error;
pub(crate) mod origin;
pub(crate) mod request_limits;
pub(crate) mod request_log;
pub(crate) mod stream;
