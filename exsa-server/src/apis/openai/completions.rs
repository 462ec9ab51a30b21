//! `/v1/completions`.

use super::fingerprint::system_fingerprint;
use super::finish::finish_reason;
use super::logprobs::CompletionLogprobs;
use super::prompt_logprobs::prompt_logprobs;
use super::request::{self, DONE, Delivery};
use super::usage::Usage;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::http::stream::{self, Chunks, Outbox};
use crate::inference::fill_in::Gap;
use crate::inference::timings::Timings;
use crate::state::{AppState, unix_seconds};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use exsa_core::stream::{PromptToken, Token};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Event, FinishReason, Prompt, Request};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    text: Cow<'a, str>,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Value>,
}

impl<'a> Choice<'a> {
    fn part(index: usize, text: impl Into<Cow<'a, str>>) -> Self {
        Self { index, text: text.into(), logprobs: None, finish_reason: None, prompt_logprobs: None }
    }
}

/// Completes texts or token ids.
pub(crate) async fn complete(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let delivery = Delivery::take(&mut fields, &state.options.get())?;
    let top_logprobs = take_logprobs(&mut fields)?;
    let wants_logprobs = top_logprobs.is_some();
    let echo = fields.take("echo")?.unwrap_or(false);
    let suffix = fields.take("suffix")?.filter(|suffix: &String| !suffix.is_empty());
    if echo && suffix.is_some() {
        return Err(ApiError::invalid("echo cannot be combined with suffix").param("echo"));
    }
    let mut requests = read_prompts(fields, state.options.get().prompts_max)?;
    requests.iter_mut().for_each(|request| state.name_adapter(&client.caller, request));
    let Some(first) = requests.first() else {
        return Err(ApiError::invalid("prompt: the list is empty").param("prompt"));
    };
    let n = first.n;
    let info = state.ready(&client.caller, first.model.as_deref()).await?;
    let (model, fingerprint) = (info.name.clone(), system_fingerprint(&info));
    let asks_prompt = first.prompt_logprobs.is_some();
    let tokenizer = match wants_logprobs || echo || asks_prompt || suffix.is_some() {
        true => Some(state.generator.tokenizer(first.model.as_deref())?),
        false => None,
    };
    let prompt_counts = match delivery.continuous_usage {
        true => {
            let counted = requests.clone();
            let count = move |state: &AppState| {
                counted.iter().map(|request| state.generator.count_tokens(request)).collect()
            };
            state.blocking(count).await?
        }
        false => Vec::new(),
    };
    if let (Some(suffix), Some(tokenizer)) = (suffix, tokenizer.clone()) {
        requests = state.off_thread(move |_| fill_in(requests, &suffix, &*tokenizer)).await?;
    }
    let mut echoes = Vec::new();
    for request in requests.iter_mut().filter(|_| echo) {
        if wants_logprobs && request.prompt_logprobs.is_none() {
            request.prompt_logprobs = top_logprobs;
        }
        echoes.push(prompt_text(&request.prompt, tokenizer.as_deref()));
    }
    let parts = Parts { logprobs: wants_logprobs, prompt: asks_prompt, echo };
    let streams = state.submit(&client, requests).await?;
    let (id, created) = (state.id("cmpl-"), unix_seconds());
    if delivery.stream {
        let chunks = TextChunks {
            id,
            created,
            model,
            fingerprint,
            tokenizer,
            parts,
            delivery,
            usage: Usage::default(),
            prompt_tokens: prompt_counts.iter().sum(),
            tokens: 0,
            timings: None,
            n,
            echoes,
            prompts: BTreeMap::new(),
            offsets: BTreeMap::new(),
        };
        return Ok(stream::events(streams, chunks, state.options.get().keep_alive));
    }
    let (mut choices, mut usage) = (Vec::new(), Usage::default());
    let mut timings = None;
    for (request, stream) in streams.into_iter().enumerate() {
        let completions = stream.complete_all().await?;
        if let Some(first) = completions.first() {
            usage.add(&first.usage);
            timings = delivery.timings.then(|| Timings::from(&first.usage));
        }
        for answer in completions {
            let start = parts.start(&answer.prompt, echoes.get(request), tokenizer.as_deref());
            let mut logprobs = start.logprobs;
            if let Some(tokenizer) = tokenizer.as_deref().filter(|_| wants_logprobs) {
                let (own, _) = CompletionLogprobs::of(&answer.tokens, tokenizer, start.characters);
                logprobs.get_or_insert_default().append(own);
            }
            choices.push(Choice {
                logprobs,
                finish_reason: Some(finish_reason(&answer.reason, false)),
                prompt_logprobs: start.prompt_logprobs,
                ..Choice::part(choices.len(), start.text + &answer.text)
            });
        }
    }
    let answer = Answer {
        id: &id,
        object: "text_completion",
        created,
        model: &model,
        system_fingerprint: &fingerprint,
        choices,
        usage: Some(usage),
        timings,
    };
    Ok(Json(answer).into_response())
}

