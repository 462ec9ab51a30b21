//! Validates and tokenizes requests on the caller's thread.

use crate::adapter::{AdapterError, AdapterStatus};
use crate::backend::ModelSource;
use crate::chat::{ChatTemplate, ChatTemplates, Message, Rendered};
use crate::clock::Clock;
use crate::constraint::Compiler;
use crate::engine::adapters::{self, Adapters};
use crate::engine::admission_control::AdmissionControl;
use crate::engine::answer::{Answer, Limits};
use crate::engine::banned::{BannedStrings, Bans};
use crate::engine::in_flight::InFlight;
use crate::engine::info::EngineInfo;
use crate::engine::mailbox::{Command, Mailbox};
use crate::engine::output_plan::{OutputPlan, PromptEnd, chat_options};
use crate::engine::reasoning_budget::{BudgetAhead, ReasoningBudget};
use crate::engine::request_state::{RequestState, Submission};
use crate::finish::{FinishReason, RequestError};
use crate::generator::SubmitError;
use crate::options::EngineOptions;
use crate::overflow::Overflow;
use crate::priority::UserId;
use crate::request::{ANSWERS_MAX, Prompt, Request};
use crate::sampler::{SamplerContext, SamplingError, TOP_LOGPROBS_MAX, TransformFactory};
use crate::schedule::prefix::Namespace;
use crate::schedule::sched_request::SchedRequest;
use crate::stats::DraftStats;
use crate::stream::{AnswerLogprob, PromptLogprobs, PromptToken, StreamSignal, TokenStream, channel};
use crate::text::{BannedMatcher, Detokenizer, StopMatcher};
use crate::token::RequestId;
use crate::token::TokenId;
use crate::tokenizer::{EncodeOptions, Tokenizer, encode_prompt};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Validates requests, tokenizes them and posts them to the mailbox.
pub(crate) struct InputProcessor {
    pub(crate) info: EngineInfo,
    pub(crate) tokenizer: Arc<dyn Tokenizer>,
    pub(crate) options: EngineOptions,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) admission: AdmissionControl,
    pub(crate) ids: AtomicU64,
    /// `None` for an engine in another process.
    adapters: Option<Adapters>,
    seeds: RandomState,
    templates: ChatTemplates,
    constraints: Compiler,
}

impl InputProcessor {
    pub(crate) fn new(
        info: EngineInfo,
        tokenizer: Arc<dyn Tokenizer>,
        options: EngineOptions,
        adapters: Option<Adapters>,
        in_flight: Arc<InFlight>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let templates = ChatTemplates::new(&info.model, tokenizer.clone());
        Self {
            templates: templates.replace(options.chat_template.clone()),
            constraints: Compiler::new(tokenizer.clone()),
            tokenizer,
            info,
            options,
            in_flight,
            mailbox: Arc::default(),
            clock,
            admission: AdmissionControl::default(),
            ids: AtomicU64::new(0),
            adapters,
            seeds: RandomState::new(),
        }
    }

    pub(crate) fn submit(&self, request: Request) -> Result<TokenStream, SubmitError> {
        let (mailbox, in_flight) = (self.mailbox.clone(), self.in_flight.clone());
        let (submission, events) = self.prepare(request, move |id, signal| {
            // A closed mailbox has ended the request already.
            let _ = mailbox.post(match signal {
                StreamSignal::Cancelled => Command::Cancel(id),
                StreamSignal::Drained => Command::Resume(id),
                StreamSignal::Position => Command::Position(id),
            });
            if signal == StreamSignal::Cancelled {
                in_flight.cancel(id);
            }
        })?;
        let (priority, user) = (submission.state.priority, submission.state.user.clone());
        let n = submission.answers.len();
        let user_limit = self.options.user_queue_max.unwrap_or(usize::MAX);
        self.admission.enter(priority, &user, n, self.options.queue_max, user_limit)?;
        match self.mailbox.post(Command::Submit(submission)) {
            Ok(()) => Ok(events),
            Err(_) => {
                self.admission.leave_all(priority, &user, n);
                Err(SubmitError::ShuttingDown)
            }
        }
    }

    /// Refuses a request that is invalid regardless of load.
    pub(crate) fn check(&self, request: &Request) -> Result<(), SubmitError> {
        self.prepare(request.clone(), |_, _| {}).map(drop)
    }

