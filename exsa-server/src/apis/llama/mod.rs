//! Routes of llama-server that no other API has: `/completion`, `/infill`, `/apply-template`, `/embedding`,
//! `/props`, `/slots`.

mod completion;
mod embedding;
mod infill;
mod props;
mod request;
mod slots;
mod template;

pub(crate) use completion::complete;
pub(crate) use embedding::embed;
pub(crate) use infill::infill;
pub(crate) use props::props;
pub(crate) use slots::slots;
pub(crate) use template::apply;
