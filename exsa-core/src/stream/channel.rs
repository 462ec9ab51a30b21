//! The two ends of a stream: sender, blocking iterator, asynchronous stream.

use super::completion::{Collector, Completion};
use super::event::{
    AnswerFinished, Event, Finished, MalformedToolCall, PromptLogprobs, Token, ToolCallDelta,
};
use super::pipe::{EventSink, StreamHandle};
use crate::finish::{FinishReason, RequestError, Usage};
use futures_core::Stream;
use futures_core::stream::FusedStream;
use parking_lot::{Condvar, Mutex};
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A message from a stream to the engine that fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamSignal {
    /// The request was cancelled or the stream was dropped: no further events are needed.
    Cancelled,
    /// A stream that was full has room again.
    Drained,
    /// The consumer asks for the request's place in the queue; [`StreamSender::position`] answers.
    Position,
}

/// A request's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuePosition {
    /// Number of requests ahead of it, assuming no further arrivals and equal costs.
    pub ahead: usize,
    /// Estimated wait, from the recent admission rate; `None` before the first estimate.
    pub estimated_wait: Option<Duration>,
}

impl QueuePosition {
    /// A place behind `ahead` requests.
    pub fn new(ahead: usize, estimated_wait: Option<Duration>) -> Self {
        Self { ahead, estimated_wait }
    }
}

type Notify = Arc<dyn Fn(StreamSignal) + Send + Sync>;

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    finished: bool,
    full: bool,
    waker: Option<Waker>,
    /// The answer to [`StreamSignal::Position`].
    position: Option<Option<QueuePosition>>,
    /// Values dropped at the end of the request: [`TokenStream::hold`].
    held: Vec<Box<dyn Any + Send>>,
    /// Receives the events in place of the queue: [`TokenStream::pipe`].
    sink: Option<Box<dyn EventSink>>,
}

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
    answered: Condvar,
    capacity: usize,
    notify: Notify,
}

/// Creates the two ends of a stream, for implementations of [`Generator`](crate::generator::Generator).
///
/// `capacity` is the number of unread events at which the sender's methods report that the stream is full.
/// `notify` is called on the consumer's thread and must not block.
pub fn channel(
    capacity: usize,
    notify: impl Fn(StreamSignal) + Send + Sync + 'static,
) -> (StreamSender, TokenStream) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        ready: Condvar::new(),
        answered: Condvar::new(),
        capacity: capacity.max(1),
        notify: Arc::new(notify),
    });
    (StreamSender { shared: shared.clone() }, TokenStream { shared, finished: None })
}

/// The sending end of a stream. Its methods never block. Dropping it before [`finish`](Self::finish) ends the
/// stream with [`RequestError::EngineStopped`].
#[must_use = "a stream whose sender is dropped ends"]
pub struct StreamSender {
    shared: Arc<Shared>,
}

impl StreamSender {
    /// Sends a token. Returns `false` if the stream is now full: the token is kept, but the sender should
    /// send no more before [`StreamSignal::Drained`].
    pub fn token(&self, token: Token) -> bool {
        self.send(&mut vec![Event::Token(token)])
    }

    /// Like [`token`](Self::token), for a token of the reasoning.
    pub fn reasoning(&self, token: Token) -> bool {
        self.send(&mut vec![Event::Reasoning(token)])
    }

    /// Like [`token`](Self::token), for a part of a tool call.
    pub fn tool_call(&self, delta: ToolCallDelta) -> bool {
        self.send(&mut vec![Event::ToolCall(delta)])
    }

    /// Like [`token`](Self::token), for text that began like a tool call but is not a valid one.
    pub fn malformed_tool_call(&self, malformed: MalformedToolCall) -> bool {
        self.send(&mut vec![Event::MalformedToolCall(malformed)])
    }

    /// Like [`token`](Self::token), for log-probabilities of a part of the prompt.
    pub fn prompt(&self, part: PromptLogprobs) -> bool {
        self.send(&mut vec![Event::Prompt(part)])
    }

    /// Like [`token`](Self::token), for the end of one of several answers while others continue.
    pub fn answer_finished(&self, end: AnswerFinished) -> bool {
        self.send(&mut vec![Event::AnswerFinished(end)])
    }

