//! Errors of measurements.

use exsa_core::error::LoadError;
use exsa_core::{RequestError, SubmitError};
use std::path::PathBuf;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// There is no backend of this name in the program.
    #[error("there is no backend '{name}'; this program has {known}")]
    Backend {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The backend needs a model file and none is given.
    #[error("the backend {backend} needs a model: --model FILE")]
    ModelMissing {
        /// Name of the backend.
        backend: String,
    },
    /// The model could not be loaded, or its session not be made.
    #[error("{what}: {source}")]
    Load {
        /// The file or part that was loaded.
        what: String,
        /// Why it could not be.
        source: LoadError,
    },
    /// An adapter could not be loaded.
    #[error("{name}: {source}")]
    Adapter {
        /// Name of the adapter.
        name: String,
        /// Why it could not be.
        source: exsa_core::adapter::AdapterError,
    },
    /// The longest prompt and its answer are more than a sequence holds.
    #[error(
        "a prompt of {prompt} tokens and {generate} generated ones do not fit into {limit} tokens ({what})"
    )]
    Context {
        /// Tokens of the longest prompt.
        prompt: usize,
        /// Tokens to generate.
        generate: usize,
        /// Tokens that fit.
        limit: usize,
        /// Name of the limit.
        what: &'static str,
    },
    /// The KV cache would hold too little for all streams to run together.
    #[error("--kv-tokens is {given}, but {parallel} streams that run together need {needed}")]
    KvTokens {
        /// Tokens asked for.
        given: usize,
        /// Streams of the case.
        parallel: usize,
        /// Tokens needed.
        needed: usize,
    },
    /// The vocabulary has no token that could stand in a prompt.
    #[error("the model's vocabulary has no ordinary token")]
    Vocabulary,
    /// The engine refused a request.
    #[error("the engine refused stream {stream}: {source}")]
    Submit {
        /// Index of the stream.
        stream: usize,
        /// Why.
        source: SubmitError,
    },
    /// A request failed.
    #[error("stream {stream} failed: {source}")]
    Request {
        /// Index of the stream.
        stream: usize,
        /// Why.
        source: RequestError,
    },
    /// A stream ended with another number of tokens than asked for.
    #[error("stream {stream} ended with {found} tokens instead of {expected}: {reason}")]
    Length {
        /// Index of the stream.
        stream: usize,
        /// Tokens that came.
        found: usize,
        /// Tokens asked for.
        expected: usize,
        /// Why the engine ended it.
        reason: String,
    },
    /// The engine has nothing to do although streams have not ended.
    #[error("the engine stands still with {streams} streams unfinished")]
    Stalled {
        /// Streams that have not ended.
        streams: usize,
    },
    /// The bandwidth could not be measured.
    #[error("memory bandwidth: {0}")]
    Bandwidth(std::io::Error),
    /// The program could not start itself again with the backend's number of threads.
    #[error("cannot start {} with {variable} set: {source}", program.display())]
    Restart {
        /// The program.
        program: PathBuf,
        /// The environment variable that decides on the number of threads.
        variable: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// No process could be started in which a backend is alone.
    #[error("cannot start a process to measure memory in: {0}")]
    Alone(std::io::Error),
    /// A process in which a backend was alone failed.
    #[error("the process that measured the memory of {backend} failed: {status}")]
    AloneFailed {
        /// Name of the backend.
        backend: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// There is nothing to send requests to.
    #[error("nothing to send requests to: --engine BACKEND or --http NAME=URL")]
    NoTarget,
    /// A user's requests could not be understood.
    #[error("--user {0}")]
    User(String),
    /// A request failed, or its answer was not what was asked for.
    #[error("{target}: {reason}")]
    Answer {
        /// Name of the target.
        target: String,
        /// The reason.
        reason: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The result could not be written.
    #[error("cannot write the result: {0}")]
    Write(std::io::Error),
}
