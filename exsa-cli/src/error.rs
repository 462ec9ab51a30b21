//! Errors of commands, and the exit codes of the program.

use exsa_hub::HubError;
use std::process::ExitCode;

/// The reason why a command fails.
#[derive(Debug)]
pub(crate) enum CliError {
    /// Error of the engine.
    Engine(exsa::Error),
    /// The command line parses but its values make no sense: exit code 2, as for clap's own errors.
    Usage(String),
    /// Ctrl-C: exit code 130.
    Interrupted,
    /// The reader of the output has closed the pipe.
    Silent,
    /// The command has already printed its error, and has its own exit code.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server prints its own errors"))]
    Exit(ExitCode),
    /// Any other failure.
    Other(String),
}

impl CliError {
    /// Creates an error about a file.
    pub(crate) fn file(path: &std::path::Path, error: impl std::fmt::Display) -> Self {
        Self::Other(format!("{}: {error}", path.display()))
    }

    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Silent | Self::Exit(_) | Self::Interrupted)
    }

    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Exit(code) => *code,
            Self::Usage(_) => ExitCode::from(2),
            Self::Interrupted => ExitCode::from(130),
            Self::Engine(_) | Self::Silent | Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Usage(text) | Self::Other(text) => f.write_str(text),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Silent | Self::Exit(_) => Ok(()),
        }
    }
}

impl From<exsa::Error> for CliError {
    fn from(error: exsa::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<HubError> for CliError {
    fn from(error: HubError) -> Self {
        match &error {
            HubError::Cancelled => Self::Interrupted,
            HubError::Source { .. }
            | HubError::Option { .. }
            | HubError::NoMatch { .. }
            | HubError::Ambiguous { .. } => Self::Usage(error.to_string()),
            HubError::NoTls(url) => Self::Other(format!(
                "{url}: this build has no https; install one that has it, with a C compiler: \
                 cargo install --path exsa-cli --features tls"
            )),
            HubError::PlainHttp(url) => Self::Other(format!(
                "{url}: http is neither encrypted nor authenticated; use https, or allow it: --allow-http"
            )),
            HubError::NotCached { source_name, .. } => {
                Self::Other(format!("{error}; fetch it: exsa pull {source_name}"))
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<exsa::SubmitError> for CliError {
    fn from(error: exsa::SubmitError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<exsa::RequestError> for CliError {
    fn from(error: exsa::RequestError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<exsa::LoadError> for CliError {
    fn from(error: exsa::LoadError) -> Self {
        Self::Engine(error.into())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // `exsa show F | head` is not a failure.
            std::io::ErrorKind::BrokenPipe => Self::Silent,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for CliError {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(error.to_string())
    }
}