    pub(crate) fn load_adapter(
        &self,
        name: &str,
        source: &ModelSource,
    ) -> Result<AdapterStatus, AdapterError> {
        if self.info.capabilities.span_adapters_max == 0 {
            let reason = "the engine's session does not support adapters".to_owned();
            return Err(AdapterError::Unsupported { reason });
        }
        self.local_adapters()?.load(name, source)
    }

    pub(crate) fn unload_adapter(&self, name: &str) -> Result<(), AdapterError> {
        self.local_adapters()?.unload(name)
    }

    #[cfg(feature = "registry")]
    pub(crate) fn share_adapter_memory(&self, memory: Arc<dyn crate::adapter::memory::AdapterMemory>) {
        if let Some(adapters) = &self.adapters {
            adapters.share_memory(memory);
        }
    }

    pub(crate) fn list_adapters(&self) -> Vec<AdapterStatus> {
        self.adapters.as_ref().map(Adapters::list).unwrap_or_default()
    }

    fn local_adapters(&self) -> Result<&Adapters, AdapterError> {
        let reason = || "an engine in another process cannot load adapters".to_owned();
        self.adapters.as_ref().ok_or_else(|| AdapterError::Unsupported { reason: reason() })
    }

    /// Validates a request and prepares its submission. `notify` receives the signals of its stream.
    fn prepare(
        &self,
        mut request: Request,
        notify: impl Fn(RequestId, StreamSignal) + Send + Sync + 'static,
    ) -> Result<(Submission, TokenStream), SubmitError> {
        if !self.info.capabilities.generate {
            let reason = "the model is an encoder, which gives vectors or scores and writes no text".into();
            return Err(SubmitError::Unsupported { operation: "generate", reason });
        }
        let n_vocab = self.info.model.n_vocab;
        let resume = request.resume.take();
        let is_resumed = resume.is_some();
        let resume = resume.unwrap_or_default();
        let generated = resume.tokens.len();
        let (encoded, dropped_messages) = self.encode_to_fit(&request)?;
        let Encoded { mut tokens, template, end } = encoded;
        let prompt_len = tokens.len();
        self.check_length(prompt_len)?;
        tokens.extend(resume.tokens);
        self.check_resumed(&request, tokens.len(), generated)?;
        if request.max_tokens == Some(0) {
            return Err(SubmitError::NoTokens);
        }
        let keep = self.keep(&request, &tokens[..prompt_len])?;
        if keep.is_none() {
            self.check_kv(prompt_len, request.max_tokens)?;
        }
        let n = check_answers(&request, is_resumed)?;
        adapters::check(&request.adapters, self.info.capabilities.span_adapters_max)?;
        let adapters = match &self.adapters {
            Some(adapters) => adapters.resolve(&request.adapters)?,
            None if request.adapters.is_empty() => None,
            None => {
                let reason = "an engine in another process cannot use adapters".to_owned();
                return Err(SubmitError::Unsupported { operation: "lora", reason });
            }
        };
        if !(0.001..=1000.0).contains(&request.weight) {
            return Err(SubmitError::Weight(request.weight));
        }
        let mut known = tokens.iter().chain(&request.stop_tokens);
        if let Some(&token) = known.find(|token| **token as usize >= n_vocab) {
            return Err(SubmitError::InvalidToken { token, n_vocab });
        }
        let architecture = &self.info.model.architecture;
        let (template, prompt) = (template.as_deref(), &tokens[..prompt_len]);
        let plan = OutputPlan::new(&request, template, end, prompt, &*self.tokenizer, architecture)?;
        let constraint = plan.constraint(&mut request, &*self.tokenizer)?;
        // The first answer has the id of the request, the others those after it.
        let id = RequestId(self.ids.fetch_add(n as u64, Ordering::Relaxed));
        let banned = self.banned_strings(&request)?;
        let mut sampling = request.sampling;
        // 53 bits, which every JSON reader represents exactly.
        let seed = *sampling.seed.get_or_insert_with(|| self.seeds.hash_one(id) >> 11);
        let mut end_of_generation = self.tokenizer.special().end_of_generation.clone();
        if request.ignore_eos {
            sampling.logit_bias.retain(|(token, _)| end_of_generation.binary_search(token).is_err());
            sampling.logit_bias.extend(end_of_generation.drain(..).map(|token| (token, f32::NEG_INFINITY)));
        }
        let context = SamplerContext::new(n_vocab).with_tokenizer(&*self.tokenizer);
        let context = context.with_stop_tokens(&request.stop_tokens);
        let best = Some(request.n).filter(|best| *best < n);
        let hide_logprobs = best.is_some() && !std::mem::replace(&mut sampling.logprobs, true);
        let mut transforms = request.transforms;
        let samplers = (0..n as u64).map(|index| {
            sampling.seed = Some(seed.wrapping_add(index));
            let bans = Bans::default();
            if banned.is_some() {
                let first = usize::from(index > 0);
                transforms.splice(..first, [Arc::new(bans.clone()) as Arc<dyn TransformFactory>]);
            }
            let mut sampler = sampling.build_with(&context, &transforms)?;
            if let Some(state) = &resume.sampler_state {
                sampler.restore(state, generated)?;
            }
            Ok((sampler, bans))
        });
        let samplers = samplers.collect::<Result<Vec<_>, SamplingError>>()?;
        let mut stop = StopMatcher::new(&request.stop)?;
        if plan.is_parsed() {
            stop.keep_controls();
        }
        let mut stop_tokens = request.stop_tokens;
        stop_tokens.sort_unstable();
        let (stop_tokens, end_of_generation): (Arc<[_]>, Arc<[_]>) =
            (stop_tokens.into(), end_of_generation.into());

        let compiled = constraint.as_ref().map(|constraint| self.constraints.compile(constraint));
        let compiled = compiled.transpose()?;
        let constraint = || compiled.as_ref().map(|it| it.state_with(&end_of_generation, &stop_tokens));
        let constraints = (0..n).map(|_| constraint().transpose()).collect::<Result<Vec<_>, _>>()?;

        let (stream, events) = channel(self.options.stream_events_max, move |signal| notify(id, signal));
        let submitted = self.clock.now();
        let preceded = tokens[..prompt_len].iter().any(|token| !self.tokenizer.is_control(*token));
        let user: Arc<str> = request.user.unwrap_or_default().into();
        let limits = Limits {
            len_max: request.max_tokens.map_or(usize::MAX, |max| prompt_len.saturating_add(max)),
            context_max: if keep.is_some() { usize::MAX } else { self.info.capabilities.context_tokens_max },
        };
        let detokenizer = Detokenizer::new(&*self.tokenizer, preceded);
        let budget = request.reasoning.budget;
        let logprob = resume.logprob.or_else(|| (generated == 0).then(AnswerLogprob::default));
        let logprob = logprob.filter(|_| sampling.logprobs);
        let answers = samplers.into_iter().zip(constraints).enumerate();
        let answers = answers.map(|(index, ((sampler, bans), constraint))| {
            // Calls of later answers in the conversation differ by the length of the prompt.
            let output = plan.output(index, sampler.seed().wrapping_add((prompt_len as u64) << 32));
            let budget = budget
                .map(|tokens| ReasoningBudget::new(tokens, constraint.is_some(), &output, &*self.tokenizer));
            let banned = banned.clone().map(|matcher| {
                let budget = BudgetAhead::new(budget.as_ref(), &output);
                BannedStrings::new(matcher, bans, &detokenizer, &stop, budget)
            });
            Box::new(Answer {
                request: id,
                index,
                seed: sampler.seed(),
                sampler,
                stop_tokens: stop_tokens.clone(),
                end_of_generation: end_of_generation.clone(),
                detokenizer: detokenizer.clone(),
                stop: stop.clone(),
                budget,
                output: output.withhold(best.is_some()),
                calls_max: plan.calls_max,
                logprob,
                hide_logprobs,
                ended: None,
                admitted: false,
                last_token: None,
                emitted: generated,
                banned,
                constraint,
            })
        });
        let mut answers: Vec<_> = answers.collect();
        let prompt_top = request.prompt_logprobs.filter(|_| generated == 0);
        if let Some(first) = tokens.first().filter(|_| prompt_top.is_some()) {
            stream.prompt(PromptLogprobs::new(0, [PromptToken::new(*first, None)]));
        }
        let (spans, key, leases) = match adapters {
            Some(adapters) => (Some(adapters.spans), Some(adapters.key), adapters.leases),
            None => (None, None, Vec::new()),
        };
        let state = Box::new(RequestState {
            id,
            _adapters: leases,
            stream,
            submitted,
            elapsed: resume.elapsed,
            resumed: generated > 0,
            priority: request.priority,
            user: user.clone(),
            open: (id.0..id.0 + n as u64).map(RequestId).collect(),
            prompt_tokens: prompt_len,
            cached_tokens: 0,
            first_admitted: None,
            completion_tokens: 0,
            dropped_messages,
            shifted_tokens: 0,
            drafts: DraftStats::default(),
            admitted: None,
            first_token: None,
            has_first_token_limit: request.first_token_timeout.is_some(),
            prompt_top: prompt_top.map(|top| top as usize),
            scored: prompt_top.map(|_| 1),
            held: VecDeque::new(),
            n,
            failed: 0,
            best,
            candidates: Vec::new(),
        });
        for answer in &mut answers {
            tokens.truncate(answer.replay(&tokens, prompt_len, &limits, &*self.tokenizer));
            if let Some(FinishReason::Failed(RequestError::Constraint(error))) = &answer.ended {
                return Err(error.clone().into());
            }
        }
        let expiry = |timeout: Duration| submitted.saturating_add(timeout.saturating_sub(resume.elapsed));
        let mut sched_request = SchedRequest::new(id.0, tokens, limits.len_max);
        (sched_request.prompt_len, sched_request.keep) = (prompt_len, keep);
        sched_request.speculate = request.speculation;
        sched_request.replay_shifts(self.info.capabilities.context_window());
        sched_request.adapters = spans;
        sched_request.namespace = Namespace { adapter: key, salt: request.cache_salt.map(Arc::from) };
        (sched_request.priority, sched_request.weight) = (request.priority, request.weight);
        sched_request.user = UserId(self.seeds.hash_one(&user));
        sched_request.deadline = request.timeout.map(expiry);
        sched_request.first_token_by = request.first_token_timeout.map(expiry);
        let requests = (id.0..).map(|id| sched_request.of_group(RequestId(id)));
        let mut answers: Vec<_> = answers.into_iter().zip(requests).collect();
        if let (Some(_), Some((_, first))) = (prompt_top, answers.first_mut()) {
            first.scored = Some(1);
        }
        Ok((Submission { state, answers }, events))
    }