    /// Like [`token`](Self::token), for events that belong together, such as all events of one token: an
    /// [`EventSink`] receives them in one call. Leaves `events` empty; an [`Event::Finished`] among them is
    /// dropped.
    pub fn send(&self, events: &mut Vec<Event>) -> bool {
        let mut state = self.shared.state.lock();
        events.retain(|event| !matches!(event, Event::Finished(_)));
        if !state.finished && !events.is_empty() {
            match &mut state.sink {
                Some(sink) => state.full = !sink.events(events),
                None => {
                    state.events.extend(events.drain(..));
                    // A later event must not clear the flag: the consumer would then not signal that there is
                    // room.
                    state.full |= state.events.len() >= self.shared.capacity;
                }
            }
        }
        events.clear();
        let full = state.full;
        self.wake(state);
        !full
    }

    /// Answers [`StreamSignal::Position`]; `None` if the request is no longer waiting.
    pub fn position(&self, position: Option<QueuePosition>) {
        self.shared.state.lock().position = Some(position);
        self.shared.answered.notify_all();
    }

    /// Ends the stream.
    pub fn finish(self, finished: Finished) {
        self.end(Vec::new(), finished);
    }

    /// Sends `events` and ends the stream with `finished`, which the consumer receives together.
    pub fn finish_with(self, events: Vec<Event>, finished: Finished) {
        self.end(events, finished);
    }

    fn end(&self, mut events: Vec<Event>, finished: Finished) {
        // The values are dropped before the consumer can read the end, and outside the lock, since their drop
        // code is unknown.
        let held = std::mem::take(&mut self.shared.state.lock().held);
        drop(held);
        let mut state = self.shared.state.lock();
        if state.finished {
            return;
        }
        state.finished = true;
        let held = std::mem::take(&mut state.held);
        events.retain(|event| !matches!(event, Event::Finished(_)));
        events.push(Event::Finished(finished));
        let mut sink = state.sink.take();
        match &mut sink {
            Some(sink) => _ = sink.events(&mut events),
            None => state.events.extend(events),
        }
        self.shared.answered.notify_all();
        self.wake(state);
        drop((held, sink));
    }

    fn wake(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        self.shared.ready.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        self.end(Vec::new(), Finished::new(FinishReason::Failed(RequestError::EngineStopped)));
    }
}

impl fmt::Debug for StreamSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.debug(f, "StreamSender")
    }
}

impl Shared {
    fn pop(&self, mut state: parking_lot::MutexGuard<'_, State>) -> Option<Event> {
        let event = state.events.pop_front();
        let drained = state.full && state.events.len() <= self.capacity / 2;
        if drained {
            state.full = false;
        }
        drop(state);
        if drained {
            (self.notify)(StreamSignal::Drained);
        }
        event
    }

    fn debug(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let state = self.state.lock();
        let (unread, ended) = (state.events.len(), state.finished);
        drop(state);
        f.debug_struct(name).field("unread", &unread).field("ended", &ended).finish_non_exhaustive()
    }
}

/// The events of one request, as a blocking [`Iterator`] that ends after [`Event::Finished`]. Dropping it
/// cancels the request.
///
/// ```
/// use exsa_core::scripted::ScriptedModel;
/// use exsa_core::{Engine, EngineOptions, Request};
///
/// let engine = Engine::start(ScriptedModel::echo("Hello, world.").shared(), EngineOptions::default())?;
/// let mut stream = engine.submit(Request::text("Hello"))?;
/// for piece in stream.text() {
///     print!("{}", piece?);
/// }
/// println!("\n{:?}", stream.usage());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a stream cancels its request"]
pub struct TokenStream {
    shared: Arc<Shared>,
    /// The last event, after it was read.
    finished: Option<Finished>,
}

impl TokenStream {
    /// Converts into an asynchronous stream of events.
    pub fn into_stream(self) -> EventStream {
        EventStream { stream: self }
    }

