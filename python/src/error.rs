//! Exceptions.

use exsa::SubmitError;
use exsa::core::adapter::AdapterError;
use pyo3::exceptions::PyException;
use pyo3::{PyErr, create_exception};

create_exception!(exsa, Error, PyException, "Any failure of the engine.");
create_exception!(exsa, LoadError, Error, "The model or the adapter could not be loaded.");
create_exception!(exsa, RefusedError, Error, "The request exceeds the limits of the model.");
create_exception!(exsa, QueueFullError, RefusedError, "The queue is full; try again later.");
create_exception!(exsa, RequestError, Error, "The request failed after it was accepted.");

/// Converts an error to an exception.
pub fn exception(error: impl Into<exsa::Error>) -> PyErr {
    let error = error.into();
    let message = error.to_string();
    match error {
        exsa::Error::Load(_) => LoadError::new_err(message),
        exsa::Error::Submit(SubmitError::QueueFull { .. }) => QueueFullError::new_err(message),
        exsa::Error::Submit(_) => RefusedError::new_err(message),
        exsa::Error::Request(_) | exsa::Error::Embed(_) => RequestError::new_err(message),
        _ => Error::new_err(message),
    }
}

/// Converts an adapter error to an exception.
pub fn adapter(error: AdapterError) -> PyErr {
    LoadError::new_err(error.to_string())
}
