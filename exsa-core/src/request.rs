//! A request for generated text.

use crate::adapter::RequestAdapter;
use crate::chat::{ChatOptions, Message};
use crate::constraint::Constraint;
use crate::overflow::Overflow;
use crate::priority::Priority;
use crate::sampler::{SamplerState, SamplingParams, TransformFactory};
use crate::setters::request_setters;
use crate::stream::AnswerLogprob;
use crate::token::TokenId;
use crate::tools::{ReasoningOptions, ToolOptions};
use std::sync::Arc;
use std::time::Duration;

/// Prompt of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Prompt {
    /// Text; BOS is put before it where the model wants it and the text does not spell it out
    /// ([`parse_special`](Request::parse_special)).
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<TokenId>),
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<Message>),
}

/// Most answers to one prompt: [`Request::n`], [`Request::best_of`]. It is the limit of OpenAI's API.
pub const ANSWERS_MAX: usize = 128;

/// Part of an answer generated before its request was submitted, by this engine or another: the request goes
/// on as if nothing had happened between.
///
/// ```
/// use exsa_core::request::{Request, Resume};
/// use std::time::Duration;
///
/// // Two tokens of the answer, which took 80 ms.
/// let resume = Resume::new([10, 11]).elapsed(Duration::from_millis(80));
/// let request = Request::text("Once upon a time").max_tokens(64).seed(7).resume(resume);
/// # let _ = request;
/// ```
///
/// The request itself is that of the uncut answer, with its prompt, its limits, its penalties and its
/// [`seed`](SamplingParams::seed), without which drawn tokens could not continue. The tokens are those of the
/// events so far, in their order. Only new tokens and new text are emitted: text that was held back before
/// the cut comes with the first new token that settles it. Usage counts the whole answer, except for the
/// times of queue and first token. An answer that has ended already ends at once, for the same reason.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct Resume {
    /// Tokens of the answer so far, which follow the prompt.
    pub tokens: Vec<TokenId>,
    /// Time that has passed since the answer was first asked for. It counts against the request's time
    /// limits. With a token generated, `first_token_timeout` is met.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub elapsed: Duration,
    /// State of the sampler, from [`Finished::sampler_state`](crate::stream::Finished::sampler_state) of the
    /// same request, or from its tokens ([`SamplerState::push`]). Needed with mirostat and adaptive-p, which
    /// otherwise begin anew and may give other tokens than the uncut answer.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub sampler_state: Option<SamplerState>,
    /// Log-probability of the tokens. With it, that of the whole answer is computed where the request asks
    /// for log-probabilities.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub logprob: Option<AnswerLogprob>,
}

impl Resume {
    /// An answer of which `tokens` were generated.
    pub fn new(tokens: impl Into<Vec<TokenId>>) -> Self {
        Self { tokens: tokens.into(), elapsed: Duration::ZERO, sampler_state: None, logprob: None }
    }

    /// Sets the time that was spent.
    #[must_use]
    pub fn elapsed(mut self, elapsed: Duration) -> Self {
        self.elapsed = elapsed;
        self
    }

    /// Sets the state of the sampler.
    #[must_use]
    pub fn sampler_state(mut self, state: impl Into<Option<SamplerState>>) -> Self {
        self.sampler_state = state.into();
        self
    }

    /// Sets the log-probability of the tokens.
    #[must_use]
    pub fn logprob(mut self, logprob: impl Into<Option<AnswerLogprob>>) -> Self {
        self.logprob = logprob.into();
        self
    }
}