    /// Keeps `value` until the request has ended, then drops it on the thread that ends the request,
    /// independently of the consumer. For generators and servers that count requests in flight.
    pub fn hold(&self, value: impl Any + Send) {
        let mut state = self.shared.state.lock();
        if state.finished {
            drop(state);
            drop(value);
        } else {
            state.held.push(Box::new(value));
        }
    }

    /// Sends the events to `sink` from now on, starting with the unread ones. For generators that forward
    /// events. The returned handle takes the place of the consumer.
    pub fn pipe(self, mut sink: Box<dyn EventSink>) -> StreamHandle {
        let mut state = self.shared.state.lock();
        let mut waiting: Vec<_> = state.events.drain(..).collect();
        let has_room = waiting.is_empty() || sink.events(&mut waiting);
        let drained = std::mem::replace(&mut state.full, !has_room) && has_room;
        let mut ended = None;
        if state.finished {
            ended = Some(sink)
        } else {
            state.sink = Some(sink)
        }
        drop(state);
        drop(ended);
        if drained {
            (self.shared.notify)(StreamSignal::Drained);
        }
        StreamHandle::new(self)
    }

    pub(super) fn notify(&self, signal: StreamSignal) {
        (self.shared.notify)(signal);
    }

    /// How the request ended, after the last event was read.
    pub fn finished(&self) -> Option<&Finished> {
        self.finished.as_ref()
    }

    /// Tokens and times, after the last event was read.
    pub fn usage(&self) -> Option<&Usage> {
        self.finished().map(|finished| &finished.usage)
    }

    /// A handle that cancels the request from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { notify: self.shared.notify.clone() }
    }

    /// Cancels the request. The events received so far and [`Event::Finished`] can still be read.
    pub fn cancel(&self) {
        (self.shared.notify)(StreamSignal::Cancelled);
    }

    /// The next event if one is available; `None` if not, or after the last event.
    pub fn try_next(&mut self) -> Option<Event> {
        let state = self.shared.state.lock();
        let event = self.shared.pop(state);
        self.seen(event)
    }

    /// Waits at most `timeout` for the next event; `None` on timeout, or after the last event.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        let mut state = self.shared.state.lock();
        wait_while(&self.shared.ready, &mut state, timeout, |state| {
            state.events.is_empty() && !state.finished
        });
        let event = self.shared.pop(state);
        self.seen(event)
    }

    /// Asks the engine for the request's place in the queue and waits at most `timeout` for the answer, which
    /// the engine gives between two steps. `None` if the request is no longer waiting, or on timeout.
    pub fn queue_position(&self, timeout: Duration) -> Option<QueuePosition> {
        self.shared.state.lock().position = None;
        (self.shared.notify)(StreamSignal::Position);
        let mut state = self.shared.state.lock();
        wait_while(&self.shared.answered, &mut state, timeout, |state| {
            state.position.is_none() && !state.finished
        });
        state.position.flatten()
    }

    /// Blocks until the end and returns the whole answer; the first one, if there are several.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`], if the request or an answer failed.
    pub fn complete(self) -> Result<Completion, RequestError> {
        first(self.collect_blocking()?)
    }

    /// Blocks until the end and returns all answers, by index.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`], if the request or an answer failed.
    pub fn complete_all(self) -> Result<Vec<Completion>, RequestError> {
        self.collect_blocking()?.collect()
    }

    /// Like [`complete`](Self::complete), and calls `observe` for every event as it arrives.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`], if the request or an answer failed.
    pub fn complete_with(mut self, mut observe: impl FnMut(&Event)) -> Result<Completion, RequestError> {
        let mut collector = Collector::default();
        for event in &mut self {
            observe(&event);
            if let Some(finished) = collector.push(event) {
                return first(collector.finish(finished));
            }
        }
        Err(RequestError::EngineStopped)
    }

    /// Async version of [`complete`](Self::complete), for any runtime.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`], if the request or an answer failed.
    pub async fn complete_async(self) -> Result<Completion, RequestError> {
        first(self.collect_async(|_| {}).await?)
    }

    /// Async version of [`complete_all`](Self::complete_all), for any runtime.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`], if the request or an answer failed.
    pub async fn complete_all_async(self) -> Result<Vec<Completion>, RequestError> {
        self.complete_all_async_with(|_| {}).await
    }

    /// Like [`complete_all_async`](Self::complete_all_async), and calls `observe` for every event as it
    /// arrives.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`], if the request or an answer failed.
    pub async fn complete_all_async_with(
        self,
        observe: impl FnMut(&Event),
    ) -> Result<Vec<Completion>, RequestError> {
        self.collect_async(observe).await?.collect()
    }

    fn collect_blocking(self) -> Result<impl Iterator<Item = Answered>, RequestError> {
        let mut collector = Collector::default();
        for event in self {
            if let Some(finished) = collector.push(event) {
                return Ok(collector.finish(finished));
            }
        }
        Err(RequestError::EngineStopped)
    }

    async fn collect_async(
        mut self,
        mut observe: impl FnMut(&Event),
    ) -> Result<impl Iterator<Item = Answered>, RequestError> {
        let mut collector = Collector::default();
        while let Some(event) = std::future::poll_fn(|context| self.poll_event(context)).await {
            observe(&event);
            if let Some(finished) = collector.push(event) {
                return Ok(collector.finish(finished));
            }
        }
        Err(RequestError::EngineStopped)
    }

    /// Polls for the next event, like [`Stream::poll_next`]: `Ready(None)` after the last event.
    pub fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.shared.state.lock();
        if state.events.is_empty() && !state.finished {
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        let event = self.shared.pop(state);
        Poll::Ready(self.seen(event))
    }

    /// Keeps the last event.
    fn seen(&mut self, event: Option<Event>) -> Option<Event> {
        if let Some(Event::Finished(finished)) = &event {
            self.finished = Some(finished.clone());
        }
        event
    }
}

