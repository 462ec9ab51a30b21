//! `/v1/completions`.

use super::finish::finish_reason;
use super::logprobs::CompletionLogprobs;
use super::request::{self, DONE, Delivery};
use super::usage::Usage;
use crate::body::Fields;
use crate::context::Client;
use crate::error::ApiError;
use crate::state::{AppState, unix_seconds};
use crate::stream::{self, Chunks, Outbox};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use exsa_core::stream::Token;
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Event, FinishReason, Prompt, Request};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    text: &'a str,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

/// Continues texts or token ids.
pub(crate) async fn complete(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let delivery = Delivery::take(&mut fields)?;
    let wants_logprobs = take_logprobs(&mut fields)?;
    let requests = read_prompts(fields, state.options.prompts_max)?;
    let Some(first) = requests.first() else {
        return Err(ApiError::invalid("prompt: the list is empty").param("prompt"));
    };
    let n = first.n;
    let model = state.ready(&client.caller, first.model.as_deref()).await?.name.clone();
    let tokenizer = match wants_logprobs {
        true => Some(state.generator.tokenizer(first.model.as_deref())?),
        false => None,
    };
    let streams = state.submit(&client, requests).await?;
    let (id, created) = (state.id("cmpl-"), unix_seconds());
    if delivery.stream {
        let chunks = TextChunks {
            id,
            created,
            model,
            tokenizer,
            include_usage: delivery.include_usage,
            usage: Usage::default(),
            n,
            offsets: BTreeMap::new(),
        };
        return Ok(stream::events(streams, chunks, state.options.keep_alive));
    }
    let (mut answers, mut usage) = (Vec::new(), Usage::default());
    for stream in streams {
        let completions = stream.complete_all().await?;
        if let Some(first) = completions.first() {
            usage.add(&first.usage);
        }
        answers.extend(completions);
    }
    let choices = answers.iter().enumerate().map(|(index, answer)| Choice {
        index,
        text: &answer.text,
        logprobs: tokenizer.as_deref().map(|t| CompletionLogprobs::of(&answer.tokens, t, 0).0),
        finish_reason: Some(finish_reason(&answer.reason, false)),
    });
    let (object, choices) = ("text_completion", choices.collect());
    let usage = Some(usage);
    Ok(Json(Answer { id: &id, object, created, model: &model, choices, usage }).into_response())
}

/// Turns the number of log-probabilities that completions ask for into the two fields of a request.
fn take_logprobs(fields: &mut Fields) -> Result<bool, ApiError> {
    let wanted = match fields.take::<Value>("logprobs")? {
        None | Some(Value::Bool(false)) => return Ok(false),
        Some(Value::Bool(true)) => 0,
        Some(value) => value.as_u64().ok_or_else(|| {
            ApiError::invalid("logprobs: an integer of 0 or more is expected").param("logprobs")
        })?,
    };
    fields.set("logprobs", true);
    fields.set("top_logprobs", wanted);
    Ok(true)
}

/// Reads the prompts: a text, a list of token ids, or a list of either.
fn read_prompts(mut fields: Fields, prompts_max: usize) -> Result<Vec<Request>, ApiError> {
    for unsupported in ["suffix", "echo"] {
        let value: Option<Value> = fields.take(unsupported)?;
        if value.is_some_and(|value| value != Value::Bool(false) && value != "") {
            let message = format!("{unsupported} is not supported");
            return Err(ApiError::invalid(message).param(unsupported));
        }
    }
    let prompt: Value =
        fields.take("prompt")?.ok_or_else(|| ApiError::invalid("prompt is missing").param("prompt"))?;
    let prompts = match prompt {
        Value::Array(items) if items.iter().any(|item| !item.is_number()) => items,
        prompt => vec![prompt],
    };
    if prompts.len() > prompts_max {
        let message = format!("prompt: {} prompts, but at most {prompts_max} are allowed", prompts.len());
        return Err(ApiError::invalid(message).param("prompt"));
    }
    let read = |prompt| {
        let request = request::read(fields.with("prompt", prompt))?;
        match &request.prompt {
            Prompt::Chat(_) => Err(ApiError::invalid("a prompt is needed, not messages").param("prompt")),
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
    /// Set where log-probabilities are sent.
    tokenizer: Option<Arc<dyn Tokenizer>>,
    include_usage: bool,
    usage: Usage,
    /// Answers to each prompt.
    n: usize,
    /// Characters sent of each answer, by index.
    offsets: BTreeMap<usize, usize>,
}

impl TextChunks {
    fn send(&self, choices: Vec<Choice<'_>>, usage: Option<Usage>, out: &mut Outbox) {
        let (id, model) = (self.id.as_str(), self.model.as_str());
        let object = "text_completion";
        out.chunk(&Answer { id, object, created: self.created, model, choices, usage });
    }

    fn token(&mut self, index: usize, token: &Token, out: &mut Outbox) {
        let offset = self.offsets.entry(index).or_default();
        let logprobs = self.tokenizer.as_deref().map(|tokenizer| {
            let (logprobs, end) = CompletionLogprobs::of([token], tokenizer, *offset);
            *offset = end;
            logprobs
        });
        self.send(vec![Choice { index, text: &token.text, logprobs, finish_reason: None }], None, out);
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
        self.send(vec![Choice { index, text, logprobs: None, finish_reason }], None, out);
        Ok(())
    }
}

impl Chunks for TextChunks {
    fn event(&mut self, request: usize, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        match event {
            Event::Token(token) if token.text.is_empty() && self.tokenizer.is_none() => {}
            Event::Token(token) | Event::Reasoning(token) => {
                self.token(request * self.n + token.index, &token, out)
            }
            Event::MalformedToolCall(call) => {
                let choice = Choice {
                    index: request * self.n + call.index,
                    text: &call.text,
                    logprobs: None,
                    finish_reason: None,
                };
                self.send(vec![choice], None, out);
            }
            Event::AnswerFinished(end) => {
                self.finish(request * self.n + end.index, &end.text, &end.reason, out)?
            }
            Event::Finished(end) => {
                self.usage.add(&end.usage);
                self.finish(request * self.n + end.index, &end.text, &end.reason, out)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Outbox) {
        if self.include_usage {
            self.send(Vec::new(), Some(self.usage), out);
        }
        out.text(DONE);
    }

    fn error(&mut self, error: &ApiError, out: &mut Outbox) {
        out.chunk(&error.json());
        out.text(DONE);
    }
}
