//! Stream thread: sends a request, retries it if that is safe, and reads its answer.

use crate::client::{Client, Timers, error_message};
use crate::dialect::{Protocol, Reader, Update};
use crate::error::{RemoteError, is_temporary};
use crate::options::RemoteOptions;
use crate::sse::{SseEvent, SseParser};
use crate::stream::answer::Flow;
use crate::stream::control::Control;
use crate::stream::queue::{Job, Queue};
use exsa_core::FinishReason;
use parking_lot::Mutex;
use serde_json::Value;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Body;
use ureq::http::Response;

/// Time to wait for the token counts after the end of an answer.
const GRACE: Duration = Duration::from_millis(500);

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;

/// State shared by all streams of an engine.
pub(crate) struct Runner {
    pub(crate) client: Client,
    pub(crate) protocol: Box<dyn Protocol>,
    pub(crate) options: RemoteOptions,
    pub(crate) timers: Timers,
    pub(crate) queue: Mutex<Queue>,
}

/// State of reading one response.
struct Reading<'a> {
    job: &'a Job,
    reader: Box<dyn Reader>,
    /// The finish reason, once the engine has ended the answer.
    ended: Option<FinishReason>,
}

/// Next action after an event.
enum Next {
    Read,
    /// The response is complete.
    Done,
    /// The answer has ended, and the rest of the response is not needed.
    Leave,
}

impl Runner {
    /// Serves `job`, then waiting requests, until none is left.
    pub(crate) fn serve(&self, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next {
            self.serve_one(&job);
            let mut queue = self.queue.lock();
            next = queue.pop();
            if next.is_none() {
                queue.running -= 1;
            }
        }
    }

    fn serve_one(&self, job: &Job) {
        let started = Instant::now();
        job.control.with(|answer| {
            answer.started = Some(started);
            answer.stats.lock().queue_time.record(started - answer.submitted);
        });
        let mut delay = self.options.retry_delay;
        for attempt in 0.. {
            let Err(error) = self.attempt(job) else { return };
            let Some(fresh) = job.control.with(|answer| answer.is_fresh()) else { return };
            let wait = error.retry_after().unwrap_or(delay);
            let again = fresh && error.is_temporary() && attempt < self.options.retries;
            if !again || wait > self.options.retry_delay_max {
                let error = if fresh { error } else { in_mid_stream(error) };
                job.control.end(FinishReason::Failed(error.into()));
                return;
            }
            if !job.control.sleep(wait) {
                return;
            }
            delay = delay.saturating_mul(2).min(self.options.retry_delay_max);
        }
    }

    /// Sends the request once. Returns `Ok` if the request has ended.
    fn attempt(&self, job: &Job) -> Result<(), RemoteError> {
        let agent = self.client.agent();
        if !job.control.attach(&agent) {
            return Ok(());
        }
        let mut sent = false;
        let result = self.client.post(&agent, &job.wire).and_then(|response| {
            sent = true;
            self.read(job, response)
        });
        job.control.detach();
        match result {
            Ok(true) => {
                self.client.keep(agent);
                Ok(())
            }
            // The answer ended locally, before the engine ended it.
            Ok(false) => {
                agent.shutdown();
                self.abort(job);
                Ok(())
            }
            Err(_) if job.control.has_ended() => {
                agent.shutdown();
                if sent {
                    self.abort(job);
                }
                Ok(())
            }
            Err(error) => {
                agent.shutdown();
                Err(error)
            }
        }
    }

    /// Aborts the rest of an answer at the engine. A failure does not matter, since closing the connection
    /// has the same effect.
    fn abort(&self, job: &Job) {
        if let Some(wire) = self.protocol.abort(&job.id) {
            let _ = self.client.call(&wire);
        }
    }

