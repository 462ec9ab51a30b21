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
    /// Nobody wants the rest: cancelled, or the stream was dropped.
    Cancelled,
    /// A stream that was full has room again.
    Drained,
    /// The consumer wants to know how long the request will wait: [`StreamSender::position`] answers.
    Position,
}

/// A request's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuePosition {
    /// Requests that go before it, if nothing else arrives and all are alike.
    pub ahead: usize,
    /// How long it will wait, going by how fast the queue moved lately; `None` before it moved.
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
    /// Values to drop at the end: [`TokenStream::hold`].
    held: Vec<Box<dyn Any + Send>>,
    /// Takes the events instead of the queue: [`TokenStream::pipe`].
    sink: Option<Box<dyn EventSink>>,
}

struct Shared {
    state: Mutex<State>,
    ready: Condvar,
    answered: Condvar,
    capacity: usize,
    notify: Notify,
}

/// Makes the two ends of a stream: for implementations of [`Generator`](crate::generator::Generator).
///
/// `capacity` is the number of events that may wait unread before the sender's methods say that the stream is
/// full. `notify` is called from the consumer's thread and must not block.
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

/// The engine's end of a stream. It never waits. Dropped before [`finish`](Self::finish), it ends the stream
/// with [`RequestError::EngineStopped`].
#[must_use = "a stream whose sender is dropped ends"]
pub struct StreamSender {
    shared: Arc<Shared>,
}

impl StreamSender {
    /// Sends a token. `false` means that the stream is now full: the token is kept, but no more should come
    /// before [`StreamSignal::Drained`].
    pub fn token(&self, token: Token) -> bool {
        self.send(&mut vec![Event::Token(token)])
    }

    /// Sends a token of the reasoning; otherwise as [`token`](Self::token).
    pub fn reasoning(&self, token: Token) -> bool {
        self.send(&mut vec![Event::Reasoning(token)])
    }

    /// Sends a part of a call of a tool; otherwise as [`token`](Self::token).
    pub fn tool_call(&self, delta: ToolCallDelta) -> bool {
        self.send(&mut vec![Event::ToolCall(delta)])
    }

    /// Sends text that began like a call of a tool and is none; otherwise as [`token`](Self::token).
    pub fn malformed_tool_call(&self, malformed: MalformedToolCall) -> bool {
        self.send(&mut vec![Event::MalformedToolCall(malformed)])
    }

    /// Sends log-probabilities of a part of the prompt; otherwise as [`token`](Self::token).
    pub fn prompt(&self, part: PromptLogprobs) -> bool {
        self.send(&mut vec![Event::Prompt(part)])
    }

    /// Ends one of several answers while others go on; otherwise as [`token`](Self::token).
    pub fn answer_finished(&self, end: AnswerFinished) -> bool {
        self.send(&mut vec![Event::AnswerFinished(end)])
    }

    /// Sends events that belong together, such as all that came of one token: an [`EventSink`] gets them at
    /// once. Leaves `events` empty; an [`Event::Finished`] among them is dropped. Otherwise as
    /// [`token`](Self::token).
    pub fn send(&self, events: &mut Vec<Event>) -> bool {
        let mut state = self.shared.state.lock();
        events.retain(|event| !matches!(event, Event::Finished(_)));
        if !state.finished && !events.is_empty() {
            match &mut state.sink {
                Some(sink) => state.full = !sink.events(events),
                None => {
                    state.events.extend(events.drain(..));
                    // A late event must not clear the mark: the consumer then would not announce that there
                    // is room.
                    state.full |= state.events.len() >= self.shared.capacity;
                }
            }
        }
        events.clear();
        let full = state.full;
        self.wake(state);
        !full
    }

    /// Answers [`StreamSignal::Position`]; `None` where the request no longer waits.
    pub fn position(&self, position: Option<QueuePosition>) {
        self.shared.state.lock().position = Some(position);
        self.shared.answered.notify_all();
    }

    /// Ends the stream.
    pub fn finish(self, finished: Finished) {
        self.end(Vec::new(), finished);
    }

