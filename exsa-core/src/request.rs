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
    /// Text. BOS is prepended if the model requires it, unless the text already begins with it (see
    /// [`parse_special`](Request::parse_special)).
    Text(String),
    /// Token ids, used unchanged.
    Tokens(Vec<TokenId>),
    /// A conversation, rendered by the model's chat template.
    Chat(Vec<Message>),
}

/// Maximum of [`Request::n`] and [`Request::best_of`], as in OpenAI's API.
pub const ANSWERS_MAX: usize = 128;

/// The part of an answer that this engine or another one generated earlier. The request continues the answer
/// as if generation had not been interrupted.
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
/// The request repeats the original one: the same prompt, limits, penalties and
/// [`seed`](SamplingParams::seed); without the seed, sampling cannot continue the random sequence. `tokens`
/// are the token ids of the events received so far, in order. Only new tokens and new text are emitted: text
/// that was held back at the interruption is emitted with the first new token that makes it certain. Usage
/// counts the whole answer, except for queue time and time to first token. If the answer had already ended,
/// the request finishes at once, with the same reason.
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
    /// Time since the answer was first requested. It counts against the request's time limits. If `tokens` is
    /// not empty, `first_token_timeout` is satisfied.
    #[cfg_attr(feature = "serde", serde(with = "crate::wire::seconds"))]
    pub elapsed: Duration,
    /// State of the sampler, from [`Finished::sampler_state`](crate::stream::Finished::sampler_state) of the
    /// same request, or from its tokens ([`SamplerState::push`]). Required by mirostat and adaptive-p, which
    /// otherwise start from their initial state and may choose other tokens than an uninterrupted run.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub sampler_state: Option<SamplerState>,
    /// Log-probability of `tokens`. If set, and if the request asks for log-probabilities, that of the whole
    /// answer is computed.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub logprob: Option<AnswerLogprob>,
}

impl Resume {
    /// An answer whose first `tokens` were already generated.
    pub fn new(tokens: impl Into<Vec<TokenId>>) -> Self {
        Self { tokens: tokens.into(), elapsed: Duration::ZERO, sampler_state: None, logprob: None }
    }

