//! Threads that download the parts of a file.

use super::answer::Answer;
use super::state::State;
use super::{BUFFER_BYTES, Download, PROGRESS_BYTES_MIN};
use crate::error::HubError;
use crate::progress::Phase;
use crate::transport::{Fault, Reply};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

/// Bytes between two writes of the state.
const STATE_BYTES: u64 = 8 << 20;

/// Outcome of the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All bytes are present.
    Complete,
    /// The file has changed.
    Changed,
    /// The server no longer sends ranges.
    NoRanges,
}

/// The threads of a download.
pub(super) struct Crew<'a, 'd> {
    download: &'a Download<'d>,
    total: u64,
    shared: Mutex<Shared>,
}

struct Shared {
    queue: VecDeque<(u64, u64)>,
    state: State,
    file: File,
    /// Bytes since the last write of the state.
    unsaved: u64,
    /// Consecutive failures without progress.
    failures: u32,
    end: Option<Result<Outcome, HubError>>,
}

/// Reason why a part is incomplete.
enum Stop {
    Fault(Fault),
    Outcome(Outcome),
}

impl From<HubError> for Stop {
    fn from(error: HubError) -> Self {
        Self::Fault(error.into())
    }
}

impl<'a, 'd> Crew<'a, 'd> {
    pub(super) fn new(download: &'a Download<'d>, state: State, file: File) -> Self {
        let total = state.total;
        let queue = state.done.missing(total, download.options.segment_bytes).into();
        let shared = Shared { queue, state, file, unsaved: 0, failures: 0, end: None };
        Self { download, total, shared: Mutex::new(shared) }
    }

    /// Downloads all parts. The response for the first one has already arrived.
    pub(super) fn run(&self, first: (u64, u64), end: u64, reply: Reply) -> Result<Outcome, HubError> {
        {
            let mut shared = self.shared.lock();
            shared.queue.retain(|segment| *segment != first);
            // The state is written before the first byte, so that every byte counts.
            shared.state.write(self.download.target.part)?;
        }
        let more = self.download.options.parallel.min(self.shared.lock().queue.len() + 1) - 1;
        std::thread::scope(|scope| {
            for _ in 0..more {
                // Fewer threads are slower, but not a failure.
                let _ = std::thread::Builder::new()
                    .name("exsa-hub-part".to_owned())
                    .spawn_scoped(scope, || self.work(None));
            }
            self.work(Some((first, end, reply)));
        });
        let mut shared = self.shared.lock();
        let result = shared.end.take().unwrap_or(Ok(Outcome::Complete));
        self.save(&mut shared)?;
        result
    }

    /// Downloads parts until none is left or another thread has given up.
    fn work(&self, begun: Option<((u64, u64), u64, Reply)>) {
        let mut begun = begun;
        loop {
            let (segment, reply) = match begun.take() {
                Some((segment, end, reply)) => (segment, Some((end, reply))),
                None => {
                    let mut shared = self.shared.lock();
                    if shared.end.is_some() {
                        return;
                    }
                    let Some(segment) = shared.queue.pop_front() else { return };
                    (segment, None)
                }
            };
            let mut at = segment.0;
            let result = self.fetch(segment, reply, &mut at);
            let progressed = at - segment.0;
            let mut shared = self.shared.lock();
            if progressed >= PROGRESS_BYTES_MIN || at == segment.1 {
                shared.failures = 0;
            }
            let fault = match result {
                Ok(()) => continue,
                Err(Stop::Outcome(outcome)) => {
                    shared.end.get_or_insert(Ok(outcome));
                    return;
                }
                Err(Stop::Fault(fault)) => fault,
            };
            shared.queue.push_front((at, segment.1));
            shared.failures += 1;
            let failures = shared.failures;
            drop(shared);
            let transport = self.download.transport;
            if let Err(error) = transport.retries.wait(&transport.cancel, fault, failures) {
                self.shared.lock().end.get_or_insert(Err(error));
                return;
            }
        }
    }

    /// Downloads a part. `at` is left after the last written byte.
    fn fetch(&self, segment: (u64, u64), begun: Option<(u64, Reply)>, at: &mut u64) -> Result<(), Stop> {
        let (end, mut reply) = match begun {
            Some(begun) => begun,
            None => {
                let known = self.shared.lock().state.clone();
                match self.download.ask_once(segment, Some(&known)).map_err(Stop::Fault)? {
                    (Answer::Part { end, .. }, reply) => (end, reply),
                    (Answer::Whole { .. }, _) => return Err(Stop::Outcome(Outcome::NoRanges)),
                    (Answer::Changed, _) => return Err(Stop::Outcome(Outcome::Changed)),
                }
            }
        };
        let (transport, part) = (self.download.transport, self.download.target.part);
        let mut file = OpenOptions::new().write(true).open(part).map_err(HubError::io(part))?;
        file.seek(SeekFrom::Start(segment.0)).map_err(HubError::io(part))?;
        let mut reader = reply.response.body_mut().with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(end - segment.0).unwrap_or(BUFFER_BYTES))];
        while *at < end {
            transport.cancel.check()?;
            let length = buffer.len().min(usize::try_from(end - *at).unwrap_or(usize::MAX));
            let read = reader.read(&mut buffer[..length]);
            let n = read.map_err(|error| Stop::Fault(transport.broken(self.download.target.url, &error)))?;
            if n == 0 {
                let problem = format!("the connection ended after {at} of {} bytes", self.total);
                return Err(Stop::Fault(transport.broken(self.download.target.url, &problem)));
            }
            let written = file.write_all(&buffer[..n]);
            written.map_err(|error| self.download.write_error(error, self.total - *at))?;
            let begin = *at;
            *at += n as u64;
            if !self.record(begin, *at)? {
                // Another thread has ended the attempt.
                return Ok(());
            }
        }
        if end < segment.1 {
            // A server may send less than requested.
            return Err(Stop::Fault(
                transport.broken(self.download.target.url, &"the server sends parts of parts"),
            ));
        }
        Ok(())
    }

    /// Records written bytes. Returns whether the attempt continues.
    fn record(&self, begin: u64, end: u64) -> Result<bool, HubError> {
        let mut shared = self.shared.lock();
        shared.state.done.insert(begin, end);
        shared.unsaved += end - begin;
        if shared.unsaved >= STATE_BYTES {
            self.save(&mut shared)?;
        }
        self.download.report(Phase::Downloading, shared.state.done.bytes(), Some(self.total));
        Ok(shared.end.is_none())
    }

    fn save(&self, shared: &mut Shared) -> Result<(), HubError> {
        // Without a final digest check, the state must not be ahead of the bytes after a power failure.
        if self.download.target.sha256.is_none() {
            shared.file.sync_data().map_err(HubError::io(self.download.target.part))?;
        }
        shared.unsaved = 0;
        shared.state.write(self.download.target.part)
    }
}
