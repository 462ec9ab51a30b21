//! Worker process for hosts that do not re-execute themselves: it loads GGUF files with the backend that the
//! host names. It is started by a host, and does nothing by itself.
#![forbid(unsafe_code)]

use exsa_backend_candle::CandleBackend;
use exsa_core::Engine;
use exsa_core::backend::InferenceBackend;
use exsa_worker::Setup;
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    exsa_worker::run_if_worker(engine);
    eprintln!("exsa-worker is started by hosts: WorkerOptions::program of the library exsa-worker names it");
    ExitCode::FAILURE
}

fn engine(setup: Setup) -> Result<Engine, Box<dyn Error + Send + Sync>> {
    let backend: Box<dyn InferenceBackend> = match setup.backend.as_str() {
        "candle" => Box::new(CandleBackend::new()),
        #[cfg(feature = "llamacpp")]
        "llamacpp" => Box::new(exsa_backend_llamacpp::LlamaCppBackend::new()),
        other => return Err(format!("there is no backend '{other}' in this program").into()),
    };
    Ok(setup.start(&*backend)?)
}
