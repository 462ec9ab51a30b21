//! [`RemoteEngine`], the generator of a remote engine.

use crate::capabilities::Capabilities;
use crate::client::{Client, Timers};
use crate::dialect::{
    Call, Dialect, Reader, WirePrompt, WireRequest, check_common, probe, protocol, unsupported,
};
use crate::embed::Embedder;
use crate::error::ConnectError;
use crate::options::RemoteOptions;
use crate::stream::{Answer, Control, Job, Queue, Runner};
use exsa_core::chat::Rendered;
use exsa_core::embed::{EmbedOutput, EmbedRequest, Pending, RerankOutput, RerankRequest};
use exsa_core::engine::{AnswerDecoder, EncodedPrompt, PromptEncoder};
use exsa_core::generator::QueueScope;
use exsa_core::model_info::ModelInfo;
use exsa_core::request::Prompt;
use exsa_core::sampler::{Mirostat, SamplerContext, TransformKind};
use exsa_core::stats::EngineStats;
use exsa_core::stream::{QueuePosition, StreamSender, StreamSignal, TokenStream, channel};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Continuation, Continued, FinishReason, Generator, Request, SubmitError, TokenId};
use parking_lot::Mutex;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Stack size of a stream's thread. Most of it is for TLS.
const STACK_BYTES: usize = 512 << 10;

/// Vocabulary size assumed for validating settings if the tokenizer is unknown.
const N_VOCAB_UNKNOWN: usize = 1 << 20;

/// A remote engine as a [`Generator`] of one model.
///
/// Dropping it cancels its requests.
pub struct RemoteEngine {
    runner: Arc<Runner>,
    capabilities: Capabilities,
    info: Arc<ModelInfo>,
    /// The engine's name of the model.
    model: String,
    encoder: Option<PromptEncoder>,
    stats: Arc<Mutex<EngineStats>>,
    /// Requests that have not ended.
    open: Mutex<Vec<Weak<Control>>>,
    ids: AtomicU64,
    seeds: RandomState,
    embedder: Arc<Embedder>,
}

/// A validated request.
struct Prepared {
    wire: WireRequest,
    reader: Box<dyn Reader>,
    /// Id of the request at the engine.
    id: String,
    decoder: AnswerDecoder,
    /// The finish reason, if the tokens of a resumed answer already end it.
    ended: Option<FinishReason>,
    by_ids: bool,
    prompt_tokens: Option<usize>,
    seed: u64,
}

/// Tokens of the answer that were generated before.
fn resumed(request: &Request) -> &[TokenId] {
    request.resume.as_ref().map_or(&[], |resume| &resume.tokens)
}