/// One request for generated text.
///
/// ```
/// use exsa_core::{Request, SamplingParams};
///
/// let request = Request::text("Once upon a time")
///     .max_tokens(64)
///     .sampling(SamplingParams::greedy())
///     .stop("\n\n");
/// # let _ = request;
/// ```
///
/// As JSON, with the feature `serde`, a request has the form of OpenAI's: exactly one of `messages` and
/// `prompt` (a text or a list of token ids), the fields of [`SamplingParams`] and [`ChatOptions`] beside
/// them, and times in seconds. A [`constraint`](Self::constraint) is `response_format`, `structured_outputs`
/// (vLLM), `json_schema` or `grammar` (llama-server). Fields of other names are ignored, such as `stream`. A
/// server that reads requests of strangers resets what only the host may say: `chat_template_kwargs`,
/// `output_bytes_max`, `parse_special`, `priority`, `user`, `weight`.
#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default = "crate::wire::request")
)]
#[non_exhaustive]
pub struct Request {
    /// Name of the model, for generators that have several; `None`, the default, takes the first of
    /// [`Generator::models`](crate::Generator::models). A generator with one model answers with that.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub model: Option<String>,
    /// Adapters (LoRA) that compute the answer together with the model, summed; none by default. They have to
    /// be loaded under these names ([`Engine::load_adapter`](crate::Engine::load_adapter)).
    #[cfg_attr(feature = "serde", serde(rename = "lora", skip_serializing_if = "Vec::is_empty"))]
    pub adapters: Vec<RequestAdapter>,
    /// The prompt.
    #[cfg_attr(feature = "serde", serde(flatten, with = "crate::wire::prompt"))]
    pub prompt: Prompt,
    /// How tokens are chosen.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub sampling: SamplingParams,
    /// The host's own transforms, in this order. By default they come after logit bias, penalties and DRY and
    /// before the filters, so that the filters choose among the tokens that the transforms leave;
    /// [`SamplingParams::order`] can place them elsewhere.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub transforms: Vec<Arc<dyn TransformFactory>>,
    /// Tokens to generate at most; `None`, the default, goes on until the model ends or the context is full.
    #[cfg_attr(
        feature = "serde",
        serde(alias = "max_completion_tokens", skip_serializing_if = "Option::is_none")
    )]
    pub max_tokens: Option<usize>,
    /// Texts that end the answer, and are no part of it; at most
    /// [`STOP_STRINGS_MAX`](crate::text::STOP_STRINGS_MAX). They may spell control tokens (`<|im_start|>`).
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::wire::one_or_more"))]
    pub stop: Vec<String>,
    /// Tokens that end the answer; their text is no part of it.
    #[cfg_attr(feature = "serde", serde(rename = "stop_token_ids"))]
    pub stop_tokens: Vec<TokenId>,
    /// Never generate an end-of-generation token, so that only the other limits end the answer.
    pub ignore_eos: bool,
    /// Whether control tokens written out in a [`Prompt::Text`] (`<|im_start|>`) become their ids; `false` by
    /// default. Never set it for text that a user wrote.
    pub parse_special: bool,
    /// Tools and variables for the chat template.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub chat: ChatOptions,
    /// The request ends when this much time has passed since it was submitted.
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub timeout: Option<Duration>,
    /// It ends when this much time has passed and no token was generated.
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub first_token_timeout: Option<Duration>,
    /// How urgent it is.
    pub priority: Priority,
    /// The user who asks: users of one class share the engine evenly. Requests without a user count as one
    /// user's.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub user: Option<String>,
    /// The user's share relative to that of others, from this request on; 1 by default, 0.001 to 1000.
    pub weight: f32,
    /// Requests share cached prefixes only with those of the same salt: so that nobody learns from the time
    /// that an answer takes what others asked.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub cache_salt: Option<String>,
    /// Whether drafts may be verified for the request where the engine speculates; `true` by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "crate::wire::is_true"))]
    pub speculation: bool,
    /// The part of the answer that exists already.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub resume: Option<Resume>,
    /// Number of answers, 1 by default and at most [`ANSWERS_MAX`]. Answer `i` is that of the same request
    /// for one answer whose [`seed`](SamplingParams::seed) is larger by `i` (wrapping), so answer 0 does not
    /// depend on `n`. Where the session forks and the prefix cache is on, the prompt is computed once, apart
    /// from its last block. Each answer has a place in the queue and a sequence of its own; if the stream is
    /// not read, all are paused.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::wire::or_one"))]
    pub n: usize,
    /// Number of answers to generate, of which the best `n` are given; at least `n` and at most
    /// [`ANSWERS_MAX`]. `None`, the default, is `n`. The best have the highest
    /// [mean](crate::stream::AnswerLogprob::mean) log-probability per token, the rule that OpenAI documents;
    /// a sum would favour short answers. Answer 0 is the best. If more than `n` are generated, nothing is
    /// sent before all have ended. Answers that ended by themselves go before those that the request's end
    /// cut off, and failed answers come last. Usage counts the tokens of all.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub best_of: Option<usize>,
    /// Log-probabilities of the prompt's tokens, with so many of the most probable tokens in the place of
    /// each, 0 to 20; `None`, the default, for none. They come as [`Event::Prompt`](crate::Event::Prompt)
    /// before the first token. Cached KV has no logits: such a prompt is computed whole. A resumed request
    /// with an answer gives none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub prompt_logprobs: Option<u32>,
    /// The treatment of a prompt or an answer that does not fit the context; [`Overflow::Refuse`] by default.
    #[cfg_attr(feature = "serde", serde(flatten, with = "crate::wire::overflow"))]
    pub overflow: Overflow,
    /// Texts that the answer must not contain; at most
    /// [`BANNED_STRINGS_MAX`](crate::text::BANNED_STRINGS_MAX), of at most
    /// [`BANNED_CHARS_MAX`](crate::text::BANNED_CHARS_MAX) characters. Control tokens count as no text.
    ///
    /// When one is complete, the answer goes back to the token in which it begins and takes another one
    /// there. Tokens that may be taken back are not emitted before that is decided, so that none that was
    /// emitted is withdrawn. Tokens taken back count neither for `max_tokens` nor in the usage. If 64 tokens
    /// at one place lead to banned strings, or more than 1,024 tokens and 8 times the length of the answer
    /// were taken back, the answer ends there with
    /// [`FinishReason::BannedString`](crate::FinishReason::BannedString). A resumed answer counts anew.
    ///
    /// Sessions that cannot truncate their KV refuse the option.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::wire::one_or_more"))]
    pub banned_strings: Vec<String>,
    /// Whether case makes no difference for banned strings, by Unicode's lowercase mapping, character by
    /// character; `true` by default, as in other programs that have the option.
    pub banned_strings_ignore_case: bool,
    /// Restricts the text of the answer; none by default.
    #[cfg_attr(feature = "serde", serde(flatten, with = "crate::constraint::wire"))]
    pub constraint: Option<Constraint>,
    /// Whether and how the model calls the tools of [`chat`](Self::chat).
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub tools: ToolOptions,
    /// Reasoning before the answer.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub reasoning: ReasoningOptions,
    /// Whether control tokens of the answer (`<|channel|>`) have no text; `true` by default. Markers of tool
    /// calls and reasoning never show where their format is in use.
    pub skip_special_tokens: bool,
}

