//! Code shared by all routes: bodies, errors, streams, and middleware layers.

pub(crate) mod body;
pub(crate) mod closing;
pub(crate) mod context;
pub(crate) mod cors;
pub(crate) mod error;
pub(crate) mod origin;
pub(crate) mod request_limits;
pub(crate) mod request_log;
pub(crate) mod stream;
