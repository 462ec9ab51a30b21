//! Download of one file: in concurrent parts, resumable, verified.

mod answer;
mod ranges;
mod state;
mod worker;

use crate::digest;
use crate::error::HubError;
use crate::name;
use crate::options::HubOptions;
use crate::progress::Phase;
use crate::space;
use crate::transport::{Fault, Part, Reply, Transport};
use answer::Answer;
use parking_lot::Mutex;
use ranges::Ranges;
use state::State;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use worker::{Crew, Outcome};

/// Maximum restarts of a file.
const RESTARTS_MAX: u32 = 3;
/// Bytes read at a time.
const BUFFER_BYTES: usize = 128 << 10;
/// Bytes from which a failed attempt counts as progress.
const PROGRESS_BYTES_MIN: u64 = 64 << 10;

/// A file to download.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// Name for messages.
    pub(crate) name: &'a str,
    /// Address.
    pub(crate) url: &'a str,
    /// Length, if known in advance.
    pub(crate) size: Option<u64>,
    /// SHA-256 in hexadecimal, if known in advance.
    pub(crate) sha256: Option<&'a str>,
    /// The output file; its name ends in `.part`.
    pub(crate) part: &'a Path,
}

/// Callback with the phase, the bytes present and the length of the file.
pub(crate) type Report<'a> = dyn FnMut(Phase, u64, Option<u64>) + Send + 'a;

/// A download in progress.
struct Download<'a> {
    transport: &'a Transport,
    options: &'a HubOptions,
    target: &'a Target<'a>,
    report: Mutex<&'a mut Report<'a>>,
}

/// Outcome of an attempt that did not fail.
enum Attempt {
    /// All bytes are present; `pieced` if they come from more than one response.
    Complete { pieced: bool },
    /// Restart: the file has changed.
    Changed,
    /// Restart without ranges.
    NoRanges,
}

/// Downloads a file into its `.part` file, complete and verified, ready to be renamed.
///
/// # Errors
///
/// The first failure that no retry could fix. Downloaded bytes are kept, unless their content is wrong.
pub(crate) fn download<'a>(
    transport: &'a Transport,
    options: &'a HubOptions,
    target: &'a Target<'a>,
    report: &'a mut Report<'a>,
) -> Result<(), HubError> {
    Download { transport, options, target, report: Mutex::new(report) }.run()
}