/// Parts of an answer besides its text.
#[derive(Clone, Copy, Debug)]
struct Parts {
    /// Log-probabilities of tokens.
    logprobs: bool,
    /// vLLM's `prompt_logprobs`.
    prompt: bool,
    /// Whether the answer begins with the prompt.
    echo: bool,
}

/// The beginning of an answer, derived from the prompt.
#[derive(Default)]
struct Start {
    text: String,
    /// Characters of the text.
    characters: usize,
    logprobs: Option<CompletionLogprobs>,
    prompt_logprobs: Option<Value>,
}

impl Parts {
    fn start(
        self,
        prompt: &[PromptToken],
        echo: Option<&String>,
        tokenizer: Option<&dyn Tokenizer>,
    ) -> Start {
        let text = echo.cloned().unwrap_or_default();
        let mut start = Start { characters: text.chars().count(), text, ..Start::default() };
        let Some(tokenizer) = tokenizer.filter(|_| !prompt.is_empty()) else { return start };
        if self.prompt {
            start.prompt_logprobs = Some(prompt_logprobs(prompt, tokenizer));
        }
        if self.echo && self.logprobs {
            let (logprobs, characters) = CompletionLogprobs::of_prompt(prompt, tokenizer);
            (start.logprobs, start.characters) = (Some(logprobs), characters);
        }
        start
    }
}

