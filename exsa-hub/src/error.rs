//! Reasons for which a model cannot be fetched, found or removed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why an operation of a [`Hub`](crate::Hub) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text names no source.
    #[error(
        "'{text}' names no model: {problem}; allowed are hf:OWNER/REPO, hf:OWNER/REPO:QUANT, hf:OWNER/REPO/FILE, \
         https://HOST/FILE.gguf and the path of a file"
    )]
    Source {
        /// The text.
        text: String,
        /// Its problem.
        problem: String,
    },
    /// An option is out of range, or contradicts another.
    #[error("option '{option}': {problem}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// The problem, and the allowed values.
        problem: String,
    },
    /// The model is not in the cache, and the network was not to be used.
    #[error("{source_name} is not in the cache {}", cache.display())]
    NotCached {
        /// The source as it was named.
        source_name: String,
        /// Folder of the cache.
        cache: PathBuf,
    },
    /// No file exists at a path.
    #[error("there is no file '{}'", .0.display())]
    NoFile(PathBuf),
    /// Several models of a repository could be meant.
    #[error("{repo} {problem}: {}", choices.join(", "))]
    Ambiguous {
        /// The repository.
        repo: String,
        /// The request.
        problem: String,
        /// The models, by files or sources.
        choices: Vec<String>,
    },
    /// No model of a repository is the one that was asked for.
    #[error("{repo} {problem}; it has: {}", choices.join(", "))]
    NoMatch {
        /// The repository.
        repo: String,
        /// The request.
        problem: String,
        /// Quantizations or files that it has.
        choices: Vec<String>,
    },
    /// A repository has no GGUF file.
    #[error("{0} has no GGUF file; look for a repository whose name ends in -GGUF")]
    NoModel(String),
    /// The server refused the token, or wants one.
    #[error("{url}: access refused ({status}): {advice}")]
    Refused {
        /// Address without its query.
        url: String,
        /// Status code: 401 or 403.
        status: u16,
        /// The remedy.
        advice: String,
    },
    /// The server has no such repository or file.
    #[error("{url}: not found (404): check the spelling{}", if *hub { ", or give a token if the repository is private" } else { "" })]
    NotFound {
        /// Address without its query.
        url: String,
        /// Whether the hub said so, which denies private repositories.
        hub: bool,
    },
    /// The server answers with an error, also after the permitted repetitions.
    #[error("{url}: the server answers {status}{}", message_of(message))]
    Status {
        /// Address without its query.
        url: String,
        /// Status code.
        status: u16,
        /// Message of the server, shortened.
        message: String,
    },
    /// The server asks to wait longer than permitted.
    #[error("{url}: the server answers {status} and asks to wait {} s; try again then", after.as_secs())]
    Busy {
        /// Address without its query.
        url: String,
        /// Status code: 429 or 503.
        status: u16,
        /// Time until the request may be repeated.
        after: Duration,
    },
    /// No connection, or it broke, also after the permitted repetitions. A later call resumes.
    #[error("{url}: {problem}; the download continues where it stopped when it is run again")]
    Connection {
        /// Address without its query.
        url: String,
        /// The cause.
        problem: String,
    },
    /// The address needs TLS, which this build does not have.
    #[error("{0}: https needs the feature 'tls' of this program, whose build needs a C compiler")]
    NoTls(String),
    /// A plain `http` address without permission for it.
    #[error("{0}: http is neither encrypted nor authenticated; use https, or allow http explicitly")]
    PlainHttp(String),
    /// The server said something that makes no sense, or that may not be done.
    #[error("{url}: {problem}")]
    Protocol {
        /// Address without its query.
        url: String,
        /// The problem, and the allowed values.
        problem: String,
    },
    /// The disk is too small.
    #[error("{}: {needed} bytes are needed and {free} are free; delete files, or choose another folder", folder.display())]
    Space {
        /// Folder of the file.
        folder: PathBuf,
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that are free, less the reserve.
        free: u64,
    },
    /// The server's length is not that of the repository's listing.
    #[error("{file}: the server has {found} bytes, {expected} are listed; nothing was kept")]
    Size {
        /// The file.
        file: String,
        /// Length by the listing.
        expected: u64,
        /// Length by the server.
        found: u64,
    },
    /// The content is not the expected one; it was deleted.
    #[error("{file}: SHA-256 is {found}, {expected} is expected; the download was deleted")]
    Digest {
        /// The file.
        file: String,
        /// Hexadecimal digits that are expected.
        expected: String,
        /// Hexadecimal digits of the content.
        found: String,
    },
    /// The file changed during its download, repeatedly.
    #[error("{0}: the file keeps changing on the server; run it again later")]
    Changed(String),
    /// The content is no GGUF file; it was deleted.
    #[error("{file}: no GGUF file, but one that begins with '{begin}'")]
    NotGguf {
        /// The file.
        file: String,
        /// First bytes, control characters escaped.
        begin: String,
    },
    /// Reading or writing a file failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The failure.
        #[source]
        error: io::Error,
    },
    /// The download was cancelled. A later call resumes.
    #[error("cancelled; the download continues where it stopped when it is run again")]
    Cancelled,
}

impl HubError {
    /// An error about a file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { path: path.to_owned(), error }
    }
}

fn message_of(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
