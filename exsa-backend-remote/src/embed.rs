//! Embeddings and scores of documents.

use crate::capabilities::Capabilities;
use crate::dialect::{WireRequest, unsupported};
use crate::error::RemoteError;
use crate::stream::Runner;
use exsa_core::embed::{
    EmbedError, EmbedInput, EmbedOutput, EmbedRequest, Pending, PendingSender, RerankOutput, RerankRequest,
    Truncate, pending,
};
use exsa_core::finish::Usage;
use exsa_core::stats::EngineStats;
use exsa_core::{RequestError, SubmitError};
use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use ureq::Agent;

const STACK_BYTES: usize = 512 << 10;

/// Embedding and reranking requests, each on its own thread.
pub(crate) struct Embedder {
    runner: Arc<Runner>,
    capabilities: Capabilities,
    model: String,
    stats: Arc<Mutex<EngineStats>>,
    open: Mutex<Vec<Weak<Canceller>>>,
    in_flight: Arc<AtomicUsize>,
}

/// The connection of a request; ending the request closes it.
#[derive(Default)]
struct Canceller {
    state: Mutex<Cancelled>,
    cancelled: Condvar,
}

#[derive(Default)]
struct Cancelled {
    by: Option<EmbedError>,
    agent: Option<Agent>,
}

impl Canceller {
    fn cancel(&self, error: EmbedError) {
        let mut state = self.state.lock();
        state.by.get_or_insert(error);
        if let Some(agent) = state.agent.take() {
            agent.shutdown();
        }
        drop(state);
        self.cancelled.notify_all();
    }

    /// Waits for `delay`, or until the request is cancelled.
    fn sleep(&self, delay: Duration) {
        let until = Instant::now() + delay;
        let mut state = self.state.lock();
        while state.by.is_none() && !self.cancelled.wait_until(&mut state, until).timed_out() {}
    }

    /// Sets the connection; fails if the request was cancelled.
    fn attach(&self, agent: &Agent) -> Result<(), EmbedError> {
        let mut state = self.state.lock();
        match &state.by {
            Some(error) => Err(error.clone()),
            None => {
                state.agent = Some(agent.clone());
                Ok(())
            }
        }
    }

    fn detach(&self) -> Option<EmbedError> {
        let mut state = self.state.lock();
        state.agent = None;
        state.by.clone()
    }
}

impl Embedder {
    pub(crate) fn new(
        runner: Arc<Runner>,
        capabilities: Capabilities,
        model: String,
        stats: Arc<Mutex<EngineStats>>,
    ) -> Self {
        let (open, in_flight) = (Mutex::default(), Arc::default());
        Self { runner, capabilities, model, stats, open, in_flight }
    }

