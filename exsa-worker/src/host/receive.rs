//! Receiver thread of a worker's messages.

use super::connection::Connection;
use crate::frame::{Beat, FrameError, FrameReader, FromWorker};
use crate::sandbox::SandboxReport;
use crate::transport::Receiver;
use exsa_core::EngineInfo;
use std::sync::Arc;

/// A lifecycle step of a worker process, for its supervisor.
#[derive(Debug)]
pub(super) enum Step {
    /// The level of isolation.
    Sandboxed(SandboxReport),
    /// The engine is ready; the reply is the connection.
    Ready(Box<EngineInfo>),
    /// The engine has stopped by itself, and the connection accepts no more requests.
    EngineEnded,
    /// Loading failed.
    LoadFailed(String),
    /// The connection has ended, with the protocol violation if there was one. Always the last step.
    Ended(Option<String>),
}

/// Receives messages until the end. `beat` takes heartbeats, `report` all other steps; for [`Step::Ready`] it
/// returns the connection, which gets all further messages.
pub(super) fn receive(
    receiver: Receiver,
    beat: impl Fn(Box<Beat>),
    report: impl Fn(Step) -> Option<Arc<Connection>>,
) {
    let violation = match messages(receiver, &beat, &report) {
        Err(error) if error.is_violation() => Some(error.to_string()),
        _ => None,
    };
    report(Step::Ended(violation));
}

fn messages(
    receiver: Receiver,
    beat: &impl Fn(Box<Beat>),
    report: &impl Fn(Step) -> Option<Arc<Connection>>,
) -> Result<(), FrameError> {
    let mut reader = FrameReader::new(receiver);
    match reader.read()? {
        Some(FromWorker::Hello(hello)) => hello.check()?,
        Some(_) => return Err(FrameError::Content("the worker does not greet".into())),
        None => return Ok(()),
    }
    let mut connection: Option<Arc<Connection>> = None;
    // Each step of the start occurs once.
    let (mut sandboxed, mut failed) = (false, false);
    let once = |told: &mut bool| match std::mem::replace(told, true) {
        true => Err(FrameError::Content("a step of the start is told twice".into())),
        false => Ok(()),
    };
    while let Some(message) = reader.read()? {
        match (message, &connection) {
            (FromWorker::Beat(new), _) => beat(Box::new(new)),
            (message, Some(connection)) => {
                if connection.deliver(message)? {
                    report(Step::EngineEnded);
                }
            }
            (FromWorker::Sandboxed(level), None) => {
                once(&mut sandboxed)?;
                report(Step::Sandboxed(level));
            }
            (FromWorker::LoadFailed { reason }, None) => {
                once(&mut failed)?;
                report(Step::LoadFailed(reason));
            }
            (FromWorker::Ready { info }, None) => {
                let info = serde_json::from_str(&info)
                    .map_err(|error| FrameError::Content(format!("the engine's facts: {error}")))?;
                match report(Step::Ready(Box::new(info))) {
                    Some(ready) => connection = Some(ready),
                    // The supervisor rejects the process, and ends it.
                    None => return Ok(()),
                }
            }
            (_, None) => {
                return Err(FrameError::Content("a message about a request before the start".into()));
            }
        }
    }
    Ok(())
}
