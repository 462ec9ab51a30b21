//! No-op spans for builds without traces.

use crate::state::AppState;
use axum::extract::Request;
use exsa_core::{FinishReason, Usage};

/// The span of an HTTP request.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestSpan;

impl RequestSpan {
    pub(crate) fn begin(_: &AppState, _: &Request, _: &str) -> Self {
        Self
    }

    pub(crate) fn ids(&self) -> (Option<&str>, Option<&str>) {
        (None, None)
    }

    pub(crate) fn caller(&self, _: &str) {}

    pub(crate) fn end(&self, _: Option<u16>, _: bool) {}

    pub(crate) fn generation(&self, _: Option<&str>, _: &exsa_core::Request) -> InferenceSpan {
        InferenceSpan {}
    }

    pub(crate) fn computation(&self, _: &'static str, _: Option<&str>) -> InferenceSpan {
        InferenceSpan {}
    }
}

/// The span of an inference.
#[derive(Debug, Default)]
pub(crate) struct InferenceSpan {}

impl InferenceSpan {
    pub(crate) fn token(&mut self) {}

    pub(crate) fn answer(&mut self, _: usize, _: &FinishReason) {}

    pub(crate) fn end(&mut self, _: &Usage, _: Option<&str>) {}

    pub(crate) fn refuse(&mut self, _: &str) {}

    pub(crate) fn abandon(&mut self, _: u64) {}
}
