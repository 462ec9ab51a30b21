//! Worker processes of the server.

use exsa_backend_candle::CandleBackend;

/// Runs this process as a worker if a server started it as one; otherwise returns immediately.
///
/// Hosts whose models have `workers` call it first in `main`, as the binary does, since workers are the same
/// program, started again.
pub fn run_if_worker() {
    exsa_worker::run_if_worker(|setup| match setup.backend.as_str() {
        "candle" => Ok(setup.start(&CandleBackend::new())?),
        other => Err(format!("workers of this program have no backend '{other}'").into()),
    });
}
