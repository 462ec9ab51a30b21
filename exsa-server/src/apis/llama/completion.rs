//! `/completion` in llama-server's form.

use super::request::{self, Form, settings};
use crate::apis::openai::logprobs::ChatLogprobs;
use crate::http::body::Fields;
use crate::http::context::Client;
use crate::http::error::ApiError;
use crate::http::stream::{self, Chunks, Outbox};
use crate::inference::timings::Timings;
use crate::models::adapters::take_ids;
use crate::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use exsa_core::stream::{Finished, Token};
use exsa_core::tokenizer::Tokenizer;
use exsa_core::{Event, FinishReason, Prompt, Request, TokenId};
use serde_json::{Value, json};
use std::sync::Arc;

/// A request and the prompt that its answer echoes.
pub(super) struct Prepared {
    pub(super) request: Request,
    pub(super) prompt: Value,
}

/// Completes a prompt, or each of a list of prompts.
pub(crate) async fn complete(
    State(state): State<Arc<AppState>>,
    client: Client,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let form = Form::take(&mut fields)?;
    take_ids(&state, &mut fields)?;
    let prompt = fields.take("prompt")?;
    let prompt: Value = prompt.ok_or_else(|| ApiError::invalid("prompt is missing").param("prompt"))?;
    let prompt = request::text_alone(prompt);
    let (prompts, is_list) = request::prompts(prompt);
    let max = state.options.get().prompts_max;
    if prompts.len() > max {
        let message = format!("prompt: {} prompts; at most {max} are allowed", prompts.len());
        return Err(ApiError::invalid(message).param("prompt"));
    }
    let mut prepared = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let is_mixed = |items: &Vec<Value>| items.iter().any(Value::is_string);
        let request = match &prompt {
            Value::Array(items) if is_mixed(items) => {
                let mut request = request::read(&fields, Value::Array(Vec::new()))?;
                state.name_adapter(&client.caller, &mut request);
                state.authorise(&client.caller, request.model.as_deref())?;
                let tokenizer = state.generator.tokenizer(request.model.as_deref())?;
                let items = items.clone();
                let tokens = state.off_thread(move |_| request::mixed(&items, &*tokenizer)).await?;
                request.prompt = Prompt::Tokens(tokens);
                request
            }
            prompt => {
                let mut request = request::read(&fields, prompt.clone())?;
                state.name_adapter(&client.caller, &mut request);
                request
            }
        };
        if matches!(request.prompt, Prompt::Chat(_)) {
            return Err(ApiError::invalid("a prompt is required, not messages").param("prompt"));
        }
        prepared.push(Prepared { request, prompt });
    }
    answer(state, &client, prepared, is_list, form).await
}

/// Submits the requests and sends their answers; as a list if `is_list`.
pub(super) async fn answer(
    state: Arc<AppState>,
    client: &Client,
    prepared: Vec<Prepared>,
    is_list: bool,
    form: Form,
) -> Result<Response, ApiError> {
    let model = prepared.first().and_then(|first| first.request.model.clone());
    let model = state.ready(&client.caller, model.as_deref()).await?.name.clone();
    let tokenizer = match form.has_text_biases() {
        true => Some(state.generator.tokenizer(Some(&model))?),
        false => state.generator.tokenizer(Some(&model)).ok(),
    };
    let mut requests = Vec::with_capacity(prepared.len());
    let mut answers = Vec::with_capacity(prepared.len());
    for (index, Prepared { mut request, prompt }) in prepared.into_iter().enumerate() {
        if request.n != 1 {
            return Err(ApiError::invalid("n: this route gives one answer per prompt").param("n"));
        }
        request.best_of = None;
        if let Some(tokenizer) = &tokenizer {
            form.add_biases(&mut request, &**tokenizer);
        }
        answers.push(Answer::new(index, &request, prompt, model.clone(), tokenizer.clone(), form.clone()));
        requests.push(request);
    }
    let streams = state.submit(client, requests).await?;
    if form.stream {
        return Ok(stream::events(streams, LlamaChunks(answers), state.options.get().keep_alive));
    }
    let mut objects = Vec::with_capacity(answers.len());
    for (mut stream, mut answer) in streams.into_iter().zip(answers) {
        while let Some(event) = stream.next().await? {
            if let Some(end) = answer.take(event) {
                objects.push(form.choose(answer.whole(&end)?));
            }
        }
    }
    let one = if is_list { None } else { objects.pop() };
    Ok(Json(one.unwrap_or(Value::Array(objects))).into_response())
}

/// An answer in progress.
struct Answer {
    index: usize,
    model: String,
    prompt: Value,
    settings: Value,
    stops: Vec<String>,
    tokenizer: Option<Arc<dyn Tokenizer>>,
    form: Form,
    text: String,
    tokens: Vec<TokenId>,
    probabilities: Vec<Value>,
}

