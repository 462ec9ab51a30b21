//! Prefix cache events over ZeroMQ, for routers that send requests to the server with their cached prefix.
//!
//! The sockets speak ZMTP 3.0 and the messages are vLLM's: topic, sequence number, and MessagePack. Both are
//! small enough to be implemented here, with limits against hostile peers.

mod hub;
mod kv_events;
mod msgpack;
mod payload;
mod peer;
mod replay;
mod subscriber;
#[cfg(test)]
mod tests;
mod watch;
mod zmtp;

#[cfg(feature = "grpc")]
pub(crate) use kv_events::Source;
pub use kv_events::{KvEvents, KvEventsError};
pub use peer::read_peer;
