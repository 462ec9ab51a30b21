//! A server that speaks OpenAI's completions.

use crate::error::BenchError;
use crate::load::answer::Tokens;
use crate::load::options::LoadGenOptions;
use crate::load::sse::next_event;
use crate::load::target::Target;
use crate::load::workload::{Planned, Prompt};
use serde::Deserialize;
use serde_json::json;
use std::io::{BufReader, Read};
use std::time::Duration;

/// Bytes of an error's answer that are told.
const ERROR_BYTES_MAX: u64 = 400;

/// A server at some address.
pub struct Server {
    name: String,
    url: String,
    model: String,
    agent: ureq::Agent,
}

/// Fields of an event that are read.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: usize,
    #[serde(default)]
    completion_tokens: usize,
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<usize>,
}

impl Server {
    /// The server at `url`, which is what comes before `/v1/completions`.
    pub fn new(name: String, url: String, options: &LoadGenOptions) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(options.timeout)));
        let agent = ureq::Agent::new_with_config(config.build());
        let url = format!("{}/v1/completions", url.trim_end_matches('/'));
        Self { name, url, model: options.http_model.clone(), agent }
    }

    fn failed(&self, reason: impl std::fmt::Display) -> BenchError {
        BenchError::Answer { target: self.name.clone(), reason: reason.to_string() }
    }
}

impl Target for Server {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&self, planned: &Planned, piece: &mut dyn FnMut()) -> Result<Tokens, BenchError> {
        let prompt = match &planned.prompt {
            Prompt::Tokens(tokens) => json!(tokens),
            Prompt::Text(text) => json!(text),
        };
        let body = json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": planned.generate,
            "temperature": 0,
            "ignore_eos": true,
            "stream": true,
            "stream_options": {"include_usage": true},
            "user": planned.user_name,
        });
        let mut response = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .send(body.to_string())
            .map_err(|error| self.failed(error))?;
        if !response.status().is_success() {
            let mut text = Vec::new();
            // The status alone is enough to tell.
            let _ = response.body_mut().as_reader().take(ERROR_BYTES_MAX).read_to_end(&mut text);
            let text = String::from_utf8_lossy(&text);
            return Err(self.failed(format_args!("{}: {text}", response.status())));
        }
        let mut reader = BufReader::new(response.body_mut().as_reader());
        let (mut usage, mut finished) = (None, None);
        while let Some(data) = next_event(&mut reader).map_err(|error| self.failed(error))? {
            if data == "[DONE]" {
                break;
            }
            let chunk: Chunk = serde_json::from_str(&data).map_err(|error| self.failed(error))?;
            if let Some(error) = chunk.error {
                return Err(self.failed(error));
            }
            for choice in chunk.choices {
                if !choice.text.is_empty() {
                    piece();
                }
                finished = choice.finish_reason.or(finished);
            }
            usage = chunk.usage.or(usage);
        }
        let usage = usage.ok_or_else(|| self.failed("the answer ended without usage"))?;
        if usage.completion_tokens != planned.generate {
            let (found, wanted) = (usage.completion_tokens, planned.generate);
            let finished = finished.unwrap_or_else(|| "no reason".into());
            return Err(self.failed(format_args!("{found} tokens instead of {wanted} ({finished})")));
        }
        let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        Ok(Tokens {
            prompt: usage.prompt_tokens,
            cached: cached.unwrap_or_default().min(usage.prompt_tokens),
            generated: usage.completion_tokens,
        })
    }
}