impl Answer {
    fn new(
        index: usize,
        request: &Request,
        prompt: Value,
        model: String,
        tokenizer: Option<Arc<dyn Tokenizer>>,
        form: Form,
    ) -> Self {
        Self {
            index,
            model,
            prompt,
            settings: settings(request, tokenizer.as_deref()),
            stops: request.stop.clone(),
            tokenizer: tokenizer.filter(|_| form.probabilities),
            form,
            text: String::new(),
            tokens: Vec::new(),
            probabilities: Vec::new(),
        }
    }

    /// Processes an event; returns the final one.
    fn take(&mut self, event: Event) -> Option<Finished> {
        match event {
            Event::Token(token) | Event::Reasoning(token) => {
                self.probabilities.extend(self.probabilities_of(&token));
                self.tokens.extend(token.id);
                self.text.push_str(&token.text);
            }
            Event::MalformedToolCall(malformed) => self.text.push_str(&malformed.text),
            Event::Finished(end) => {
                self.text.push_str(&end.text);
                return Some(end);
            }
            _ => {}
        }
        None
    }

    /// The token with its log-probabilities and its id, as in llama-server.
    fn probabilities_of(&self, token: &Token) -> Vec<Value> {
        let Some(tokenizer) = self.tokenizer.as_deref() else { return Vec::new() };
        let mut values = ChatLogprobs::of([token], tokenizer).into_values();
        for value in &mut values {
            value["id"] = token.id.into();
            for (candidate, top) in
                value["top_logprobs"].as_array_mut().into_iter().flatten().zip(&token.top_logprobs)
            {
                candidate["id"] = top.id.into();
            }
        }
        values
    }

    /// A chunk with a part of the answer.
    fn part(&self, text: &str, token: &Token) -> Value {
        let mut chunk = json!({
            "index": self.index, "content": text, "tokens": token.id.into_iter().collect::<Vec<_>>(), "stop": false,
            "id_slot": -1, "tokens_predicted": self.tokens.len(), "tokens_evaluated": 0,
        });
        if self.form.probabilities {
            chunk["completion_probabilities"] = self.probabilities_of(token).into();
        }
        chunk
    }

    /// The last chunk: everything except the text.
    fn end(&self, end: &Finished) -> Result<Value, ApiError> {
        if let Some(error) = ApiError::of_reason(&end.reason) {
            return Err(error);
        }
        let (stop_type, word) = match &end.reason {
            FinishReason::MaxTokens | FinishReason::ContextFull => ("limit", ""),
            FinishReason::StopString(index) => ("word", self.stops.get(*index).map_or("", String::as_str)),
            FinishReason::EndOfGeneration | FinishReason::StopToken(_) => ("eos", ""),
            _ => ("none", ""),
        };
        let usage = &end.usage;
        let mut settings = self.settings.clone();
        settings["seed"] = end.seed.into();
        Ok(json!({
            "index": self.index,
            "content": end.text,
            "tokens": [],
            "id_slot": -1,
            "stop": true,
            "model": self.model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "tokens_cached": usage.cached_tokens,
            "generation_settings": settings,
            "prompt": self.prompt,
            "has_new_line": self.text.contains('\n'),
            "truncated": usage.shifted_tokens > 0 || end.reason == FinishReason::ContextFull,
            "stop_type": stop_type,
            "stopping_word": word,
            "timings": Timings::from(usage),
        }))
    }

    /// The complete answer.
    fn whole(&self, end: &Finished) -> Result<Value, ApiError> {
        let mut object = self.end(end)?;
        object["content"] = self.text.as_str().into();
        if self.form.tokens {
            object["tokens"] = json!(self.tokens);
        }
        if self.form.probabilities {
            object["completion_probabilities"] = json!(self.probabilities);
        }
        Ok(object)
    }
}

/// The chunks of one or several answers.
struct LlamaChunks(Vec<Answer>);

impl Chunks for LlamaChunks {
    fn event(&mut self, index: usize, event: Event, out: &mut Outbox) -> Result<(), ApiError> {
        let Some(answer) = self.0.get_mut(index) else { return Ok(()) };
        let part = match &event {
            Event::Token(token) | Event::Reasoning(token) => Some(token.clone()),
            Event::MalformedToolCall(malformed) => Some(Token::new(None, malformed.text.clone())),
            _ => None,
        };
        if let Some(end) = answer.take(event) {
            out.chunk(&answer.form.choose(answer.end(&end)?));
        }
        // A token may have no text of its own, but its id is sent if ids are requested.
        let shown = |token: &Token| {
            !token.text.is_empty() || answer.form.probabilities || answer.form.tokens && token.id.is_some()
        };
        if let Some(token) = part.filter(shown) {
            out.chunk(&answer.part(&token.text, &token));
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Outbox) {}

    fn error(&mut self, error: &ApiError, out: &mut Outbox) {
        out.chunk(&error.json());
    }
}
