//! Requests of `/v1/responses`.

use crate::apis::openai::request;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use exsa_core::Request;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A request without its conversation.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) stream: bool,
    pub(super) store: bool,
    /// Whether the answer is generated after the response was sent.
    pub(super) background: bool,
    /// Input of this request.
    pub(super) input: Value,
    pub(super) instructions: Option<String>,
    pub(super) previous: Option<String>,
    /// Whether log-probabilities are sent.
    pub(super) logprobs: bool,
    /// Fields that the response echoes.
    pub(super) echo: Map<String, Value>,
    /// The remaining fields, in the form of chat completions.
    fields: Fields,
}

#[derive(Deserialize)]
struct Text {
    format: Option<Value>,
    verbosity: Option<String>,
}

#[derive(Deserialize)]
struct Reasoning {
    effort: Option<Value>,
    summary: Option<Value>,
}

impl Asked {
    pub(super) fn read(mut fields: Fields) -> Result<Self, ApiError> {
        for (field, reason) in [
            ("prompt", "prompt templates are not supported; use input and instructions"),
            ("conversation", "conversations are not supported; use previous_response_id"),
            ("messages", "use input"),
            ("n", "a response has one answer"),
            ("best_of", "a response has one answer"),
        ] {
            let value: Option<Value> = fields.take(field)?;
            let one_answer = |value: &Value| matches!(field, "n" | "best_of") && *value == 1;
            if value.is_some_and(|value| !one_answer(&value)) {
                return Err(ApiError::invalid(format!("{field}: {reason}")).param(field));
            }
        }
        let input = fields.take("input")?;
        let input = input.ok_or_else(|| ApiError::invalid("input is missing").param("input"))?;
        let mut asked = Self {
            stream: fields.take("stream")?.unwrap_or(false),
            store: fields.take("store")?.unwrap_or(true),
            background: fields.take("background")?.unwrap_or(false),
            input,
            instructions: fields.take("instructions")?,
            previous: fields.take("previous_response_id")?,
            logprobs: false,
            echo: Map::new(),
            fields,
        };
        if asked.background && (asked.stream || !asked.store) {
            let message =
                "background: stream must be false and store true; GET /v1/responses/{id} returns the answer";
            return Err(ApiError::invalid(message).param("background"));
        }
        asked.take_include()?;
        asked.take_limits()?;
        asked.take_text()?;
        asked.take_reasoning()?;
        asked.take_tools()?;
        asked.take_metadata()?;
        let _: Option<Value> = asked.fields.take("stream_options")?;
        asked.echo.insert("instructions".into(), asked.instructions.clone().into());
        asked.echo.insert("previous_response_id".into(), asked.previous.clone().into());
        Ok(asked)
    }

    /// Builds the request with its conversation, as messages of chat completions.
    pub(super) fn into_request(mut self, mut messages: Vec<Value>) -> Result<Request, ApiError> {
        if let Some(instructions) = self.instructions {
            messages.insert(0, json!({"role": "system", "content": instructions}));
        }
        self.fields.set("messages", messages);
        request::read(self.fields)
    }

    fn take_include(&mut self) -> Result<(), ApiError> {
        let include: Vec<String> = self.fields.take("include")?.unwrap_or_default();
        self.logprobs = include.iter().any(|item| item == "message.output_text.logprobs");
        let top: u64 = self.fields.take("top_logprobs")?.unwrap_or(0);
        self.echo.insert("top_logprobs".into(), top.into());
        self.logprobs |= top > 0;
        let _: Option<Value> = self.fields.take("logprobs")?;
        if self.logprobs {
            self.fields.set("logprobs", true);
            self.fields.set("top_logprobs", top);
        }
        Ok(())
    }

    fn take_limits(&mut self) -> Result<(), ApiError> {
        let tokens: Option<u64> = self.fields.take("max_output_tokens")?;
        if tokens == Some(0) {
            let message = "max_output_tokens is 0; at least 1 token is generated";
            return Err(ApiError::invalid(message).param("max_output_tokens"));
        }
        self.echo.insert("max_output_tokens".into(), tokens.into());
        if let Some(tokens) = tokens {
            self.fields.set("max_tokens", tokens);
        }
        let calls: Option<u64> = self.fields.take("max_tool_calls")?;
        self.echo.insert("max_tool_calls".into(), calls.into());
        let truncation = self.fields.get("truncation").cloned().unwrap_or_else(|| "disabled".into());
        self.echo.insert("truncation".into(), truncation);
        Ok(())
    }

