//! Open requests of a worker.

use crate::frame::{FrameError, StreamRules, ToWorker, WireEvent};
use crate::output::Output;
use exsa_core::FinishReason;
use exsa_core::RequestError;
use exsa_core::embed::{EmbedOutput, PendingSender, RerankOutput};
use exsa_core::stream::{Finished, QueuePosition, StreamSender, StreamSignal};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Events that a worker may still send after a pause or a cancel, enough for several steps: a worker that
/// ignores both must not fill the host's memory.
const UNWANTED_MAX: u64 = 1 << 16;

/// An open request.
#[derive(Debug)]
pub(super) enum Open {
    Stream(Box<OpenStream>),
    Embed(OpenEmbed),
    Rerank(OpenRerank),
}

impl Open {
    /// Fails the request.
    pub(super) fn fail(&self, error: RequestError) {
        match self {
            Self::Stream(stream) => stream.end(Finished::new(FinishReason::Failed(error))),
            Self::Embed(embed) => {
                let sender = embed.sender.lock().take();
                sender.into_iter().for_each(|sender| sender.send(Err(error.clone().into())));
            }
            Self::Rerank(rerank) => {
                let sender = rerank.sender.lock().take();
                sender.into_iter().for_each(|sender| sender.send(Err(error.clone().into())));
            }
        }
    }

    /// Maximum tokens that the next pass may compute for it.
    pub(super) fn prompt_tokens(&self) -> u64 {
        match self {
            Self::Stream(stream) if stream.began.load(Ordering::Relaxed) => 0,
            Self::Stream(stream) => stream.prompt_tokens,
            // Their texts fit a frame, and their passes a batch.
            Self::Embed(_) | Self::Rerank(_) => u64::MAX,
        }
    }
}

/// An open generation request.
#[derive(Debug)]
pub(super) struct OpenStream {
    pub(super) sender: Mutex<Option<StreamSender>>,
    pub(super) rules: StreamRules,
    pub(super) prompt_tokens: u64,
    pub(super) began: AtomicBool,
    pub(super) flow: Arc<Flow>,
}

impl OpenStream {
    /// Delivers a group of events. Returns whether the stream has ended; `heed` is called with its end before
    /// the consumer sees it.
    pub(super) fn deliver(
        &self,
        events: Vec<WireEvent>,
        heed: impl FnOnce(&Finished),
    ) -> Result<bool, FrameError> {
        let n = events.len() as u64;
        let (mut events, ended) = self.rules.check(events)?;
        self.began.store(true, Ordering::Relaxed);
        let mut place = self.sender.lock();
        if ended {
            let (sender, finished) = (place.take(), events.pop());
            drop(place);
            if let (Some(sender), Some(exsa_core::Event::Finished(finished))) = (sender, finished) {
                heed(&finished);
                sender.finish_with(events, finished);
            }
            return Ok(true);
        }
        let drains = self.flow.drains.load(Ordering::SeqCst);
        let has_room = place.as_ref().is_none_or(|sender| sender.send(&mut events));
        drop(place);
        self.flow.delivered(n, has_room, drains)?;
        Ok(false)
    }

    pub(super) fn end(&self, finished: Finished) {
        let sender = self.sender.lock().take();
        sender.into_iter().for_each(|sender| sender.finish(finished.clone()));
    }

    pub(super) fn position(&self, position: Option<QueuePosition>) {
        if let Some(sender) = &*self.sender.lock() {
            sender.position(position);
        }
    }
}

/// Flow control of a stream: forwards signals of the consumer to the worker.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) id: u64,
    pub(super) output: Arc<Output>,
    /// Number of times that the consumer drained a full stream.
    drains: AtomicU64,
    /// Whether the worker was asked to pause.
    paused: AtomicBool,
    cancelled: AtomicBool,
    /// Events since the pause or the cancel.
    unwanted: AtomicU64,
}

impl Flow {
    pub(super) fn new(id: u64, output: Arc<Output>) -> Self {
        Self {
            id,
            output,
            drains: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            unwanted: AtomicU64::new(0),
        }
    }

    /// Forwards a signal of the consumer, without blocking.
    pub(super) fn signal(&self, signal: StreamSignal) {
        let id = self.id;
        // Short messages cannot be too long.
        let _ = match signal {
            StreamSignal::Cancelled => {
                self.cancelled.store(true, Ordering::Relaxed);
                self.output.send(&ToWorker::Cancel { id })
            }
            StreamSignal::Drained => {
                self.drains.fetch_add(1, Ordering::SeqCst);
                self.paused.store(false, Ordering::SeqCst);
                self.output.send(&ToWorker::Drained { id })
            }
            StreamSignal::Position => self.output.send(&ToWorker::Position { id }),
            _ => Ok(()),
        };
    }

    /// Records the delivery of `n` events; `has_room` is the state of the stream afterwards, `drains` the
    /// count before.
    fn delivered(&self, n: u64, has_room: bool, drains: u64) -> Result<(), FrameError> {
        let unwanted = self.cancelled.load(Ordering::Relaxed) || self.paused.load(Ordering::SeqCst);
        if !unwanted {
            self.unwanted.store(0, Ordering::Relaxed);
        } else if self.unwanted.fetch_add(n, Ordering::Relaxed) > UNWANTED_MAX {
            let problem =
                format!("more than {UNWANTED_MAX} events of request {} after a pause or a cancel", self.id);
            return Err(FrameError::Content(problem));
        }
        let id = self.id;
        if has_room {
            // An event in flight found room: the stream no longer counts as full, and its consumer sends no
            // further signal.
            if self.paused.swap(false, Ordering::SeqCst) {
                let _ = self.output.send(&ToWorker::Drained { id });
            }
            return Ok(());
        }
        if self.paused.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let _ = self.output.send(&ToWorker::Pause { id });
        // The consumer may have drained the stream before the pause was recorded, so its signal came too
        // early.
        if self.drains.load(Ordering::SeqCst) != drains {
            self.paused.store(false, Ordering::SeqCst);
            let _ = self.output.send(&ToWorker::Drained { id });
        }
        Ok(())
    }
}

/// An open embedding request.
#[derive(Debug)]
pub(super) struct OpenEmbed {
    pub(super) sender: Mutex<Option<PendingSender<EmbedOutput>>>,
    pub(super) texts: usize,
}

/// An open reranking request.
#[derive(Debug)]
pub(super) struct OpenRerank {
    pub(super) sender: Mutex<Option<PendingSender<RerankOutput>>>,
    pub(super) texts: usize,
}
