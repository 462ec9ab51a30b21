//! `/v1/responses`: answers as typed items, stored on the server for follow-up requests.

mod builder;
mod input;
mod request;
mod routes;
pub(crate) mod running;
pub(crate) mod store;
mod stream;

pub(crate) use routes::{cancel, create, delete, input_items, show};