    /// Reads the answer. Returns `Ok` if the request has ended: whether the response was read to its end.
    fn read(&self, job: &Job, response: Response<Body>) -> Result<bool, RemoteError> {
        let response = self.expect_events(response)?;
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut reading = Reading { job, reader: job.reader.fresh(), ended: None };
        let mut parser = SseParser::new(self.options.response_bytes_max);
        let (mut buffer, mut events) = (vec![0; READ_BYTES], Vec::new());
        self.watch(&job.control);
        loop {
            job.control.touch();
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(_) if reading.ended.is_some() => {
                    reading.finish(None);
                    return Ok(false);
                }
                Err(error) => return Err(RemoteError::Connection(error.to_string())),
            };
            let too_large = |error: crate::sse::SseTooLarge| RemoteError::Protocol(error.to_string());
            match n {
                0 => parser.finish(&mut events).map_err(too_large)?,
                n => parser.push(&buffer[..n], &mut events).map_err(too_large)?,
            }
            for event in events.drain(..) {
                match self.event(&mut reading, &event)? {
                    Next::Read => {}
                    Next::Leave => return Ok(false),
                    Next::Done => {
                        reading.finish(Some(FinishReason::EndOfGeneration));
                        // Reads the end of the body, so that the connection can be reused.
                        self.disconnect_soon(&job.control);
                        return Ok(matches!(body.read(&mut buffer), Ok(0)));
                    }
                }
            }
            if n == 0 {
                if reading.ended.is_none() && !reading.reader.ends_silently() {
                    let problem = "the engine closed it before the answer's end".to_owned();
                    return Err(RemoteError::Connection(problem));
                }
                reading.finish(Some(FinishReason::EndOfGeneration));
                return Ok(true);
            }
        }
    }

    /// Refuses a response that is not an event stream.
    fn expect_events(&self, mut response: Response<Body>) -> Result<Response<Body>, RemoteError> {
        let form = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let form = form.unwrap_or_default().to_ascii_lowercase();
        if form.starts_with("text/event-stream") {
            return Ok(response);
        }
        let limit = (self.options.response_bytes_max as u64).min(64 << 10);
        let body = response.body_mut().with_config().limit(limit).lossy_utf8(true).read_to_string();
        let message = error_message(&body.unwrap_or_default());
        Err(RemoteError::Protocol(format!("'{form}' instead of an event stream: {message}")))
    }

    fn event(&self, reading: &mut Reading<'_>, event: &SseEvent) -> Result<Next, RemoteError> {
        if event.data.trim() == "[DONE]" {
            return Ok(Next::Done);
        }
        let value: Value = serde_json::from_str(&event.data)
            .map_err(|error| RemoteError::Protocol(format!("an event that is not JSON: {error}")))?;
        let is_error = value.get("error").is_some_and(|error| !error.is_null())
            || value.get("object").and_then(Value::as_str) == Some("error")
            || event.event == "error";
        if is_error {
            return Err(reported(&value, error_message(&event.data)));
        }
        let update = reading.reader.read(&value)?;
        let control = &reading.job.control;
        if reading.ended.is_some() {
            let usage = Update { usage: update.usage, ..Update::default() };
            return Ok(control.with(|answer| answer.take(usage)).map_or(Next::Leave, |_| Next::Read));
        }
        control.mark_full();
        match control.with(|answer| answer.take(update)) {
            None => Ok(Next::Leave),
            Some(Flow::Continue) => {
                control.drained();
                Ok(Next::Read)
            }
            Some(Flow::Full) => Ok(if control.wait_for_room() { Next::Read } else { Next::Leave }),
            Some(Flow::Cut(reason)) => {
                control.end(reason);
                Ok(Next::Leave)
            }
            Some(Flow::Ended(reason)) => {
                control.drained();
                reading.ended = Some(reason);
                self.disconnect_soon(control);
                Ok(Next::Read)
            }
        }
    }

    /// Closes the connection after the grace time.
    fn disconnect_soon(&self, control: &Arc<Control>) {
        let weak = Arc::downgrade(control);
        let disconnect = move || {
            if let Some(control) = weak.upgrade() {
                control.disconnect();
            }
            None
        };
        self.timers.set(Instant::now() + GRACE, Box::new(disconnect));
    }

    /// Ends the request if the engine sends nothing for too long.
    fn watch(&self, control: &Arc<Control>) {
        let (limit, weak) = (self.options.idle_timeout, Arc::downgrade(control));
        let Some(first) = Instant::now().checked_add(limit) else { return };
        let check = move || {
            let control = weak.upgrade()?;
            let idle = control.idle()?;
            if idle >= limit {
                control.end(FinishReason::Failed(RemoteError::IdleTimeout(limit).into()));
                return None;
            }
            Some(Instant::now() + (limit - idle))
        };
        self.timers.set(first, Box::new(check));
    }
}

impl Reading<'_> {
    /// Ends the request, with `default` if the engine gave no reason.
    fn finish(&mut self, default: Option<FinishReason>) {
        if let Some(reason) = self.ended.take().or(default) {
            self.job.control.end_kept(reason);
        }
    }
}

/// Converts an error that the engine reports in mid-stream. A router whose worker was lost reports it with
/// the code of a status.
fn reported(value: &Value, message: String) -> RemoteError {
    let code = value["error"]["code"].as_u64().or_else(|| value["code"].as_u64());
    let code = code.and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
    match is_temporary(code) {
        true => RemoteError::Status { status: code, message, retry_after: None },
        false => RemoteError::Engine(message),
    }
}

/// Converts a connection failure after the first token.
fn in_mid_stream(error: RemoteError) -> RemoteError {
    match error {
        RemoteError::Connection(problem) => RemoteError::Lost(problem),
        RemoteError::Status { .. } if error.is_temporary() => RemoteError::Lost(error.to_string()),
        other => other,
    }
}