    /// Refuses a resumed answer that no longer fits the context: `tokens` includes the prompt.
    fn check_resumed(&self, request: &Request, tokens: usize, generated: usize) -> Result<(), SubmitError> {
        let limit = self.info.capabilities.context_tokens_max;
        if generated > 0 && tokens > limit && !matches!(request.overflow, Overflow::Shift { .. }) {
            return Err(SubmitError::PromptTooLong { tokens, limit, what: "the context" });
        }
        Ok(())
    }

    /// Number of tokens that a request keeps when a full context is shifted; `None` without context shift.
    fn keep(&self, request: &Request, prompt: &[TokenId]) -> Result<Option<usize>, SubmitError> {
        let Overflow::Shift { keep } = request.overflow else { return Ok(None) };
        let bos = prompt.first().filter(|first| self.tokenizer.special().bos == Some(**first));
        let keep = keep.min(prompt.len()).max(usize::from(bos.is_some()));
        let window = self.info.capabilities.context_window();
        let keep_max = window - window / 4;
        if keep > keep_max {
            let problem = format!(
                "{keep} tokens of the prompt, but at most {keep_max} are allowed, three quarters of the \
                 context of {window}"
            );
            return Err(SubmitError::Option { option: "n_keep", problem });
        }
        Ok(Some(keep))
    }

