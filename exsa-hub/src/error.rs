//! Errors of downloads, the cache and removal.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Error of an operation of a [`Hub`](crate::Hub).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text is not a valid source.
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
    /// An option is out of range, or contradicts another one.
    #[error("option '{option}': {problem}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// The problem, and the allowed values.
        problem: String,
    },
    /// The model is not in the cache, and the network must not be used.
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
    /// A source is ambiguous: several models of the repository match.
    #[error("{repo} {problem}: {}", choices.join(", "))]
    Ambiguous {
        /// The repository.
        repo: String,
        /// The request.
        problem: String,
        /// The models, by files or sources.
        choices: Vec<String>,
    },
    /// No model of the repository matches.
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
    /// The server refused the token, or requires one.
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
        /// Whether the response is from the hub, which reports private repositories as not found.
        hub: bool,
    },
    /// The server responds with an error, also after the retries.
    #[error("{url}: the server answers {status}{}", message_of(message))]
    Status {
        /// Address without its query.
        url: String,
        /// Status code.
        status: u16,
        /// Message of the server, shortened.
        message: String,
    },
    /// The server asks to wait longer than allowed.
    #[error("{url}: the server answers {status} and asks to wait {} s; try again then", after.as_secs())]
    Busy {
        /// Address without its query.
        url: String,
        /// Status code: 429 or 503.
        status: u16,
        /// Time until the request may be retried.
        after: Duration,
    },
    /// The connection failed, also after the retries. A later call resumes.
    #[error("{url}: {problem}; the download continues where it stopped when it is run again")]
    Connection {
        /// Address without its query.
        url: String,
        /// The cause.
        problem: String,
    },
    /// The address needs TLS, which this build does not include.
    #[error("{0}: https needs the feature 'tls' of this program, whose build needs a C compiler")]
    NoTls(String),
    /// A plain `http` address without permission.
    #[error("{0}: http is neither encrypted nor authenticated; use https, or allow http explicitly")]
    PlainHttp(String),
    /// The server's response is invalid, or not allowed.
    #[error("{url}: {problem}")]
    Protocol {
        /// Address without its query.
        url: String,
        /// The problem, and the allowed values.
        problem: String,
    },
    /// The disk is full.
    #[error("{}: {needed} bytes are needed and {free} are free; delete files, or choose another folder", folder.display())]
    Space {
        /// Folder of the file.
        folder: PathBuf,
        /// Bytes that are still to be written.
        needed: u64,
        /// Free bytes, minus the reserve.
        free: u64,
    },
    /// The server's length differs from that of the repository's listing.
    #[error("{file}: the server has {found} bytes, {expected} are listed; nothing was kept")]
    Size {
        /// The file.
        file: String,
        /// Length by the listing.
        expected: u64,
        /// Length by the server.
        found: u64,
    },
    /// The content has the wrong digest; the file was deleted.
    #[error("{file}: SHA-256 is {found}, {expected} is expected; the download was deleted")]
    Digest {
        /// The file.
        file: String,
        /// Expected digest in hexadecimal.
        expected: String,
        /// Digest of the content in hexadecimal.
        found: String,
    },
    /// The file changed during its download, repeatedly.
    #[error("{0}: the file keeps changing on the server; run it again later")]
    Changed(String),
    /// The content is not a GGUF file; the file was deleted.
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
    /// Creates an error about a file.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { path: path.to_owned(), error }
    }
}

fn message_of(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
