//! The handle of an audit log.

use super::config::{AuditConfig, OnError};
use super::destination::Destination;
use super::folder::{DiskFolder, Folder};
use super::log::{Fsync, Log, LogOptions};
use super::record::{Act, Record};
use super::writer::{CheckpointTimes, Message, Writer};
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::SystemTime;
use tokio::sync::oneshot;

/// State shared by the writer and the handles.
#[derive(Debug)]
pub(super) struct Shared {
    /// Free slots in the queue.
    free: AtomicUsize,
    /// Lines for which there was no slot.
    pub(super) lost: AtomicU64,
    /// All lines that were lost.
    lost_total: AtomicU64,
    /// Stable lines.
    pub(super) lines: AtomicU64,
    /// Checkpoints that a second place refused.
    pub(super) unsent: AtomicU64,
    /// Failed writes.
    pub(super) failures: AtomicU64,
    /// The failure, while the log cannot be written.
    pub(super) broken: Mutex<Option<Arc<str>>>,
}

/// A slot in the queue; dropping it frees the slot.
#[derive(Debug)]
pub(super) struct Slot(Option<Arc<Shared>>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Self {
        let taken = shared.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        Self(taken.is_ok().then(|| shared.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.free.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// An audit log. Clones share the log.
#[derive(Clone)]
pub struct AuditLog {
    sender: Sender<Message>,
    shared: Arc<Shared>,
    on_error: OnError,
    contents: Option<usize>,
    syncs: bool,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl AuditLog {
    /// Opens the configured log, repairs the end of its last file, and records the start of the server.
    /// `None` without a folder.
    ///
    /// # Errors
    ///
    /// The configuration is invalid, a file or key cannot be read, or another process is writing the log.
    pub fn open(config: &AuditConfig) -> Result<Option<Self>, AuditError> {
        let Some(path) = &config.folder else { return Ok(None) };
        config
            .check()
            .map_err(|(setting, problem)| AuditError(format!("audit.{setting}: {problem}").into()))?;
        let at = |error: io::Error| AuditError(format!("audit log {}: {error}", path.display()).into());
        let key = config.checkpoint.read_key()?;
        let destinations = config.checkpoint.destinations()?;
        Self::start(DiskFolder::open(path).map_err(at)?, config, key, destinations).map(Some).map_err(at)
    }

    /// Opens a log in `folder` and starts its writer.
    pub(super) fn start(
        folder: impl Folder,
        config: &AuditConfig,
        key: Option<super::SigningKey>,
        destinations: Vec<Destination>,
    ) -> io::Result<Self> {
        let options = LogOptions {
            fsync: config.fsync,
            rotate_bytes: config.rotate_bytes,
            rotate_age: config.rotate_age,
            pending_max: config.pending_max,
            name: config.name.clone(),
            key,
        };
        let now = SystemTime::now();
        let (mut log, repairs) = Log::open(folder, options, now)?;
        for record in repairs {
            log.push(&record, now);
        }
        log.push(&Record::new(Act::Start).detail(concat!("exsa-server ", env!("CARGO_PKG_VERSION"))), now);
        log.write(now)?;
        log.sync()?;
        let shared = Arc::new(Shared {
            free: AtomicUsize::new(config.queue),
            lost: AtomicU64::new(0),
            lost_total: AtomicU64::new(0),
            lines: AtomicU64::new(log.count()),
            unsent: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            broken: Mutex::new(None),
        });
        let (sender, receiver) = channel();
        let times = CheckpointTimes { lines: config.checkpoint.lines, interval: config.checkpoint.interval };
        let writer = Writer::new(log, config.fsync, times, destinations, shared.clone(), receiver);
        let writer = thread::Builder::new().name("exsa-audit".into()).spawn(|| writer.run())?;
        Ok(Self {
            sender,
            shared,
            on_error: config.on_error,
            contents: config.content.then_some(config.content_bytes_max),
            syncs: config.fsync == Fsync::Every,
            writer: Arc::new(Mutex::new(Some(writer))),
        })
    }

    /// Takes a slot in the queue for a line that is written when the work has ended.
    ///
    /// # Errors
    ///
    /// The log cannot be written or its queue is full, and the configuration refuses work in that case.
    pub fn admit(&self) -> Result<Place, AuditError> {
        let slot = Slot::take(&self.shared);
        if self.on_error == OnError::Refuse {
            if let Some(failure) = &*self.shared.broken.lock() {
                return Err(AuditError::broken(failure));
            }
            if slot.0.is_none() {
                return Err(AuditError("the queue of the audit log is full".into()));
            }
        }
        Ok(Place { log: self.clone(), slot })
    }

    /// Writes a line. The ticket can be awaited, or dropped.
    pub fn append(&self, record: Record) -> Ticket {
        let place = Place { log: self.clone(), slot: Slot::take(&self.shared) };
        place.append(record)
    }

    /// Returns whether every line is synced before it counts as stable.
    pub fn syncs_every_line(&self) -> bool {
        self.syncs
    }

    /// Maximum bytes of a prompt or an answer in a line; `None` if contents are not logged.
    pub fn contents(&self) -> Option<usize> {
        self.contents
    }

    /// The failure, while the log cannot be written.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.broken.lock().clone()
    }

    /// Counters.
    pub fn stats(&self) -> AuditStats {
        AuditStats {
            lines: self.shared.lines.load(Ordering::Acquire),
            lines_dropped: self.shared.lost_total.load(Ordering::Relaxed),
            write_failures: self.shared.failures.load(Ordering::Relaxed),
            checkpoints_unsent: self.shared.unsent.load(Ordering::Relaxed),
            failed: self.shared.broken.lock().is_some(),
        }
    }

    /// Records the stop of the server with a checkpoint, and waits until all lines are stable. Later lines
    /// are lost.
    pub fn close(&self) {
        let Some(writer) = self.writer.lock().take() else { return };
        // An error means that the writer has exited.
        drop(self.sender.send(Message::Close));
        if writer.join().is_err() {
            tracing::error!("the writer of the audit log panicked");
        }
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A slot in the queue of a log, for one line.
#[derive(Debug)]
pub struct Place {
    log: AuditLog,
    slot: Slot,
}

impl Place {
    /// Writes the line. Without a slot it is counted as dropped.
    pub fn append(self, record: Record) -> Ticket {
        let (sender, receiver) = oneshot::channel();
        let shared = &self.log.shared;
        if self.slot.0.is_none()
            || self.log.sender.send(Message::Line(Box::new(record), sender, self.slot)).is_err()
        {
            shared.lost.fetch_add(1, Ordering::AcqRel);
            shared.lost_total.fetch_add(1, Ordering::Relaxed);
        }
        Ticket(receiver)
    }
}

/// A pending line. It resolves once the line is stable: synced, or written if nothing is synced.
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Result<(), AuditError>>);

impl Ticket {
    /// Blocks until the line is stable.
    ///
    /// # Errors
    ///
    /// The line is not stable. It is written later if possible.
    pub fn wait(mut self) -> Result<(), AuditError> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// Wakes a thread that waits for its line.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for Ticket {
    type Output = Result<(), AuditError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|sent| sent.unwrap_or_else(|_| Err(AuditError::dropped())))
    }
}

/// Counters of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditStats {
    /// Stable lines since the log began.
    pub lines: u64,
    /// Lines for which the queue had no slot.
    pub lines_dropped: u64,
    /// Failed writes since the log was opened. Their lines are retried.
    pub write_failures: u64,
    /// Checkpoints that a second place refused.
    pub checkpoints_unsent: u64,
    /// Whether the log is currently failing.
    pub failed: bool,
}

/// A failure of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AuditError(pub(super) Arc<str>);

impl AuditError {
    pub(super) fn broken(failure: &str) -> Self {
        Self(format!("the audit log cannot be written: {failure}").into())
    }

    pub(super) fn dropped() -> Self {
        Self("the line of the audit log was dropped".into())
    }
}