    /// `text.format` is `response_format` with the schema one level higher.
    fn take_text(&mut self) -> Result<(), ApiError> {
        let text: Option<Text> = self.fields.take("text")?;
        let (format, verbosity) = text.map_or((None, None), |text| (text.format, text.verbosity));
        let format = format.unwrap_or_else(|| json!({"type": "text"}));
        let response_format = match format.get("type").and_then(Value::as_str) {
            Some("text") => None,
            Some("json_object") => Some(json!({"type": "json_object"})),
            Some("json_schema") => {
                let Some(schema) = format.get("schema").filter(|schema| !schema.is_null()) else {
                    let message = "text.format: json_schema needs a schema";
                    return Err(ApiError::invalid(message).param("text.format.schema"));
                };
                Some(json!({"type": "json_schema", "json_schema": {"schema": schema}}))
            }
            _ => {
                let message =
                    "text.format: the type is not supported; allowed are text, json_object and json_schema";
                return Err(ApiError::invalid(message).param("text.format"));
            }
        };
        if let Some(response_format) = response_format {
            self.fields.set("response_format", response_format);
        }
        let mut text = json!({"format": format});
        if let Some(verbosity) = verbosity {
            text["verbosity"] = verbosity.into();
        }
        self.echo.insert("text".into(), text);
        Ok(())
    }

    fn take_reasoning(&mut self) -> Result<(), ApiError> {
        let reasoning: Option<Reasoning> = self.fields.take("reasoning")?;
        let (effort, summary) = reasoning.map_or((None, None), |asked| (asked.effort, asked.summary));
        self.echo.insert("reasoning".into(), json!({"effort": effort, "summary": summary}));
        if let Some(effort) = effort {
            self.fields.set("reasoning_effort", effort);
        }
        Ok(())
    }

    /// Tools of responses have their function one level higher than those of chat completions.
    fn take_tools(&mut self) -> Result<(), ApiError> {
        let tools: Vec<Value> = self.fields.take("tools")?.unwrap_or_default();
        let mut functions = Vec::with_capacity(tools.len());
        let mut strict = false;
        for (index, tool) in tools.iter().enumerate() {
            let param = format!("tools[{index}]");
            if tool.get("type").and_then(Value::as_str) != Some("function") {
                let message = format!("{param}: the type is not supported; allowed is function");
                return Err(ApiError::invalid(message).param(param));
            }
            if !tool.get("name").is_some_and(Value::is_string) {
                let message = format!("{param}.name: a text is expected");
                return Err(ApiError::invalid(message).param(param));
            }
            strict |= tool.get("strict") == Some(&Value::Bool(true));
            let mut function = Map::new();
            for field in ["name", "description", "parameters", "strict"] {
                if let Some(value) = tool.get(field).filter(|value| !value.is_null()) {
                    function.insert(field.into(), value.clone());
                }
            }
            functions.push(json!({"type": "function", "function": function}));
        }
        if !functions.is_empty() {
            self.fields.set("tools", functions);
            if strict && self.fields.get("strict_tool_calls").is_none() {
                self.fields.set("strict_tool_calls", true);
            }
        }
        let choice = self.fields.get("tool_choice").cloned().unwrap_or_else(|| "auto".into());
        let parallel = self.fields.get("parallel_tool_calls").cloned().unwrap_or(Value::Bool(true));
        self.echo.insert("tools".into(), tools.into());
        self.echo.insert("tool_choice".into(), choice);
        self.echo.insert("parallel_tool_calls".into(), parallel);
        Ok(())
    }

    fn take_metadata(&mut self) -> Result<(), ApiError> {
        let metadata = request::metadata(&mut self.fields)?;
        self.echo.insert("metadata".into(), metadata.unwrap_or_default().into());
        for field in ["user", "safety_identifier", "prompt_cache_key"] {
            let value: Option<String> = match field {
                "user" => self.fields.get(field).and_then(Value::as_str).map(str::to_owned),
                field => self.fields.take(field)?,
            };
            self.echo.insert(field.into(), value.into());
        }
        Ok(())
    }
}