/// Returns the text of a prompt, for answers that echo it.
fn prompt_text(prompt: &Prompt, tokenizer: Option<&dyn Tokenizer>) -> String {
    match (prompt, tokenizer) {
        (Prompt::Text(text), _) => text.clone(),
        (Prompt::Tokens(tokens), Some(tokenizer)) => {
            let mut bytes = Vec::new();
            tokens.iter().for_each(|token| tokenizer.piece(*token, &mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => String::new(),
    }
}

/// Converts prompts to fill-in-the-middle prompts for the gap before `suffix`.
fn fill_in(
    mut requests: Vec<Request>,
    suffix: &str,
    tokenizer: &dyn Tokenizer,
) -> Result<Vec<Request>, ApiError> {
    for request in &mut requests {
        let Prompt::Text(prefix) = &mut request.prompt else {
            return Err(ApiError::invalid("suffix needs a prompt that is a text").param("suffix"));
        };
        let gap = Gap { prefix: std::mem::take(prefix), suffix: suffix.to_owned(), files: Vec::new() };
        request.prompt = Prompt::Tokens(gap.prompt(tokenizer)?);
    }
    Ok(requests)
}

/// Converts the number of log-probabilities requested by completions to the two fields of a request, and
/// returns it.
fn take_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let wanted = match fields.take::<Value>("logprobs")? {
        None | Some(Value::Bool(false)) => return Ok(None),
        Some(Value::Bool(true)) => 0,
        Some(value) => value.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| {
            ApiError::invalid("logprobs: an integer of 0 or more is expected").param("logprobs")
        })?,
    };
    fields.set("logprobs", true);
    fields.set("top_logprobs", wanted);
    Ok(Some(wanted))
}

/// Reads the prompts: a text, a list of token ids, or a list of either.
fn read_prompts(mut fields: Fields, prompts_max: usize) -> Result<Vec<Request>, ApiError> {
    let prompt: Value =
        fields.take("prompt")?.ok_or_else(|| ApiError::invalid("prompt is missing").param("prompt"))?;
    let prompts = match prompt {
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => items,
        prompt => vec![prompt],
    };
    if prompts.len() > prompts_max {
        let message = format!("prompt: {} prompts; at most {prompts_max} are allowed", prompts.len());
        return Err(ApiError::invalid(message).param("prompt"));
    }
    let read = |prompt| {
        let request = request::read(fields.with("prompt", prompt))?;
        match &request.prompt {
            Prompt::Chat(_) => Err(ApiError::invalid("a prompt is required, not messages").param("prompt")),
            _ => Ok(request),
        }
    };
    prompts.into_iter().map(read).collect()
}

/// Chunks of streamed answers.
struct TextChunks {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    /// Set if required for log-probabilities.
    tokenizer: Option<Arc<dyn Tokenizer>>,
    parts: Parts,
    delivery: Delivery,
    usage: Usage,
    /// Tokens of all prompts, if every chunk has the usage.
    prompt_tokens: usize,
    /// Tokens generated so far.
    tokens: usize,
    timings: Option<Timings>,
    /// Answers per prompt.
    n: usize,
    /// Texts of the prompts, if answers begin with them.
    echoes: Vec<String>,
    /// Tokens of the prompts, by request.
    prompts: BTreeMap<usize, Vec<PromptToken>>,
    /// Characters sent of each answer, by index.
    offsets: BTreeMap<usize, usize>,
}

impl TextChunks {
    fn send(&self, choices: Vec<Choice<'_>>, usage: Option<Usage>, out: &mut Outbox) {
        let (id, model) = (self.id.as_str(), self.model.as_str());
        let so_far = || Usage::so_far(self.prompt_tokens, self.tokens);
        out.chunk(&Answer {
            id,
            object: "text_completion",
            created: self.created,
            model,
            system_fingerprint: &self.fingerprint,
            timings: self.timings.filter(|_| choices.iter().any(|choice| choice.finish_reason.is_some())),
            choices,
            usage: usage.or_else(|| self.delivery.continuous_usage.then(so_far)),
        });
    }

    /// Sends the beginning of an answer, once.
    fn begin(&mut self, request: usize, index: usize, out: &mut Outbox) {
        if self.offsets.contains_key(&index) {
            return;
        }
        let prompt = self.prompts.get(&request).map_or(&[][..], Vec::as_slice);
        let start = self.parts.start(prompt, self.echoes.get(request), self.tokenizer.as_deref());
        self.offsets.insert(index, start.characters);
        if self.parts.echo || start.prompt_logprobs.is_some() {
            let (logprobs, prompt_logprobs) = (start.logprobs, start.prompt_logprobs);
            self.send(
                vec![Choice { logprobs, prompt_logprobs, ..Choice::part(index, start.text) }],
                None,
                out,
            );
        }
    }

    fn token(&mut self, index: usize, token: &Token, out: &mut Outbox) {
        let offset = self.offsets.entry(index).or_default();
        let tokenizer = self.tokenizer.as_deref().filter(|_| self.parts.logprobs);
        let logprobs = tokenizer.map(|tokenizer| {
            let (logprobs, end) = CompletionLogprobs::of([token], tokenizer, *offset);
            *offset = end;
            logprobs
        });
        self.send(vec![Choice { logprobs, ..Choice::part(index, &token.text) }], None, out);
    }

    fn finish(
        &self,
        index: usize,
        text: &str,
        reason: &FinishReason,
        out: &mut Outbox,
    ) -> Result<(), ApiError> {
        if let Some(error) = ApiError::of_reason(reason) {
            return Err(error);
        }
        let finish_reason = Some(finish_reason(reason, false));
        self.send(vec![Choice { finish_reason, ..Choice::part(index, text) }], None, out);
        Ok(())
    }
}

impl Chunks for TextChunks {
    fn event(&mut self, request: usize, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        if let Event::Token(token) | Event::Reasoning(token) = &event {
            self.tokens += usize::from(token.id.is_some());
        }
        let index = request * self.n
            + match &event {
                Event::Token(token) | Event::Reasoning(token) => token.index,
                Event::MalformedToolCall(call) => call.index,
                Event::AnswerFinished(end) => end.index,
                Event::Finished(end) => end.index,
                Event::Prompt(part) => {
                    self.prompts.entry(request).or_default().extend(part.tokens.iter().cloned());
                    return Ok(());
                }
                _ => return Ok(()),
            };
        self.begin(request, index, out);
        match event {
            Event::Token(token) if token.text.is_empty() && !self.parts.logprobs => {}
            Event::Token(token) | Event::Reasoning(token) => self.token(index, &token, out),
            Event::MalformedToolCall(call) => {
                self.send(vec![Choice::part(index, &call.text)], None, out);
            }
            Event::AnswerFinished(end) => {
                self.finish(index, &end.text, &end.reason, out)?;
            }
            Event::Finished(end) => {
                self.usage.add(&end.usage);
                self.timings = self.delivery.timings.then(|| Timings::from(&end.usage));
                self.finish(index, &end.text, &end.reason, out)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Outbox) {
        if self.delivery.include_usage {
            self.send(Vec::new(), Some(self.usage), out);
        }
        out.text(DONE);
    }

    fn error(&mut self, error: &ApiError, out: &mut Outbox) {
        out.chunk(&error.json());
        out.text(DONE);
    }
}