    /// The search for a request's banned strings; `None` if it has none.
    fn banned_strings(&self, request: &Request) -> Result<Option<BannedMatcher>, SubmitError> {
        if request.banned_strings.is_empty() {
            return Ok(None);
        }
        let matcher = BannedMatcher::new(&request.banned_strings, request.banned_strings_ignore_case)
            .map_err(|problem| SubmitError::Option { option: "banned_strings", problem })?;
        if !self.info.capabilities.truncate {
            let reason = "the session cannot truncate its KV".into();
            return Err(SubmitError::Unsupported { operation: "banned_strings", reason });
        }
        Ok(Some(matcher))
    }

    /// Refuses a request that needs more KV than the whole cache. An answer without a token limit is not
    /// refused: it continues until the context or the KV cache is full.
    fn check_kv(&self, prompt: usize, answer: Option<usize>) -> Result<(), SubmitError> {
        let Some(answer) = answer else { return Ok(()) };
        let kv = self.info.capabilities.kv_tokens_max;
        let tokens = prompt.saturating_add(answer).min(self.info.capabilities.context_tokens_max);
        if tokens <= kv {
            return Ok(());
        }
        let bytes = |tokens: usize| self.info.kv_bytes_per_token.saturating_mul(tokens as u64);
        let (needed, available, tokens_max) = (bytes(tokens), bytes(kv), kv - prompt);
        Err(SubmitError::KvTooLarge { tokens, needed, available, tokens_max })
    }