impl Download<'_> {
    fn run(&self) -> Result<(), HubError> {
        let mut whole = false;
        for _ in 0..=RESTARTS_MAX {
            let attempt = if whole { self.fetch_whole(None)? } else { self.fetch_parts()? };
            match attempt {
                Attempt::Complete { pieced } => match self.verify() {
                    // Pieces of different versions are possible if the server has no validators.
                    Err(HubError::Digest { .. }) if pieced => {}
                    result => return result,
                },
                Attempt::Changed => {}
                Attempt::NoRanges => whole = true,
            }
            self.discard();
        }
        Err(HubError::Changed(self.target.name.to_owned()))
    }

    fn report(&self, phase: Phase, bytes: u64, total: Option<u64>) {
        (self.report.lock())(phase, bytes, total);
    }

    fn discard(&self) {
        State::remove(self.target.part);
        // If it cannot be removed, the next attempt truncates it.
        let _ = std::fs::remove_file(self.target.part);
    }

    /// Downloads the missing parts.
    fn fetch_parts(&self) -> Result<Attempt, HubError> {
        let stored = State::read(self.target.part).filter(|state| self.resumable(state));
        let resumed = stored.is_some();
        let first = match &stored {
            Some(state) => match state.done.missing(state.total, self.options.segment_bytes).first() {
                Some(first) => *first,
                None => return Ok(Attempt::Complete { pieced: true }),
            },
            None => (0, self.options.segment_bytes.min(self.target.size.unwrap_or(u64::MAX)).max(1)),
        };
        let (answer, reply) = self.ask(first, stored.as_ref())?;
        let (end, total, validator) = match answer {
            Answer::Changed => return Ok(Attempt::Changed),
            Answer::Whole { .. } if resumed => return Ok(Attempt::NoRanges),
            Answer::Whole { .. } => return self.fetch_whole(Some((answer, reply))),
            Answer::Part { end, total, validator } => (end, total, validator),
        };
        self.check_size(total)?;
        // Without a validator and a digest, a mix of versions would go unnoticed.
        if validator.is_none() && self.target.sha256.is_none() {
            return Ok(Attempt::NoRanges);
        }
        let state = stored.unwrap_or(State { total, validator, done: Ranges::default() });
        space::check(self.folder(), total - state.done.bytes(), self.options.reserve_bytes)?;
        let file = OpenOptions::new().create(true).truncate(!resumed).write(true).open(self.target.part);
        let file = file.map_err(HubError::io(self.target.part))?;
        file.set_len(total).map_err(|error| self.write_error(error, total))?;
        self.report(Phase::Downloading, state.done.bytes(), Some(total));
        let crew = Crew::new(self, state, file);
        match crew.run((first.0, first.1.min(total)), end, reply)? {
            Outcome::Complete => Ok(Attempt::Complete { pieced: true }),
            Outcome::Changed => Ok(Attempt::Changed),
            Outcome::NoRanges => Ok(Attempt::NoRanges),
        }
    }

    /// Returns whether the download can be resumed: whether it can be verified that the rest belongs to the
    /// bytes present.
    fn resumable(&self, state: &State) -> bool {
        let same = self.target.size.is_none_or(|size| size == state.total);
        same && state.total <= self.options.file_bytes_max
            && (state.validator.is_some() || self.target.sha256.is_some())
    }

    /// Requests a part, with retries.
    fn ask(&self, range: (u64, u64), known: Option<&State>) -> Result<(Answer, Reply), HubError> {
        let mut failures = 0;
        loop {
            match self.ask_once(range, known) {
                Ok(answer) => return Ok(answer),
                Err(fault) => {
                    failures += 1;
                    self.transport.retries.wait(&self.transport.cancel, fault, failures)?;
                }
            }
        }
    }

    fn ask_once(&self, range: (u64, u64), known: Option<&State>) -> Result<(Answer, Reply), Fault> {
        let if_range = known.and_then(|state| state.validator.clone());
        let reply =
            self.transport.get(self.target.url, &Part { range: Some((range.0, range.1 - 1)), if_range })?;
        if self.is_other(&reply) {
            return Ok((Answer::Changed, reply));
        }
        let answer = Answer::of(&reply, range, known)?;
        Ok((answer, reply))
    }

    /// Returns whether the hub reports other content for the file than its listing.
    fn is_other(&self, reply: &Reply) -> bool {
        matches!((&reply.linked_sha256, self.target.sha256), (Some(found), Some(expected)) if found != expected)
    }

    /// Downloads the complete file in one response, from its beginning at each attempt.
    fn fetch_whole(&self, begun: Option<(Answer, Reply)>) -> Result<Attempt, HubError> {
        State::remove(self.target.part);
        let (mut failures, mut next) = (0, begun);
        loop {
            let result = match next.take() {
                Some((answer, reply)) => self.read_whole(answer, reply),
                None => self.ask_whole().and_then(|(answer, reply)| self.read_whole(answer, reply)),
            };
            match result {
                Ok(true) => return Ok(Attempt::Complete { pieced: false }),
                Ok(false) => return Ok(Attempt::Changed),
                Err(fault) => {
                    failures += 1;
                    self.transport.retries.wait(&self.transport.cancel, fault, failures)?;
                }
            }
        }
    }

    fn ask_whole(&self) -> Result<(Answer, Reply), Fault> {
        let reply = self.transport.get(self.target.url, &Part::default())?;
        if self.is_other(&reply) {
            return Ok((Answer::Changed, reply));
        }
        let answer = Answer::of(&reply, (0, u64::MAX), None)?;
        Ok((answer, reply))
    }

    /// Reads a response with the complete file. Returns false if it is another file.
    fn read_whole(&self, answer: Answer, mut reply: Reply) -> Result<bool, Fault> {
        let Answer::Whole { total, delimited, .. } = answer else { return Ok(false) };
        let total = match total.or(self.target.size) {
            Some(total) => {
                self.check_size(total)?;
                space::check(self.folder(), total, self.options.reserve_bytes)?;
                Some(total)
            }
            None if delimited || self.target.sha256.is_some() => None,
            None => {
                let problem =
                    "the server states no length, so that a cut could not be told from the end".to_owned();
                return Err(HubError::Protocol { url: reply.url, problem }.into());
            }
        };
        let mut file = File::create(self.target.part).map_err(HubError::io(self.target.part))?;
        let (mut buffer, mut bytes) = (vec![0; BUFFER_BYTES], 0);
        self.report(Phase::Downloading, 0, total);
        let mut reader = reply.response.body_mut().with_config().limit(u64::MAX).reader();
        loop {
            self.transport.cancel.check()?;
            let n =
                reader.read(&mut buffer).map_err(|error| self.transport.broken(self.target.url, &error))?;
            if n == 0 {
                break;
            }
            bytes += n as u64;
            if total.is_some_and(|total| bytes > total) {
                return Err(self.wrong_size(bytes).into());
            }
            if bytes > self.options.file_bytes_max {
                self.check_size(bytes)?;
            }
            file.write_all(&buffer[..n]).map_err(|error| self.write_error(error, total.unwrap_or(bytes)))?;
            self.report(Phase::Downloading, bytes, total);
        }
        if total.is_some_and(|total| bytes < total) {
            return Err(self
                .transport
                .broken(self.target.url, &format!("the connection ended after {bytes} bytes")));
        }
        Ok(true)
    }

    /// # Errors
    ///
    /// The length differs from that of the listing, or is too large.
    fn check_size(&self, total: u64) -> Result<(), HubError> {
        if self.target.size.is_some_and(|size| size != total) {
            return Err(self.wrong_size(total));
        }
        if total > self.options.file_bytes_max {
            let problem = format!("the file has {total} bytes; allowed are {}", self.options.file_bytes_max);
            return Err(HubError::Protocol { url: self.target.name.to_owned(), problem });
        }
        Ok(())
    }

    fn wrong_size(&self, found: u64) -> HubError {
        self.discard();
        HubError::Size {
            file: self.target.name.to_owned(),
            expected: self.target.size.unwrap_or(found),
            found,
        }
    }

    fn folder(&self) -> &Path {
        self.target.part.parent().unwrap_or(Path::new("."))
    }

    fn write_error(&self, error: std::io::Error, needed: u64) -> HubError {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                HubError::Space { folder: self.folder().to_owned(), needed, free: 0 }
            }
            _ => HubError::io(self.target.part)(error),
        }
    }

    /// Verifies the content: its digest, and that models are GGUF files. Deletes invalid files.
    fn verify(&self) -> Result<(), HubError> {
        let part = self.target.part;
        let total = std::fs::metadata(part).map_err(HubError::io(part))?.len();
        if let Some(expected) = self.target.sha256 {
            self.report(Phase::Verifying, 0, Some(total));
            let progress = |bytes| self.report(Phase::Verifying, bytes, Some(total));
            let found = digest::sha256(part, &self.transport.cancel, progress)?;
            if found != expected {
                self.discard();
                let (file, expected) = (self.target.name.to_owned(), expected.to_owned());
                return Err(HubError::Digest { file, expected, found });
            }
        }
        self.check_magic()?;
        // The file must not be renamed before its bytes are durable.
        let synced = OpenOptions::new().write(true).open(part).and_then(|file| file.sync_all());
        synced.map_err(|error| self.write_error(error, total))?;
        State::remove(part);
        Ok(())
    }

    fn check_magic(&self) -> Result<(), HubError> {
        if !self.target.name.to_ascii_lowercase().ends_with(".gguf") {
            return Ok(());
        }
        let mut begin = Vec::new();
        let file = File::open(self.target.part).map_err(HubError::io(self.target.part))?;
        file.take(40).read_to_end(&mut begin).map_err(HubError::io(self.target.part))?;
        if begin.starts_with(b"GGUF") {
            return Ok(());
        }
        self.discard();
        let begin = name::printable(&String::from_utf8_lossy(&begin));
        Err(HubError::NotGguf { file: self.target.name.to_owned(), begin })
    }
}