type Answered = Result<Completion, RequestError>;

fn first(mut answers: impl Iterator<Item = Answered>) -> Answered {
    answers.next().unwrap_or(Err(RequestError::EngineStopped))
}

/// Waits while `condition` holds, for at most `timeout`.
fn wait_while(
    condvar: &Condvar,
    state: &mut parking_lot::MutexGuard<'_, State>,
    timeout: Duration,
    condition: impl Fn(&State) -> bool,
) {
    // A moment too far for the clock is never.
    let until = Instant::now().checked_add(timeout);
    while condition(state) {
        match until {
            Some(until) if condvar.wait_until(state, until).timed_out() => return,
            Some(_) => {}
            None => condvar.wait(state),
        }
    }
}

impl fmt::Debug for TokenStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.debug(f, "TokenStream")
    }
}

impl Iterator for TokenStream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut state = self.shared.state.lock();
        while state.events.is_empty() && !state.finished {
            self.shared.ready.wait(&mut state);
        }
        let event = self.shared.pop(state);
        self.seen(event)
    }
}

impl FusedIterator for TokenStream {}

/// The events of one request as a [`Stream`]: [`TokenStream::into_stream`]. It ends after
/// [`Event::Finished`]; dropping it cancels the request.
#[derive(Debug)]
#[must_use = "dropping a stream cancels its request"]
pub struct EventStream {
    stream: TokenStream,
}

impl EventStream {
    /// The blocking stream, which can also cancel and tell the place in the queue.
    pub fn get_ref(&self) -> &TokenStream {
        &self.stream
    }

    /// The blocking stream, to read from.
    pub fn get_mut(&mut self) -> &mut TokenStream {
        &mut self.stream
    }

    /// The blocking stream, with the events that were not read yet.
    pub fn into_inner(self) -> TokenStream {
        self.stream
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.stream.poll_event(context)
    }
}

impl FusedStream for EventStream {
    fn is_terminated(&self) -> bool {
        self.stream.finished.is_some()
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let wanted = !state.finished;
        state.events.clear();
        drop(state);
        if wanted {
            (self.shared.notify)(StreamSignal::Cancelled);
        }
    }
}

/// Cancels a request from any thread.
#[derive(Clone)]
#[must_use = "a handle does nothing unless it is used"]
pub struct CancelHandle {
    notify: Notify,
}

impl CancelHandle {
    /// Ends the request; no effect once it has ended.
    pub fn cancel(&self) {
        (self.notify)(StreamSignal::Cancelled);
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").finish_non_exhaustive()
    }
}