    fn check_length(&self, tokens: usize) -> Result<(), SubmitError> {
        let context = self.info.capabilities.context_tokens_max;
        let kv = self.info.capabilities.kv_tokens_max;
        let (limit, what) = if kv < context { (kv, "the KV cache") } else { (context, "the context") };
        let limit = limit.saturating_sub(1);
        match tokens {
            0 => Err(SubmitError::EmptyPrompt),
            n if n > limit => Err(SubmitError::PromptTooLong { tokens, limit, what }),
            _ => Ok(()),
        }
    }

    /// The tokens of `messages`, for the conversation of `request`.
    pub(super) fn encode_chat(
        &self,
        messages: &[Message],
        request: &Request,
    ) -> Result<Encoded, SubmitError> {
        let (template, rendered) = self.render_chat(messages, request)?;
        let tokens = encode_prompt(&*self.tokenizer, &rendered.text, &rendered.encode_options());
        let end = PromptEnd { text: rendered.text, protected_offsets: rendered.protected_offsets };
        Ok(Encoded { tokens, template: Some(template), end: Some(end) })
    }

    fn render_chat(
        &self,
        messages: &[Message],
        request: &Request,
    ) -> Result<(Arc<ChatTemplate>, Rendered), SubmitError> {
        let template = self.templates.select(&request.chat)?;
        let options = chat_options(request, &template);
        let rendered = template.render(messages, options.as_ref().unwrap_or(&request.chat))?;
        Ok((template, rendered))
    }

    /// The text of a prompt.
    pub(super) fn render(&self, request: &Request) -> Result<Rendered, SubmitError> {
        match &request.prompt {
            Prompt::Text(text) => Ok(Rendered { text: text.clone(), protected_offsets: Vec::new() }),
            Prompt::Chat(messages) => Ok(self.render_chat(messages, request)?.1),
            Prompt::Tokens(_) => {
                let reason = "a prompt of token ids has no text".into();
                Err(SubmitError::Unsupported { operation: "render", reason })
            }
        }
    }

    pub(crate) fn encode(&self, request: &Request) -> Result<Encoded, SubmitError> {
        let tokens = match &request.prompt {
            Prompt::Tokens(ids) => ids.clone(),
            Prompt::Text(text) => {
                let options = EncodeOptions::default().parse_special(request.parse_special);
                encode_prompt(&*self.tokenizer, text, &options)
            }
            Prompt::Chat(messages) => return self.encode_chat(messages, request),
        };
        Ok(Encoded { tokens, template: None, end: None })
    }
}

/// A prompt as tokens.
pub(crate) struct Encoded {
    pub(crate) tokens: Vec<TokenId>,
    /// The template of a conversation.
    template: Option<Arc<ChatTemplate>>,
    /// The text of a conversation.
    end: Option<PromptEnd>,
}

/// Refuses numbers of answers and of log-probabilities that are out of
/// range. Returns the number of answers to generate.
fn check_answers(request: &Request, is_resumed: bool) -> Result<usize, SubmitError> {
    let refused = |option, problem| Err(SubmitError::Option { option, problem });
    let (n, best_of) = (request.n, request.best_of.unwrap_or(request.n));
    if !(1..=ANSWERS_MAX).contains(&n) {
        return refused("n", format!("{n} answers, but 1 to {ANSWERS_MAX} are allowed"));
    }
    if !(n..=ANSWERS_MAX).contains(&best_of) {
        return refused(
            "best_of",
            format!("{best_of}, but {n} (the value of n) to {ANSWERS_MAX} are allowed"),
        );
    }
    if is_resumed && best_of > 1 {
        let option = if n > 1 { "n" } else { "best_of" };
        return refused(
            option,
            format!("{best_of} answers, but a resumed request continues a single answer"),
        );
    }
    match request.prompt_logprobs {
        Some(top) if top > TOP_LOGPROBS_MAX => {
            refused("prompt_logprobs", format!("{top}, but 0 to {TOP_LOGPROBS_MAX} are allowed"))
        }
        _ => Ok(best_of),
    }
}
