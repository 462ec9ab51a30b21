//! Messages.

use super::bounded::Bounded;
use super::embed::{WireEmbedOutput, WireScores};
use super::event::{EVENTS_MAX, WireEvent};
use crate::sandbox::SandboxReport;
use exsa_core::Mode;
use exsa_core::queue::FairOptions;
use exsa_core::stats::EngineStats;
use serde::{Deserialize, Serialize};

/// Marks the protocol: "exsa", little-endian.
const MAGIC: u32 = u32::from_le_bytes(*b"exsa");
/// Version of the protocol. Both sides have the same, since a message has no self-description.
const VERSION: u32 = 2;

/// First message of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    magic: u32,
    version: u32,
    /// Id of the sender's process.
    pub pid: u32,
}

impl Hello {
    /// That of this process.
    pub fn new() -> Self {
        Self { magic: MAGIC, version: VERSION, pid: std::process::id() }
    }

    /// Refuses another protocol or version.
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

/// Messages of the host. Texts named `request` and `setup` are JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Always the first.
    Hello(Hello),
    /// Always the second: a [`Setup`](crate::Setup).
    Setup(String),
    /// A request for text. Ids rise by any step; none is used twice.
    Submit {
        /// Id of the request.
        id: u64,
        /// The request.
        request: String,
    },
    /// A request for vectors.
    Embed {
        /// Id of the request.
        id: u64,
        /// The request.
        request: String,
    },
    /// A request for scores.
    Rerank {
        /// Id of the request.
        id: u64,
        /// The request.
        request: String,
    },
    /// The request is no longer wanted. It still ends with its last event.
    Cancel {
        /// Id of the request.
        id: u64,
    },
    /// The consumer does not read: no more events should come before [`Drained`](Self::Drained).
    Pause {
        /// Id of the request.
        id: u64,
    },
    /// The consumer reads again.
    Drained {
        /// Id of the request.
        id: u64,
    },
    /// Asks for the place in the queue.
    Position {
        /// Id of the request.
        id: u64,
    },
    /// Changes the mode.
    Mode(Mode),
    /// Changes the settings of fairness.
    Fair(FairOptions),
    /// The worker takes no more requests and ends: at once, or when those that it has are done.
    Stop {
        /// Whether requests are cancelled.
        abort: bool,
    },
}

/// Messages of the worker. Texts named `info` and `error` are JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "heartbeats are frequent, and not stored in lists")]
pub enum FromWorker {
    /// Always the first.
    Hello(Hello),
    /// The level of isolation reached, before the model is loaded.
    Sandboxed(SandboxReport),
    /// The engine takes requests from now on.
    Ready {
        /// An [`EngineInfo`](exsa_core::EngineInfo).
        info: String,
    },
    /// There will be no engine.
    LoadFailed {
        /// The error in words.
        reason: String,
    },
    /// A group of events of a stream.
    Events {
        /// Id of the request.
        id: u64,
        /// The events, in their order.
        events: Bounded<WireEvent, EVENTS_MAX>,
    },
    /// The engine refused a request for text, which thereby ends.
    Refused {
        /// Id of the request.
        id: u64,
        /// An [`ErrorReport`](exsa_core::ErrorReport).
        error: String,
    },
    /// A request for vectors ended.
    Embedded {
        /// Id of the request.
        id: u64,
        /// Vectors, or the error.
        output: WireEmbedOutput,
    },
    /// A request for scores ended.
    Scored {
        /// Id of the request.
        id: u64,
        /// Scores, or the error.
        output: WireScores,
    },
    /// The place in the queue of a request.
    Position {
        /// Id of the request.
        id: u64,
        /// Requests before it; `None` if it does not wait.
        ahead: Option<u64>,
        /// Estimated wait in milliseconds.
        wait_ms: Option<u64>,
    },
    /// A heartbeat.
    Beat(Beat),
}

/// A sign of life.
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
    /// Passes done.
    pub steps: u64,
    /// Microseconds since the engine, with requests that it could compute, did anything; 0 without such.
    pub idle_us: u64,
    /// The engine's counters.
    pub stats: EngineStats,
}
