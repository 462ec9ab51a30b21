//! Protocol messages.

use super::bounded::Bounded;
use super::embed::{WireEmbedOutput, WireScores};
use super::event::{EVENTS_MAX, WireEvent};
use crate::sandbox::SandboxReport;
use exsa_core::Mode;
use exsa_core::queue::FairOptions;
use exsa_core::stats::EngineStats;
use serde::{Deserialize, Serialize};

/// Magic number of the protocol: "exsa", little-endian.
const MAGIC: u32 = u32::from_le_bytes(*b"exsa");
/// Protocol version. It must be equal on both sides, since messages are not self-describing.
const VERSION: u32 = 2;

/// First message in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    magic: u32,
    version: u32,
    /// Process id of the sender.
    pub pid: u32,
}

impl Hello {
    /// Creates the greeting of this process.
    pub fn new() -> Self {
        Self { magic: MAGIC, version: VERSION, pid: std::process::id() }
    }

    /// Refuses another magic number or version.
    ///
    /// # Errors
    ///
    /// [`FrameError::Content`](super::FrameError::Content) with the magic number or version of the peer.
    pub fn check(&self) -> Result<(), super::FrameError> {
        match (self.magic, self.version) {
            (MAGIC, VERSION) => Ok(()),
            (MAGIC, version) => Err(super::FrameError::Content(format!(
                "the peer has version {version} of the protocol, and this process {VERSION}"
            ))),
            (magic, _) => Err(super::FrameError::Content(format!(
                "the peer begins with {magic:#010x}, and not with this protocol's {MAGIC:#010x}"
            ))),
        }
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self::new()
    }
}

/// Messages from the host. Texts named `request` and `setup` are JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Always the first.
    Hello(Hello),
    /// Always the second: a [`Setup`](crate::Setup).
    Setup(String),
    /// A generation request. Ids increase, not necessarily by one; none is reused.
    Submit {
        /// Id of the request.
        id: u64,
        /// The request.
        request: String,
    },
    /// An embedding request.
    Embed {
        /// Id of the request.
        id: u64,
        /// The request.
        request: String,
    },
    /// A reranking request.
    Rerank {
        /// Id of the request.
        id: u64,
        /// The request.
        request: String,
    },
    /// Cancels a request. It still ends with its last event.
    Cancel {
        /// Id of the request.
        id: u64,
    },
    /// The consumer does not read: no more events should be sent before [`Drained`](Self::Drained).
    Pause {
        /// Id of the request.
        id: u64,
    },
    /// The consumer has drained its stream.
    Drained {
        /// Id of the request.
        id: u64,
    },
    /// Queries the queue position.
    Position {
        /// Id of the request.
        id: u64,
    },
    /// Changes the mode.
    Mode(Mode),
    /// Changes the fairness settings.
    Fair(FairOptions),
    /// The worker accepts no more requests and exits: immediately, or when its requests are done.
    Stop {
        /// Whether requests are cancelled.
        abort: bool,
    },
}

/// Messages from the worker. Texts named `info` and `error` are JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "heartbeats are frequent, and not stored in lists")]
pub enum FromWorker {
    /// Always the first.
    Hello(Hello),
    /// The isolation level reached, sent before the model is loaded.
    Sandboxed(SandboxReport),
    /// The engine accepts requests from now on.
    Ready {
        /// An [`EngineInfo`](exsa_core::EngineInfo).
        info: String,
    },
    /// Loading failed; there will be no engine.
    LoadFailed {
        /// The error as text.
        reason: String,
    },
    /// A group of events.
    Events {
        /// Id of the request.
        id: u64,
        /// The events in order.
        events: Bounded<WireEvent, EVENTS_MAX>,
    },
    /// The engine refused a generation request, which thereby ends.
    Refused {
        /// Id of the request.
        id: u64,
        /// An [`ErrorReport`](exsa_core::ErrorReport).
        error: String,
    },
    /// An embedding request ended.
    Embedded {
        /// Id of the request.
        id: u64,
        /// Embeddings, or the error.
        output: WireEmbedOutput,
    },
    /// A reranking request ended.
    Scored {
        /// Id of the request.
        id: u64,
        /// Scores, or the error.
        output: WireScores,
    },
    /// The queue position of a request.
    Position {
        /// Id of the request.
        id: u64,
        /// Requests ahead of it; `None` if it is not waiting.
        ahead: Option<u64>,
        /// Estimated wait in milliseconds.
        wait_ms: Option<u64>,
    },
    /// A heartbeat.
    Beat(Beat),
}

/// Heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Bytes of the model loaded.
    pub loaded: u64,
    /// Bytes of the model.
    pub to_load: u64,
    /// Requests received so far.
    pub received: u64,
    /// Requests in the engine.
    pub in_engine: u64,
    /// Requests being parsed and tokenized.
    pub preparing: u64,
    /// Forward passes completed.
    pub steps: u64,
    /// Microseconds since the last progress of an engine with computable requests; 0 if there are none.
    pub idle_us: u64,
    /// The engine's counters.
    pub stats: EngineStats,
}
