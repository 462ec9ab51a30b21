//! Writer thread, which owns the log and takes lines from a bounded queue.

use super::checkpoint::SignedCheckpoint;
use super::destination::Destination;
use super::folder::Folder;
use super::handle::{AuditError, Shared, Slot};
use super::log::{Fsync, Log};
use super::record::{Act, Record};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// Maximum lines per sync.
const BATCH_MAX: usize = 1024;
/// Interval between attempts to write a failed log.
const RETRY: Duration = Duration::from_secs(1);
/// Maximum sleep of the writer.
const IDLE: Duration = Duration::from_secs(3600);

/// A message to the writer.
#[derive(Debug)]
pub(super) enum Message {
    Line(Box<Record>, oneshot::Sender<Result<(), AuditError>>, Slot),
    Close,
}

/// Schedule of checkpoints.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckpointTimes {
    /// Lines between checkpoints.
    pub(super) lines: u64,
    /// Time after which a checkpoint is due if there were lines.
    pub(super) interval: Duration,
}

/// The writer's state.
pub(super) struct Writer<F: Folder> {
    log: Log<F>,
    fsync: Fsync,
    times: CheckpointTimes,
    destinations: Vec<Destination>,
    shared: Arc<Shared>,
    receiver: Receiver<Message>,
    /// Senders that wait until their lines are stable.
    waiting: Vec<oneshot::Sender<Result<(), AuditError>>>,
    /// Time at which the first unstable line was written.
    unstable_since: Option<Instant>,
    /// Time of the next attempt after a failure.
    retry: Option<Instant>,
    checkpointed: (u64, Instant),
    /// A checkpoint that was not yet written to the second places.
    unsent: Option<SignedCheckpoint>,
}

impl<F: Folder> Writer<F> {
    pub(super) fn new(
        log: Log<F>,
        fsync: Fsync,
        times: CheckpointTimes,
        destinations: Vec<Destination>,
        shared: Arc<Shared>,
        receiver: Receiver<Message>,
    ) -> Self {
        let checkpointed = (log.count(), Instant::now());
        Self {
            log,
            fsync,
            times,
            destinations,
            shared,
            receiver,
            waiting: Vec::new(),
            unstable_since: None,
            retry: None,
            checkpointed,
            unsent: None,
        }
    }

    /// Writes lines until all senders are dropped or one of them closes the log.
    pub(super) fn run(mut self) {
        loop {
            let first = self.receiver.recv_timeout(self.sleep(Instant::now()));
            let mut closing = matches!(first, Err(RecvTimeoutError::Disconnected));
            let first = first.ok();
            let mut slots = Vec::new();
            let more = std::iter::from_fn(|| self.receiver.try_recv().ok()).take(BATCH_MAX);
            for message in first.into_iter().chain(more) {
                match message {
                    Message::Close => closing = true,
                    Message::Line(record, sender, slot) => {
                        slots.push(slot);
                        match self.log.push(&record, SystemTime::now()) {
                            true => self.waiting.push(sender),
                            false => drop(sender.send(Err(AuditError::dropped()))),
                        }
                    }
                }
            }
            if closing {
                self.log.push(&Record::new(Act::Stop), SystemTime::now());
                self.retry = None;
            }
            self.turn(closing);
            // The slots in the queue are free once the log has taken the lines.
            drop(slots);
            if closing {
                return;
            }
        }
    }

    /// Returns the time until something is due.
    fn sleep(&self, now: Instant) -> Duration {
        let retry = self.retry;
        let sync = match self.fsync {
            Fsync::Interval(interval) if retry.is_none() => self.unstable_since.map(|since| since + interval),
            _ => None,
        };
        let lines = self.log.count() > self.checkpointed.0;
        let checkpoint = (lines && retry.is_none()).then(|| self.checkpointed.1 + self.times.interval);
        let due = [retry, sync, checkpoint].into_iter().flatten().min();
        due.map_or(IDLE, |due| due.saturating_duration_since(now)).min(IDLE)
    }

    fn turn(&mut self, closing: bool) {
        let now = Instant::now();
        self.log.drop_lines(self.shared.lost.swap(0, Ordering::AcqRel));
        if self.retry.is_some_and(|retry| now < retry) {
            return self.fail();
        }
        let (lines, time) = self.checkpointed;
        let since = self.log.count() - lines;
        if since >= self.times.lines || (since > 0 && (closing || now - time >= self.times.interval)) {
            if let Some(checkpoint) = self.log.checkpoint(SystemTime::now()) {
                self.unsent = Some(checkpoint);
            }
            self.checkpointed = (self.log.count(), now);
        }
        match self.write(now, closing) {
            Ok(()) => self.succeed(now),
            Err(failure) => {
                if self.retry.is_none() {
                    error!("the audit log cannot be written: {failure}");
                }
                self.retry = Some(now + RETRY);
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                *self.shared.broken.lock() = Some(failure.to_string().into());
                self.fail();
            }
        }
    }

    fn write(&mut self, now: Instant, closing: bool) -> std::io::Result<()> {
        self.log.write(SystemTime::now())?;
        let due = match self.fsync {
            Fsync::Interval(interval) => self.unstable_since.is_some_and(|since| now - since >= interval),
            _ => false,
        };
        // A checkpoint in a second place must never name lines that a crash can undo.
        if due || closing || self.unsent.is_some() || self.retry.is_some() {
            self.log.sync()?;
        }
        Ok(())
    }

    fn succeed(&mut self, now: Instant) {
        if self.retry.take().is_some() {
            info!("the audit log can be written again");
            *self.shared.broken.lock() = None;
        }
        if !self.log.is_stable() {
            self.unstable_since.get_or_insert(now);
            return;
        }
        self.unstable_since = None;
        self.shared.lines.store(self.log.count(), Ordering::Release);
        for sender in self.waiting.drain(..) {
            // The sender may or may not wait for the line.
            drop(sender.send(Ok(())));
        }
        let Some(checkpoint) = self.unsent.take() else { return };
        let line = serde_json::to_string(&checkpoint).unwrap_or_default();
        for destination in &mut self.destinations {
            if let Err(failure) = destination.write(&line) {
                self.shared.unsent.fetch_add(1, Ordering::Relaxed);
                warn!("checkpoint {} cannot be written to {destination:?}: {failure}", checkpoint.count);
            }
        }
    }

    /// Reports to waiting senders that their lines are not stable. The lines are retried.
    fn fail(&mut self) {
        let error = self.shared.broken.lock().clone();
        for sender in self.waiting.drain(..) {
            drop(sender.send(Err(AuditError::broken(error.as_deref().unwrap_or_default()))));
        }
    }
}