impl RemoteEngine {
    /// Connects to the engine: detects its protocol, unless it is given, and reads its models.
    ///
    /// # Errors
    ///
    /// An option is invalid, the engine cannot be reached, or it does not serve the model.
    pub fn connect(options: RemoteOptions) -> Result<Self, ConnectError> {
        if options.in_flight_max == 0 {
            let problem = "it is 0; at least 1 request is sent at a time".to_owned();
            return Err(ConnectError::Option { option: "in_flight_max", problem });
        }
        let client = Client::new(&options)?;
        let failed = |error| ConnectError::Engine { url: client.base().to_owned(), error };
        let (dialect, mut served) = probe(&client, options.dialect).map_err(failed)?;
        let model = match (&options.model, served.models.first()) {
            (Some(model), Some(_)) if !served.models.contains(model) => {
                let (model, available) = (model.clone(), served.models);
                return Err(ConnectError::UnknownModel { model, available });
            }
            (Some(model), _) | (None, Some(model)) => model.clone(),
            (None, None) => {
                let problem = "the engine lists no models; state the model's name".to_owned();
                return Err(ConnectError::Option { option: "model", problem });
            }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if dialect == Dialect::Triton && !model.chars().all(plain) {
            let problem = format!("'{model}' is no name of a model of Triton");
            return Err(ConnectError::Option { option: "model", problem });
        }
        served.models = vec![model.clone()];
        let protocol = protocol(dialect, &served);
        let mut capabilities = protocol.capabilities();
        capabilities.positional_seeds = options.positional_seeds;
        let (mut info, encoder) = match &options.tokenizer {
            Some(source) => {
                let (info, encoder) = crate::tokenizer::load(source)?;
                (info, Some(encoder))
            }
            None => (ModelInfo::default(), None),
        };
        info.name = model.clone();
        info.n_ctx = options.context_tokens.or(served.context).unwrap_or(info.n_ctx);
        let no_thread = |error: std::io::Error| {
            let problem = format!("the thread of the timers: {error}");
            ConnectError::Option { option: "connect", problem }
        };
        let timers = Timers::start().map_err(no_thread)?;
        let stats = Arc::<Mutex<EngineStats>>::default();
        let queue = Mutex::new(Queue::default());
        let runner = Arc::new(Runner { client, protocol, options, timers, queue });
        let embedder = Embedder::new(runner.clone(), capabilities.clone(), model.clone(), stats.clone());
        Ok(Self {
            runner,
            capabilities,
            info: Arc::new(info),
            model,
            encoder,
            stats,
            open: Mutex::default(),
            ids: AtomicU64::new(0),
            seeds: RandomState::new(),
            embedder: Arc::new(embedder),
        })
    }

    /// Capabilities of the engine.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The options.
    pub fn options(&self) -> &RemoteOptions {
        &self.runner.options
    }

    /// Model information, as far as it is known.
    pub fn model(&self) -> &ModelInfo {
        &self.info
    }

    fn check_model(&self, model: Option<&str>) -> Result<(), SubmitError> {
        match model {
            Some(model) if model != self.model => {
                let available = vec![self.model.clone()];
                Err(SubmitError::UnknownModel { model: model.to_owned(), available })
            }
            _ => Ok(()),
        }
    }

    fn encoder(&self, operation: &'static str) -> Result<&PromptEncoder, SubmitError> {
        let reason = "the model's tokenizer is not known here; see RemoteOptions::tokenizer";
        self.encoder.as_ref().ok_or_else(|| unsupported(operation, reason))
    }

    /// Returns whether prompts are sent as locally tokenized ids.
    fn sends_ids(&self) -> bool {
        self.encoder.is_some() && self.capabilities.ids_in
    }

    fn check_limits(&self, request: &Request, prompt: &[TokenId]) -> Result<(), SubmitError> {
        if request.max_tokens == Some(0) {
            return Err(SubmitError::NoTokens);
        }
        if !(0.001..=1000.0).contains(&request.weight) {
            return Err(SubmitError::Weight(request.weight));
        }
        let n_vocab = self.encoder.as_ref().map_or(N_VOCAB_UNKNOWN, |encoder| encoder.tokenizer().n_vocab());
        if let Some(&token) =
            prompt.iter().chain(&request.stop_tokens).find(|token| **token as usize >= n_vocab)
        {
            return Err(SubmitError::InvalidToken { token, n_vocab });
        }
        let context = SamplerContext::new(n_vocab);
        match &self.encoder {
            Some(encoder) => {
                request.sampling.build(&context.with_tokenizer(&**encoder.tokenizer()))?;
            }
            None => {
                // DRY's breakers are looked up in a vocabulary, which is unknown here.
                let mut sampling = request.sampling.clone();
                sampling.order.retain(|kind| *kind != TransformKind::Dry);
                sampling.build(&context)?;
            }
        }
        Ok(())
    }

    /// Returns the prompt as it is sent, and its token ids if they are computed locally.
    fn prompt(&self, request: &Request) -> Result<(WirePrompt, Option<EncodedPrompt>), SubmitError> {
        let Some(encoder) = self.encoder.as_ref().filter(|_| self.sends_ids()) else {
            let empty = match &request.prompt {
                Prompt::Text(text) => text.is_empty(),
                Prompt::Tokens(ids) => ids.is_empty(),
                Prompt::Chat(messages) => messages.is_empty(),
                _ => false,
            };
            return if empty { Err(SubmitError::EmptyPrompt) } else { Ok((WirePrompt::AsGiven, None)) };
        };
        let encoded = encoder.encode(request)?;
        if encoded.tokens.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let mut ids = encoded.tokens.clone();
        ids.extend(resumed(request));
        // An answer that fills the context has ended; a longer one is an error.
        let resumes = usize::from(ids.len() > encoded.tokens.len());
        match self.info.n_ctx.checked_sub(1) {
            Some(limit) if ids.len() > limit + resumes => {
                Err(SubmitError::PromptTooLong { tokens: ids.len(), limit, what: "the context" })
            }
            _ => Ok((WirePrompt::Tokens(ids), Some(encoded))),
        }
    }

    /// Returns the request with its seed, and with limits and end tokens as the engine needs them.
    fn wire_request(&self, request: &Request, sent_tokens: Option<usize>, seed: u64) -> Request {
        let mut wire = request.clone();
        let before = resumed(request).len();
        wire.resume = None;
        wire.sampling.seed = Some(seed);
        let before_u32 = u32::try_from(before).unwrap_or(u32::MAX);
        wire.sampling.min_tokens = wire.sampling.min_tokens.saturating_sub(before_u32);
        wire.max_tokens = wire.max_tokens.map(|max| max.saturating_sub(before).max(1));
        if let (None, Some(tokens), true) = (wire.max_tokens, sent_tokens, self.info.n_ctx > 0) {
            wire.max_tokens = Some(self.info.n_ctx.saturating_sub(tokens).max(1));
        }
        if let Some(encoder) = &self.encoder {
            let ends = &encoder.tokenizer().special().end_of_generation;
            if wire.ignore_eos {
                // The engine would continue after such a token, which the in-process engine never draws.
                wire.sampling.logit_bias.retain(|(token, _)| ends.binary_search(token).is_err());
                wire.sampling.logit_bias.extend(ends.iter().map(|end| (*end, f32::NEG_INFINITY)));
            } else if self.sends_ids() {
                wire.stop_tokens.extend(ends.iter().filter(|end| !request.stop_tokens.contains(*end)));
            }
        }
        wire
    }

    fn decoder(
        &self,
        request: &Request,
        encoded: Option<&EncodedPrompt>,
        seed: u64,
    ) -> Result<AnswerDecoder, SubmitError> {
        match (&self.encoder, encoded) {
            (Some(encoder), Some(encoded)) => encoder.decoder(request, encoded, seed),
            _ => AnswerDecoder::of_text(request),
        }
    }

    /// Returns how a continued answer relates to the uninterrupted one.
    ///
    /// # Errors
    ///
    /// The reason why the request cannot be continued.
    pub fn continued(&self, request: &Request) -> Result<Continued, SubmitError> {
        let sampling = &request.sampling;
        let refused = |reason: &str| Err(unsupported("resume", reason));
        if !self.sends_ids() || !self.capabilities.ids_complete {
            return refused("it needs token ids in and out, and the model's tokenizer here");
        }
        if request.constraint.is_some() {
            return refused("the engine would restart the grammar");
        }
        if sampling.mirostat != Mirostat::Off || sampling.adaptive_target.is_some() {
            return refused("the engine would restart mirostat or adaptive-p");
        }
        let penalized = sampling.order.contains(&TransformKind::Penalties) && !self.options().approximate;
        let additive = sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0;
        if penalized && additive && !self.capabilities.penalties_continue {
            return refused("the engine's frequency and presence penalties would restart");
        }
        if penalized && sampling.repetition_penalty != 1.0 && !self.capabilities.repetition_continues {
            return refused("the engine's repetition penalty would restart");
        }
        Ok(self.continuation(None).continued)
    }

    /// Validates a request and prepares the data to send.
    fn prepare(&self, request: &Request) -> Result<Prepared, SubmitError> {
        self.check_model(request.model.as_deref())?;
        if !resumed(request).is_empty() {
            self.continued(request)?;
        }
        let (prompt, encoded) = self.prompt(request)?;
        let ids = match &prompt {
            WirePrompt::Tokens(ids) => ids,
            WirePrompt::AsGiven => &Vec::new(),
        };
        self.check_limits(request, ids)?;
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        // 31 bits, which every engine accepts.
        let seed = request.sampling.seed.unwrap_or_else(|| self.seeds.hash_one(number) >> 33);
        let prompt_tokens = match (&encoded, &request.prompt) {
            (Some(encoded), _) => Some(encoded.tokens.len()),
            (None, Prompt::Tokens(ids)) => Some(ids.len()),
            _ => None,
        };
        let sent_tokens = prompt_tokens.map(|tokens| tokens + resumed(request).len());
        let wire = self.wire_request(request, sent_tokens, seed);
        let id = format!("exsa-{:016x}-{number}", self.seeds.hash_one("id"));
        let options = &self.runner.options;
        let call = Call {
            id: &id,
            model: &self.model,
            request: &wire,
            prompt: &prompt,
            context: self.info.n_ctx,
            has_own_stop_tokens: !request.stop_tokens.is_empty(),
            prompt_tokens,
            options,
        };
        check_common(&call, &self.capabilities)?;
        let call = Call { model: call.adapter(&self.capabilities).unwrap_or(call.model), ..call };
        let body = self.runner.protocol.request(&call)?;
        let reader = self.runner.protocol.reader(&call);
        let mut decoder = self.decoder(request, encoded.as_ref(), seed)?;
        let is_full = self.info.n_ctx > 0 && sent_tokens.is_some_and(|tokens| tokens >= self.info.n_ctx);
        let ended = decoder.replay(resumed(request)).or(is_full.then_some(FinishReason::ContextFull));
        let by_ids = encoded.is_some() && self.capabilities.ids_complete;
        Ok(Prepared { wire: body, reader, id, decoder, ended, by_ids, prompt_tokens, seed })
    }

    /// Creates the answer of a request.
    fn answer(&self, request: &Request, prepared: Prepared, sender: StreamSender) -> Answer {
        let tokenizer = self.encoder.as_ref().map(|encoder| encoder.tokenizer().clone());
        Answer {
            sender,
            decoder: prepared.decoder,
            by_ids: prepared.by_ids,
            verify: tokenizer.filter(|_| !self.capabilities.ids_complete),
            prompt_tokens: prepared.prompt_tokens,
            has_token_limit: request.max_tokens.is_some(),
            seed: prepared.seed,
            submitted: Instant::now(),
            elapsed: request.resume.as_ref().map_or(Duration::ZERO, |resume| resume.elapsed),
            started: None,
            first: None,
            last: None,
            resumed: resumed(request).len(),
            usage: Default::default(),
            stats: self.stats.clone(),
        }
    }

    fn open_stream(&self, request: &Request, mut prepared: Prepared) -> Result<TokenStream, SubmitError> {
        let mut queue = self.runner.queue.lock();
        if queue.closed {
            return Err(SubmitError::ShuttingDown);
        }
        let starts = queue.running < self.runner.options.in_flight_max;
        if !starts {
            queue.purge();
            let depths = queue.depths();
            let (waiting, limit) = (depths.iter().sum(), self.runner.options.queue_max);
            if waiting >= limit {
                return Err(SubmitError::QueueFull {
                    ahead: depths[..=request.priority.index()].iter().sum(),
                    waiting,
                    limit,
                    scope: QueueScope::All,
                    priority: request.priority,
                    class_depth: depths[request.priority.index()],
                    estimated_wait: None,
                });
            }
        }
        let (link, runner) = (Arc::new(Mutex::new(Weak::<Control>::new())), Arc::downgrade(&self.runner));
        let of_signals = link.clone();
        let (sender, stream) = channel(self.runner.options.stream_events_max, move |signal| {
            let Some(control) = of_signals.lock().upgrade() else { return };
            match signal {
                StreamSignal::Drained => control.drained(),
                StreamSignal::Cancelled => {
                    control.end(FinishReason::Cancelled);
                    if let Some(runner) = runner.upgrade() {
                        runner.queue.lock().purge();
                    }
                }
                StreamSignal::Position => {
                    let ahead = runner.upgrade().and_then(|runner| runner.queue.lock().ahead(&control));
                    control.position(ahead.map(|ahead| QueuePosition::new(ahead, None)));
                }
                _ => {}
            }
        });
        let (wire, id) = (std::mem::take(&mut prepared.wire), std::mem::take(&mut prepared.id));
        let (reader, ended) = (prepared.reader.fresh(), prepared.ended.take());
        let control = Arc::new(Control::new(self.answer(request, prepared, sender)));
        if let Some(reason) = ended {
            // The tokens of a resumed answer have already ended it.
            control.end(reason);
            self.stats.lock().submitted += 1;
            return Ok(stream);
        }
        *link.lock() = Arc::downgrade(&control);
        self.limit_time(request, &control);
        if control.has_ended() {
            self.stats.lock().submitted += 1;
            return Ok(stream);
        }
        let mut open = self.open.lock();
        open.retain(|control| control.strong_count() > 0);
        open.push(Arc::downgrade(&control));
        drop(open);
        let job = Job { control, wire, reader, id, priority: request.priority };
        if !starts {
            queue.push(job);
        } else {
            let runner = self.runner.clone();
            let thread = std::thread::Builder::new().name("exsa-remote".to_owned()).stack_size(STACK_BYTES);
            let spawned = thread.spawn(move || runner.serve(job));
            spawned.map_err(|error| SubmitError::Generator(format!("no thread for the stream: {error}")))?;
            queue.running += 1;
        }
        drop(queue);
        self.stats.lock().submitted += 1;
        Ok(stream)
    }

    /// Ends the request at its deadlines.
    fn limit_time(&self, request: &Request, control: &Arc<Control>) {
        let elapsed = request.resume.as_ref().map_or(Duration::ZERO, |resume| resume.elapsed);
        for (timeout, first_token) in [(request.timeout, false), (request.first_token_timeout, true)] {
            let left = timeout.map(|timeout| timeout.saturating_sub(elapsed));
            let reason = if first_token { FinishReason::FirstTokenTimeout } else { FinishReason::Deadline };
            if left == Some(Duration::ZERO) && (!first_token || resumed(request).is_empty()) {
                control.end(reason);
                return;
            }
            let Some(at) = left.and_then(|left| Instant::now().checked_add(left)) else { continue };
            let (weak, runner) = (Arc::downgrade(control), Arc::downgrade(&self.runner));
            let alarm = move || {
                let control = weak.upgrade()?;
                if first_token {
                    control.end_before_first_token();
                } else {
                    control.end(FinishReason::Deadline);
                }
                runner.upgrade()?.queue.lock().purge();
                None
            };
            self.runner.timers.set(at, Box::new(alarm));
        }
    }
}

impl Generator for RemoteEngine {
    fn models(&self) -> Vec<Arc<ModelInfo>> {
        vec![self.info.clone()]
    }

    fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        let prepared = self.prepare(&request)?;
        self.open_stream(&request, prepared)
    }

    fn check(&self, request: &Request) -> Result<(), SubmitError> {
        self.prepare(request).map(drop)
    }

    fn continuation(&self, model: Option<&str>) -> Continuation {
        if self.check_model(model).is_err() || !self.sends_ids() || !self.capabilities.ids_complete {
            return Continuation::refused();
        }
        let continued = match self.capabilities.positional_seeds {
            true => Continued::Identical,
            false => Continued::SameDistribution,
        };
        Continuation::new(continued, self.options().fingerprint)
    }

    fn embed(&self, request: EmbedRequest) -> Result<Pending<EmbedOutput>, SubmitError> {
        self.check_model(request.model.as_deref())?;
        self.embedder.embed(request)
    }

    fn rerank(&self, request: RerankRequest) -> Result<Pending<RerankOutput>, SubmitError> {
        self.check_model(request.model.as_deref())?;
        self.embedder.rerank(request)
    }

    fn count_tokens(&self, request: &Request) -> Result<usize, SubmitError> {
        self.check_model(request.model.as_deref())?;
        Ok(self.encoder("count_tokens")?.encode(request)?.tokens.len())
    }

    fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        self.check_model(request.model.as_deref())?;
        self.encoder("render")?.render(request)
    }

    fn tokenizer(&self, model: Option<&str>) -> Result<Arc<dyn Tokenizer>, SubmitError> {
        self.check_model(model)?;
        Ok(self.encoder("tokenizer")?.tokenizer().clone())
    }

    fn stats(&self) -> EngineStats {
        let mut stats = *self.stats.lock();
        let mut queue = self.runner.queue.lock();
        queue.purge();
        stats.scheduler.waiting_by_class = queue.depths();
        stats.scheduler.waiting = queue.depths().iter().sum();
        drop(queue);
        let open = self.open.lock();
        let open = open.iter().filter_map(Weak::upgrade).filter(|control| !control.has_ended()).count();
        stats.scheduler.running = open.saturating_sub(stats.scheduler.waiting);
        stats
    }
}

impl Drop for RemoteEngine {
    fn drop(&mut self) {
        let waiting = {
            let mut queue = self.runner.queue.lock();
            queue.closed = true;
            queue.drain()
        };
        for job in waiting {
            job.control.end(FinishReason::Cancelled);
        }
        for control in self.open.lock().drain(..).filter_map(|control| control.upgrade()) {
            control.end(FinishReason::Cancelled);
        }
        self.embedder.close();
    }
}

impl fmt::Debug for RemoteEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteEngine")
            .field("model", &self.model)
            .field("options", &self.runner.options)
            .finish_non_exhaustive()
    }
}