    pub(crate) fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        let engine = self.capabilities.dialect.name();
        if !self.capabilities.embeddings {
            return Err(unsupported("embed", format!("{engine} does not support embeddings")));
        }
        if request.truncate != Truncate::Refuse {
            return Err(unsupported("truncate", "a remote engine refuses texts that do not fit"));
        }
        if !request.normalize {
            return Err(unsupported("normalize", format!("vectors of {engine} are normalized")));
        }
        if request.dimensions == Some(0) {
            let problem = "0, but at least 1 is required".to_owned();
            return Err(SubmitError::Option { option: "dimensions", problem });
        }
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(self.model));
        body.insert("input".to_owned(), inputs(&request.inputs)?);
        body.insert("encoding_format".to_owned(), json!("float"));
        let (count, dimensions) = (request.inputs.len(), request.dimensions);
        let wire = WireRequest::new("/v1/embeddings", body.into());
        self.run(wire, request.timeout, count, move |value| {
            let vectors = vectors(value, count)?;
            let vectors =
                vectors.into_iter().map(|vector| shape(vector, dimensions)).collect::<Result<_, _>>()?;
            Ok(EmbedOutput::new(vectors, usage(value)))
        })
    }

    pub(crate) fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        let engine = self.capabilities.dialect.name();
        if !self.capabilities.rerank {
            return Err(unsupported("rerank", format!("{engine} does not support reranking")));
        }
        if request.truncate != Truncate::Refuse {
            return Err(unsupported("truncate", "a remote engine refuses texts that do not fit"));
        }
        let count = request.documents.len();
        let body = json!({ "model": self.model, "query": request.query, "documents": request.documents });
        let wire = WireRequest::new("/v1/rerank", body);
        self.run(wire, request.timeout, count, move |value| {
            let scores = scores(value, count)?;
            Ok(RerankOutput::new(scores.into_iter().map(Ok), usage(value)))
        })
    }

    fn run<T: Send + 'static>(
        &self,
        wire: WireRequest,
        timeout: Option<Duration>,
        texts: usize,
        read: impl FnOnce(&Value) -> Result<T, EmbedError> + Send + 'static,
    ) -> Result<Pending<T>, SubmitError> {
        let canceller = Arc::<Canceller>::default();
        let of_consumer = canceller.clone();
        let (sender, output) = pending(move || of_consumer.cancel(EmbedError::Cancelled));
        if let Some(at) = timeout.and_then(|timeout| Instant::now().checked_add(timeout)) {
            let weak = Arc::downgrade(&canceller);
            let alarm = move || {
                weak.upgrade()?.cancel(EmbedError::Deadline);
                None
            };
            self.runner.timers.set(at, Box::new(alarm));
        }
        let mut open = self.open.lock();
        open.retain(|canceller| canceller.strong_count() > 0);
        open.push(Arc::downgrade(&canceller));
        drop(open);
        let (runner, stats, in_flight) = (self.runner.clone(), self.stats.clone(), self.in_flight.clone());
        let limit = runner.options.in_flight_max;
        if in_flight.fetch_add(1, Ordering::Relaxed) >= limit {
            in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(SubmitError::Generator(format!(
                "{limit} requests for vectors or scores are in flight"
            )));
        }
        let of_thread = in_flight.clone();
        let work = move || {
            let result = call(&runner, &canceller, &wire).and_then(|value| read(&value));
            let mut stats = stats.lock();
            stats.embed_passes += 1;
            stats.texts_embedded += if result.is_ok() { texts as u64 } else { 0 };
            drop(stats);
            of_thread.fetch_sub(1, Ordering::Relaxed);
            send(sender, result);
        };
        let thread = std::thread::Builder::new().name("exsa-remote".to_owned()).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(work) {
            in_flight.fetch_sub(1, Ordering::Relaxed);
            return Err(SubmitError::Generator(format!("no thread for the request: {error}")));
        }
        Ok(output)
    }

    /// Cancels all requests.
    pub(crate) fn close(&self) {
        for canceller in self.open.lock().drain(..).filter_map(|canceller| canceller.upgrade()) {
            canceller.cancel(EmbedError::Cancelled);
        }
    }
}

fn send<T>(sender: PendingSender<T>, result: Result<T, EmbedError>) {
    sender.send(result);
}

/// Sends the request, and retries while the engine refuses temporarily.
fn call(runner: &Runner, canceller: &Canceller, wire: &WireRequest) -> Result<Value, EmbedError> {
    let mut delay = runner.options.retry_delay;
    let mut attempt = 0;
    loop {
        let agent = runner.client.agent();
        canceller.attach(&agent)?;
        let result = runner.client.call_with(&agent, wire);
        if let Some(error) = canceller.detach() {
            return Err(error);
        }
        match result {
            Ok(value) => {
                runner.client.keep(agent);
                return Ok(value);
            }
            Err(error) => {
                let wait = error.retry_after().unwrap_or(delay);
                let again = error.is_temporary() && attempt < runner.options.retries;
                if !again || wait > runner.options.retry_delay_max {
                    return Err(RequestError::from(error).into());
                }
                canceller.sleep(wait);
                attempt += 1;
                delay = delay.saturating_mul(2).min(runner.options.retry_delay_max);
            }
        }
    }
}

