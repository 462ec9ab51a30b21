//! Requests in the form of Anthropic's API.

use crate::apis::openai::request;
use crate::http::body::Fields;
use crate::http::error::ApiError;
use exsa_core::Request;
use serde::Deserialize;
use serde_json::{Value, json};

/// A request for an answer. Fields of other names are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct MessagesRequest {
    model: Option<String>,
    messages: Vec<Turn>,
    system: Option<Content>,
    pub(super) max_tokens: Option<u64>,
    #[serde(default)]
    pub(super) stop_sequences: Vec<String>,
    #[serde(default)]
    pub(super) stream: bool,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    #[serde(default)]
    tools: Vec<Tool>,
    tool_choice: Option<Choice>,
    thinking: Option<Thinking>,
    metadata: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    role: Role,
    content: Content,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "content is a text or a list of blocks of a known type")]
enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text { text: String },
    Image { source: Source },
    Thinking { thinking: String },
    RedactedThinking {},
    ToolUse { id: String, name: String, input: Value },
    ToolResult { tool_use_id: String, content: Option<Content> },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source {
    Base64 { media_type: String, data: String },
    Url { url: String },
}

#[derive(Debug, Deserialize)]
struct Tool {
    name: String,
    description: Option<String>,
    input_schema: Value,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Choice {
    Auto {
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    Any {
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    Tool {
        name: String,
        #[serde(default)]
        disable_parallel_tool_use: bool,
    },
    None {},
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Thinking {
    Enabled { budget_tokens: u64 },
    Adaptive {},
    Disabled {},
}

#[derive(Debug, Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

impl MessagesRequest {
    /// Converts to a request in the engine's form.
    pub(super) fn into_request(self) -> Result<Request, ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages: at least one message is required").param("messages"));
        }
        let mut messages = Vec::new();
        if let Some(system) = self.system {
            messages.push(json!({"role": "system", "content": system.parts()}));
        }
        self.messages.into_iter().for_each(|turn| turn.append_to(&mut messages));
        let mut fields = Fields::new();
        fields.set("messages", messages);
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.set(name, value);
            }
        };
        set("model", self.model.map(Value::from));
        set("max_tokens", self.max_tokens.map(Value::from));
        set("stop", Some(self.stop_sequences.into()));
        set("temperature", self.temperature.map(Value::from));
        set("top_p", self.top_p.map(Value::from));
        set("top_k", self.top_k.map(Value::from));
        set("user", self.metadata.and_then(|metadata| metadata.user_id).map(Value::from));
        if !self.tools.is_empty() {
            set("tools", Some(self.tools.into_iter().map(Tool::json).collect()));
        }
        if let Some(choice) = self.tool_choice {
            let (choice, parallel) = choice.json();
            set("tool_choice", Some(choice));
            set("parallel_tool_calls", Some(parallel.into()));
        }
        match self.thinking {
            Some(Thinking::Enabled { budget_tokens }) => {
                set("thinking_budget", Some(budget_tokens.into()));
                set("chat_template_kwargs", Some(json!({"enable_thinking": true})));
            }
            Some(Thinking::Adaptive {}) => {
                set("chat_template_kwargs", Some(json!({"enable_thinking": true})));
            }
            Some(Thinking::Disabled {}) => {
                set("chat_template_kwargs", Some(json!({"enable_thinking": false})));
            }
            None => {}
        }
        request::read(fields)
    }
}

impl Turn {
    /// Appends the messages of a turn: tool results become separate messages, before the rest.
    fn append_to(self, messages: &mut Vec<Value>) {
        let blocks = match self.content {
            Content::Text(text) => vec![Block::Text { text }],
            Content::Blocks(blocks) => blocks,
        };
        let (mut parts, mut calls, mut thoughts) = (Vec::new(), Vec::new(), String::new());
        for block in blocks {
            match block {
                Block::ToolResult { tool_use_id, content } => {
                    let content = content.map_or_else(|| json!(""), Content::parts);
                    messages.push(json!({"role": "tool", "tool_call_id": tool_use_id, "content": content}));
                }
                Block::ToolUse { id, name, input } => calls.push(json!({
                    "id": id,
                    "type": "function",
                    "function": {"name": name, "arguments": input.to_string()},
                })),
                Block::Thinking { thinking } => thoughts.push_str(&thinking),
                block => parts.extend(block.part()),
            }
        }
        if parts.is_empty() && calls.is_empty() && thoughts.is_empty() {
            return;
        }
        let role = match self.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let mut message = json!({"role": role});
        message["content"] = if parts.is_empty() { Value::Null } else { joined(parts) };
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        if !thoughts.is_empty() {
            message["reasoning"] = thoughts.into();
        }
        messages.push(message);
    }
}

impl Content {
    /// Converts the content of a message to OpenAI's form.
    fn parts(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Blocks(blocks) => joined(blocks.into_iter().filter_map(Block::part).collect()),
        }
    }
}

/// Joins parts to one text if all are texts, which every template accepts.
fn joined(parts: Vec<Value>) -> Value {
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part["text"].as_str()).collect();
    match texts {
        Some(texts) => texts.join("\n").into(),
        None => parts.into(),
    }
}

impl Block {
    /// Converts a block to a part of OpenAI's content; `None` for blocks without one.
    fn part(self) -> Option<Value> {
        let url = match self {
            Self::Text { text } => return Some(json!({"type": "text", "text": text})),
            Self::Image { source: Source::Base64 { media_type, data } } => {
                format!("data:{media_type};base64,{data}")
            }
            Self::Image { source: Source::Url { url } } => url,
            _ => return None,
        };
        Some(json!({"type": "image_url", "image_url": {"url": url}}))
    }
}

impl Tool {
    fn json(self) -> Value {
        let mut function = json!({"name": self.name, "parameters": self.input_schema});
        if let Some(description) = self.description {
            function["description"] = description.into();
        }
        json!({"type": "function", "function": function})
    }
}

impl Choice {
    /// Returns OpenAI's `tool_choice` and `parallel_tool_calls`.
    fn json(self) -> (Value, bool) {
        match self {
            Self::Auto { disable_parallel_tool_use: single } => ("auto".into(), !single),
            Self::Any { disable_parallel_tool_use: single } => ("required".into(), !single),
            Self::Tool { name, disable_parallel_tool_use: single } => {
                (json!({"type": "function", "function": {"name": name}}), !single)
            }
            Self::None {} => ("none".into(), true),
        }
    }
}
