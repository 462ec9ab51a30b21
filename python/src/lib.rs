//! Native module of the Python package `exsa`: the crate `exsa` with arguments and results for the package's
//! classes. Requests, usage and events are passed as JSON.

mod answer;
mod engine;
mod error;
mod wake;

use pyo3::prelude::*;

/// Native part of the package exsa.
#[pymodule]
mod _exsa {
    #[pymodule_export]
    use super::answer::Answer;
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::error::{Error, LoadError, QueueFullError, RefusedError, RequestError};

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