/// Returns the texts or the token id lists; no server accepts both in one request.
fn inputs(inputs: &[EmbedInput]) -> Result<Value, SubmitError> {
    let is_text = |input: &EmbedInput| matches!(input, EmbedInput::Text(_));
    if inputs.iter().any(is_text) && !inputs.iter().all(is_text) {
        return Err(unsupported("input", "a request has texts or lists of token ids, not both"));
    }
    let value = |(index, input): (usize, &EmbedInput)| match input {
        EmbedInput::Text(text) if !text.is_empty() => Ok(json!(text)),
        EmbedInput::Tokens(ids) if !ids.is_empty() => Ok(json!(ids)),
        _ => Err(SubmitError::EmptyText { index }),
    };
    inputs.iter().enumerate().map(value).collect()
}

fn unexpected(problem: impl Into<String>) -> EmbedError {
    EmbedError::Failed(RemoteError::Protocol(problem.into()).into())
}

/// Returns the items of a list sorted by `index`, one per input.
fn by_index(list: &Value, count: usize) -> Result<Vec<&Value>, EmbedError> {
    let items = list.as_array().ok_or_else(|| unexpected("no list of results"))?;
    if items.len() != count {
        return Err(unexpected(format!("{} results for {count} inputs", items.len())));
    }
    let mut sorted = vec![None; count];
    for (position, item) in items.iter().enumerate() {
        let index = item["index"].as_u64().map_or(Some(position), |index| usize::try_from(index).ok());
        match index.and_then(|index| sorted.get_mut(index)) {
            Some(place @ None) => *place = Some(item),
            _ => return Err(unexpected(format!("index {} of {count} results", item["index"]))),
        }
    }
    Ok(sorted.into_iter().flatten().collect())
}

type Vector = Result<Vec<f32>, RequestError>;

fn vectors(value: &Value, count: usize) -> Result<Vec<Vec<f32>>, EmbedError> {
    let items = by_index(&value["data"], count)?;
    let vector = |item: &Value| {
        let numbers =
            item["embedding"].as_array().ok_or_else(|| unexpected("a result without an embedding"))?;
        let number = |number: &Value| number.as_f64().map(|number| number as f32);
        numbers
            .iter()
            .map(|it| number(it).ok_or_else(|| unexpected("an embedding with values that are not numbers")))
            .collect()
    };
    items.into_iter().map(vector).collect()
}

/// Truncates the vector to `dimensions` and normalizes it.
fn shape(mut vector: Vec<f32>, dimensions: Option<usize>) -> Result<Vector, EmbedError> {
    if let Some(asked) = dimensions {
        if asked > vector.len() {
            return Err(EmbedError::Dimensions { asked, width: vector.len() });
        }
        vector.truncate(asked);
    }
    if let Some((index, value)) = vector.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        return Ok(Err(RequestError::NotFinite { result: "vector", index, value: *value }));
    }
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
    Ok(Ok(vector))
}

fn scores(value: &Value, count: usize) -> Result<Vec<f32>, EmbedError> {
    // SGLang returns only the list.
    let list = if value.is_array() { value } else { &value["results"] };
    let score = |item: &Value| {
        let score = item["relevance_score"].as_f64().or_else(|| item["score"].as_f64());
        score.map(|score| score as f32).ok_or_else(|| unexpected("a result without a score"))
    };
    by_index(list, count)?.into_iter().map(score).collect()
}

fn usage(value: &Value) -> Usage {
    let usage = &value["usage"];
    let tokens = usage["prompt_tokens"].as_u64().or_else(|| usage["total_tokens"].as_u64());
    Usage::new(tokens.and_then(|tokens| usize::try_from(tokens).ok()).unwrap_or_default(), 0)
}