    /// Ends the stream with `events` that belong to its last event.
    pub fn finish_with(self, events: Vec<Event>, finished: Finished) {
        self.end(events, finished);
    }

    fn end(&self, mut events: Vec<Event>, finished: Finished) {
        // A consumer that reads the end finds these values dropped. They are
        // dropped outside the lock, since their code is not known here.
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
    /// The last event, once it was read.
    finished: Option<Finished>,
}

impl TokenStream {
    /// The events as an asynchronous stream.
    pub fn into_stream(self) -> EventStream {
        EventStream { stream: self }
    }

    /// Keeps `value` until the request has ended, then drops it on the thread that ends the request: for
    /// generators and servers that count requests in flight. The end does not depend on the consumer.
    pub fn hold(&self, value: impl Any + Send) {
        let mut state = self.shared.state.lock();
        if state.finished {
            drop(state);
            drop(value);
        } else {
            state.held.push(Box::new(value));
        }
    }

    /// Hands the events to `sink` from now on, those that wait unread first: for generators that pass events
    /// on. The handle stands for the consumer.
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

    /// How the request ended, once the last event was read.
    pub fn finished(&self) -> Option<&Finished> {
        self.finished.as_ref()
    }

    /// Tokens and times, once the last event was read.
    pub fn usage(&self) -> Option<&Usage> {
        self.finished().map(|finished| &finished.usage)
    }

    /// A handle that cancels the request from another thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { notify: self.shared.notify.clone() }
    }

    /// Ends the request; the events already here, and [`Event::Finished`], can still be read.
    pub fn cancel(&self) {
        (self.shared.notify)(StreamSignal::Cancelled);
    }

    /// The next event if one is here; `None` if not, or after the last.
    pub fn try_next(&mut self) -> Option<Event> {
        let state = self.shared.state.lock();
        let event = self.shared.pop(state);
        self.seen(event)
    }

    /// Waits for the next event for at most `timeout`; `None` if none came, or after the last.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        let mut state = self.shared.state.lock();
        wait_while(&self.shared.ready, &mut state, timeout, |state| {
            state.events.is_empty() && !state.finished
        });
        let event = self.shared.pop(state);
        self.seen(event)
    }

    /// Asks where the request stands in the queue, and waits for the answer for at most `timeout`: the engine
    /// gives it between two steps. `None` where the request no longer waits, or no answer came.
    pub fn queue_position(&self, timeout: Duration) -> Option<QueuePosition> {
        self.shared.state.lock().position = None;
        (self.shared.notify)(StreamSignal::Position);
        let mut state = self.shared.state.lock();
        wait_while(&self.shared.answered, &mut state, timeout, |state| {
            state.position.is_none() && !state.finished
        });
        state.position.flatten()
    }

    /// Reads to the end: the whole answer, or the error that the request failed with. Of several answers, the
    /// first.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`].
    pub fn complete(self) -> Result<Completion, RequestError> {
        first(self.collect_blocking()?)
    }

    /// Reads to the end: all answers by index, or the error that the request or an answer failed with.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`].
    pub fn complete_all(self) -> Result<Vec<Completion>, RequestError> {
        self.collect_blocking()?.collect()
    }

    /// As [`complete`](Self::complete); `observe` sees every event as it comes.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`].
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

    /// [`complete`](Self::complete) for asynchronous programs, on any runtime.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`].
    pub async fn complete_async(self) -> Result<Completion, RequestError> {
        first(self.collect_async(|_| {}).await?)
    }

    /// [`complete_all`](Self::complete_all) for asynchronous programs, on any runtime.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`].
    pub async fn complete_all_async(self) -> Result<Vec<Completion>, RequestError> {
        self.complete_all_async_with(|_| {}).await
    }

    /// As [`complete_all_async`](Self::complete_all_async); `observe` sees every event as it comes.
    ///
    /// # Errors
    ///
    /// The error of [`FinishReason::Failed`].
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

    /// The next event, as [`Stream::poll_next`] gives it: `Ready(None)` after the last.
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