    /// Sets the time since the answer was first requested.
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
/// `prompt` (a text or a list of token ids), the fields of [`SamplingParams`] and [`ChatOptions`] at the same
/// level, and times in seconds. A [`constraint`](Self::constraint) is `response_format`, `structured_outputs`
/// (vLLM), `json_schema` or `grammar` (llama-server). Fields of other names are ignored, such as `stream`. A
/// server that accepts untrusted requests must reset the fields that only the host may set:
/// `chat_template_kwargs`, `output_bytes_max`, `parse_special`, `priority`, `user`, `weight`.
#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default = "crate::wire::request")
)]
#[non_exhaustive]
pub struct Request {
    /// Name of the model, for generators that serve several; `None`, the default, selects the first of
    /// [`Generator::models`](crate::Generator::models). A generator with a single model ignores the name.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub model: Option<String>,
    /// LoRA adapters applied to the model, summed; none by default. They must be loaded under these names
    /// ([`Engine::load_adapter`](crate::Engine::load_adapter)).
    #[cfg_attr(feature = "serde", serde(rename = "lora", skip_serializing_if = "Vec::is_empty"))]
    pub adapters: Vec<RequestAdapter>,
    /// The prompt.
    #[cfg_attr(feature = "serde", serde(flatten, with = "crate::wire::prompt"))]
    pub prompt: Prompt,
    /// Sampling parameters.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub sampling: SamplingParams,
    /// The host's own logits transforms, in order of application. By default they run after logit bias,
    /// penalties and DRY and before the filters (top-k, top-p, ...); [`SamplingParams::order`] can place them
    /// elsewhere.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub transforms: Vec<Arc<dyn TransformFactory>>,
    /// Maximum tokens to generate; `None`, the default, generates until the model ends the answer or the
    /// context is full.
    #[cfg_attr(
        feature = "serde",
        serde(alias = "max_completion_tokens", skip_serializing_if = "Option::is_none")
    )]
    pub max_tokens: Option<usize>,
    /// Stop strings: texts that end the answer and are not included in it; at most
    /// [`STOP_STRINGS_MAX`](crate::text::STOP_STRINGS_MAX). They also match the text of control tokens
    /// (`<|im_start|>`).
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::wire::one_or_more"))]
    pub stop: Vec<String>,
    /// Stop tokens: tokens that end the answer; their text is not included in it.
    #[cfg_attr(feature = "serde", serde(rename = "stop_token_ids"))]
    pub stop_tokens: Vec<TokenId>,
    /// Ignores end-of-generation tokens: they are never generated, so only the other limits end the answer.
    pub ignore_eos: bool,
    /// Whether control tokens written out in a [`Prompt::Text`] (`<|im_start|>`) are tokenized as control
    /// tokens; `false` by default. Leave it off for text from untrusted users.
    pub parse_special: bool,
    /// Tools and variables for the chat template.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub chat: ChatOptions,
    /// Time limit, measured from submission; the request then ends with
    /// [`FinishReason::Deadline`](crate::FinishReason::Deadline). `None`, the default, sets no limit.
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub timeout: Option<Duration>,
    /// Time limit for the first token, measured from submission; the request then ends with
    /// [`FinishReason::FirstTokenTimeout`](crate::FinishReason::FirstTokenTimeout). `None`, the default, sets
    /// no limit.
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::wire::optional_seconds", skip_serializing_if = "Option::is_none")
    )]
    pub first_token_timeout: Option<Duration>,
    /// Priority class.
    pub priority: Priority,
    /// User that the request is accounted to: the users of a priority class share the engine evenly. All
    /// requests without a user share one account.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub user: Option<String>,
    /// Weight of the user's share relative to other users, from this request on; 0.001 to 1000, 1 by default.
    pub weight: f32,
    /// Isolates the prefix cache: requests share cached prefixes only with requests of the same salt, so that
    /// response times do not reveal the prompts of other users.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub cache_salt: Option<String>,
    /// Whether the engine may use speculative decoding for this request; `true` by default.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "crate::wire::is_true"))]
    pub speculation: bool,
    /// Continues an answer that was partly generated before.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub resume: Option<Resume>,
    /// Number of answers, 1 by default and at most [`ANSWERS_MAX`]. Answer `i` equals that of the same
    /// request with `n` = 1 and [`seed`](SamplingParams::seed) + `i` (wrapping), so answer 0 does not depend
    /// on `n`. If the session supports `fork` and the prefix cache is on, the prompt is prefilled once,
    /// except for its last block. Each answer has its own place in the queue and its own sequence; if the
    /// stream is not read, all are paused.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::wire::or_one"))]
    pub n: usize,
    /// Number of answers to generate, of which the best `n` are returned; at least `n` and at most
    /// [`ANSWERS_MAX`]. `None`, the default, means `n`. The best answers have the highest
    /// [mean](crate::stream::AnswerLogprob::mean) log-probability per token, as OpenAI documents; a sum would
    /// favour short answers. Answer 0 is the best. If more than `n` are generated, no event is sent before
    /// all have ended. Complete answers rank before answers that were cut off by the end of the request, and
    /// failed answers rank last. Usage counts the tokens of all generated answers.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub best_of: Option<usize>,
    /// Requests log-probabilities of the prompt's tokens, each with this number of most probable
    /// alternatives, 0 to 20; `None`, the default, requests none. They are sent as
    /// [`Event::Prompt`](crate::Event::Prompt) before the first token. The prompt is then prefilled without
    /// the prefix cache, since cached KV has no logits. A resumed request with at least one generated token
    /// gets none.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub prompt_logprobs: Option<u32>,
    /// Behaviour for a prompt or an answer that exceeds the context window; [`Overflow::Refuse`] by default.
    #[cfg_attr(feature = "serde", serde(flatten, with = "crate::wire::overflow"))]
    pub overflow: Overflow,
    /// Texts that the answer must not contain; at most
    /// [`BANNED_STRINGS_MAX`](crate::text::BANNED_STRINGS_MAX), of at most
    /// [`BANNED_CHARS_MAX`](crate::text::BANNED_CHARS_MAX) characters each. Control tokens have no text here.
    ///
    /// When a banned string is complete, the answer is rewound to the token in which the string begins, and
    /// another token is sampled there. A token that may still be rewound is not emitted, so emitted tokens
    /// are never withdrawn. Rewound tokens count neither towards `max_tokens` nor in the usage. If 64 tokens
    /// at one position lead to banned strings, or if more than 1,024 tokens plus 8 times the length of the
    /// answer were rewound, the answer ends there with
    /// [`FinishReason::BannedString`](crate::FinishReason::BannedString). For a resumed answer, these counts
    /// start from zero.
    ///
    /// Requires a session that can truncate its KV; others refuse the request.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::wire::one_or_more"))]
    pub banned_strings: Vec<String>,
    /// Whether banned strings are matched without regard to case (Unicode's lowercase mapping, character by
    /// character); `true` by default, as in other programs with this option.
    pub banned_strings_ignore_case: bool,
    /// Constrains the answer to a grammar, JSON schema, regular expression or list of choices; none by
    /// default.
    #[cfg_attr(feature = "serde", serde(flatten, with = "crate::constraint::wire"))]
    pub constraint: Option<Constraint>,
    /// Whether and how the model calls the tools of [`chat`](Self::chat).
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub tools: ToolOptions,
    /// Options for reasoning before the answer.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub reasoning: ReasoningOptions,
    /// Whether control tokens of the answer (`<|channel|>`) are left out of its text; `true` by default. The
    /// markers of tool calls and reasoning are never part of the text if their format is parsed.
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

    /// A request that continues a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Prompt::Text(text.into()))
    }

    /// A request that continues a list of token ids.
    pub fn tokens(tokens: impl Into<Vec<TokenId>>) -> Self {
        Self::new(Prompt::Tokens(tokens.into()))
    }

    /// A request that answers a conversation.
    pub fn chat(messages: impl Into<Vec<Message>>) -> Self {
        Self::new(Prompt::Chat(messages.into()))
    }

    /// A request that answers a single user message, rendered by the model's chat template.
    pub fn user(message: impl Into<String>) -> Self {
        Self::chat([Message::user(message)])
    }

    request_setters!();

    /// Adds a LoRA adapter by name; a scale of 1 is its trained strength.
    #[must_use]
    pub fn adapter(mut self, name: impl Into<String>, scale: f32) -> Self {
        self.adapters.push(RequestAdapter { name: name.into(), scale });
        self
    }

    /// Sets the sampling parameters.
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

    /// Sets whether end-of-generation tokens are ignored.
    #[must_use]
    pub fn ignore_eos(mut self, ignore: bool) -> Self {
        self.ignore_eos = ignore;
        self
    }

    /// Sets whether control tokens written out in a [`Prompt::Text`] are tokenized as control tokens.
    #[must_use]
    pub fn parse_special(mut self, parse: bool) -> Self {
        self.parse_special = parse;
        self
    }

    /// Sets the tools and variables for the chat template.
    #[must_use]
    pub fn chat_options(mut self, options: ChatOptions) -> Self {
        self.chat = options;
        self
    }

    /// Sets the time limit for the first token, measured from submission.
    #[must_use]
    pub fn first_token_timeout(mut self, timeout: Duration) -> Self {
        self.first_token_timeout = Some(timeout);
        self
    }

    /// Sets the weight of the user's share relative to other users.
    #[must_use]
    pub fn weight(mut self, weight: f32) -> Self {
        self.weight = weight;
        self
    }

    /// Shares cached prefixes only with requests that have the same salt.
    #[must_use]
    pub fn cache_salt(mut self, salt: impl Into<String>) -> Self {
        self.cache_salt = Some(salt.into());
        self
    }

    /// Sets whether the engine may use speculative decoding for this request.
    #[must_use]
    pub fn speculation(mut self, speculation: bool) -> Self {
        self.speculation = speculation;
        self
    }

    /// Continues an answer that was partly generated before.
    #[must_use]
    pub fn resume(mut self, resume: Resume) -> Self {
        self.resume = Some(resume);
        self
    }

    /// Requests `n` answers.
    #[must_use]
    pub fn n(mut self, n: usize) -> Self {
        self.n = n;
        self
    }

    /// Generates `best_of` answers and returns the best [`n`](Self::n) of them.
    #[must_use]
    pub fn best_of(mut self, best_of: impl Into<Option<usize>>) -> Self {
        self.best_of = best_of.into();
        self
    }

    /// Requests log-probabilities of the prompt's tokens, with the `top` most probable tokens at each
    /// position.
    #[must_use]
    pub fn prompt_logprobs(mut self, top: impl Into<Option<u32>>) -> Self {
        self.prompt_logprobs = top.into();
        self
    }

    /// Sets the behaviour for a prompt or an answer that exceeds the context window.
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

    /// Sets whether banned strings are matched without regard to case.
    #[must_use]
    pub fn banned_strings_ignore_case(mut self, ignore: bool) -> Self {
        self.banned_strings_ignore_case = ignore;
        self
    }

    /// Constrains the text of the answer.
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

    /// Sets the options for reasoning before the answer.
    #[must_use]
    pub fn reasoning(mut self, reasoning: ReasoningOptions) -> Self {
        self.reasoning = reasoning;
        self
    }

    /// Sets whether control tokens are left out of the answer's text.
    #[must_use]
    pub fn skip_special_tokens(mut self, skip: bool) -> Self {
        self.skip_special_tokens = skip;
        self
    }
}