impl Request {
    /// A request with the default settings.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            model: None,
            adapters: Vec::new(),
            prompt,
            sampling: SamplingParams::default(),
            transforms: Vec::new(),
            max_tokens: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            parse_special: false,
            chat: ChatOptions::default(),
            timeout: None,
            first_token_timeout: None,
            priority: Priority::default(),
            user: None,
            weight: 1.0,
            cache_salt: None,
            speculation: true,
            resume: None,
            n: 1,
            best_of: None,
            prompt_logprobs: None,
            overflow: Overflow::default(),
            banned_strings: Vec::new(),
            banned_strings_ignore_case: true,
            constraint: None,
            tools: ToolOptions::default(),
            reasoning: ReasoningOptions::default(),
            skip_special_tokens: true,
        }
    }

    /// Continues a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Prompt::Text(text.into()))
    }

    /// Continues token ids.
    pub fn tokens(tokens: impl Into<Vec<TokenId>>) -> Self {
        Self::new(Prompt::Tokens(tokens.into()))
    }

    /// Answers a conversation.
    pub fn chat(messages: impl Into<Vec<Message>>) -> Self {
        Self::new(Prompt::Chat(messages.into()))
    }

    /// Answers one message of a user, by the model's chat template.
    pub fn user(message: impl Into<String>) -> Self {
        Self::chat([Message::user(message)])
    }

    request_setters!();

    /// Adds an adapter; a scale of 1 is its trained strength.
    #[must_use]
    pub fn adapter(mut self, name: impl Into<String>, scale: f32) -> Self {
        self.adapters.push(RequestAdapter { name: name.into(), scale });
        self
    }

    /// Sets how tokens are chosen.
    #[must_use]
    pub fn sampling(mut self, sampling: SamplingParams) -> Self {
        self.sampling = sampling;
        self
    }

    /// Adds a transform to the sampler's chain.
    #[must_use]
    pub fn transform(mut self, factory: Arc<dyn TransformFactory>) -> Self {
        self.transforms.push(factory);
        self
    }

    /// Sets the temperature; see [`SamplingParams::temperature`].
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.sampling.temperature = temperature;
        self
    }

    /// Sets the seed; see [`SamplingParams::seed`].
    #[must_use]
    pub fn seed(mut self, seed: impl Into<Option<u64>>) -> Self {
        self.sampling.seed = seed.into();
        self
    }

    /// Generates at most `n` tokens, at least 1.
    #[must_use]
    pub fn max_tokens(mut self, n: impl Into<Option<usize>>) -> Self {
        self.max_tokens = n.into();
        self
    }

    /// Adds a text that ends the answer.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// Adds a token that ends the answer.
    #[must_use]
    pub fn stop_token(mut self, token: TokenId) -> Self {
        self.stop_tokens.push(token);
        self
    }

    /// Whether end-of-generation tokens are never generated.
    #[must_use]
    pub fn ignore_eos(mut self, ignore: bool) -> Self {
        self.ignore_eos = ignore;
        self
    }

    /// Whether control tokens written out in a [`Prompt::Text`] become their ids.
    #[must_use]
    pub fn parse_special(mut self, parse: bool) -> Self {
        self.parse_special = parse;
        self
    }

    /// Sets the variables for the chat template.
    #[must_use]
    pub fn chat_options(mut self, options: ChatOptions) -> Self {
        self.chat = options;
        self
    }

    /// Ends the request when `timeout` has passed since it was submitted and no token was generated.
    #[must_use]
    pub fn first_token_timeout(mut self, timeout: Duration) -> Self {
        self.first_token_timeout = Some(timeout);
        self
    }

    /// Sets the user's share relative to that of others.
    #[must_use]
    pub fn weight(mut self, weight: f32) -> Self {
        self.weight = weight;
        self
    }

    /// Shares cached prefixes only with requests of the same salt.
    #[must_use]
    pub fn cache_salt(mut self, salt: impl Into<String>) -> Self {
        self.cache_salt = Some(salt.into());
        self
    }

    /// Sets whether drafts may be verified for the request.
    #[must_use]
    pub fn speculation(mut self, speculation: bool) -> Self {
        self.speculation = speculation;
        self
    }

    /// Goes on with an answer of which a part was generated before.
    #[must_use]
    pub fn resume(mut self, resume: Resume) -> Self {
        self.resume = Some(resume);
        self
    }

    /// Asks for `n` answers.
    #[must_use]
    pub fn n(mut self, n: usize) -> Self {
        self.n = n;
        self
    }

    /// Generates `best_of` answers and gives the best [`n`](Self::n) of them.
    #[must_use]
    pub fn best_of(mut self, best_of: impl Into<Option<usize>>) -> Self {
        self.best_of = best_of.into();
        self
    }

    /// Asks for log-probabilities of the prompt, with the `top` most probable tokens at each position.
    #[must_use]
    pub fn prompt_logprobs(mut self, top: impl Into<Option<u32>>) -> Self {
        self.prompt_logprobs = top.into();
        self
    }

    /// Sets the treatment of a prompt or an answer that does not fit the context.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Adds a text that the answer must not contain; see [`banned_strings`](Self::banned_strings).
    #[must_use]
    pub fn banned_string(mut self, text: impl Into<String>) -> Self {
        self.banned_strings.push(text.into());
        self
    }

    /// Sets whether case makes no difference for banned strings.
    #[must_use]
    pub fn banned_strings_ignore_case(mut self, ignore: bool) -> Self {
        self.banned_strings_ignore_case = ignore;
        self
    }

    /// Restricts the text of the answer.
    #[must_use]
    pub fn constraint(mut self, constraint: impl Into<Option<Constraint>>) -> Self {
        self.constraint = constraint.into();
        self
    }

    /// Sets whether and how the model calls tools.
    #[must_use]
    pub fn tools(mut self, tools: ToolOptions) -> Self {
        self.tools = tools;
        self
    }

    /// Sets the reasoning before the answer.
    #[must_use]
    pub fn reasoning(mut self, reasoning: ReasoningOptions) -> Self {
        self.reasoning = reasoning;
        self
    }

    /// Sets whether control tokens of the answer have no text.
    #[must_use]
    pub fn skip_special_tokens(mut self, skip: bool) -> Self {
        self.skip_special_tokens = skip;
        self
    }
}
