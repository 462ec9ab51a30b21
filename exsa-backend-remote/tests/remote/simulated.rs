//! Engines of each dialect, simulated: a local engine behind the protocol. Requests with a field that the
//! real engine does not document are refused.

use crate::fields;
use crate::mock::{Exchange, Mock, Received};
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::stream::{Token, TopLogprob};
use exsa_core::{Engine, EngineOptions, Event, FinishReason, Request, SamplingParams, TokenId};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The model of both sides: every token depends on all tokens before.
pub fn model() -> ScriptedModel {
    ScriptedModel::ngram(11).order(usize::MAX).context(512)
}

pub fn engine() -> Arc<Engine> {
    Arc::new(Engine::start(model().shared(), EngineOptions::default()).unwrap())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    VllmGenerate,
    Vllm,
    TensorRtLlm,
    /// Every event has the whole answer so far.
    Sglang,
    SglangIncremental,
    LlamaServer,
    Triton,
}

/// Starts a simulated engine.
pub fn start(kind: Kind) -> Mock {
    start_frail(kind, usize::MAX)
}

/// Starts an engine whose connections break after so many events.
pub fn start_frail(kind: Kind, events_max: usize) -> Mock {
    let engine = engine();
    Mock::start(move |request, exchange| {
        exchange.events_max = events_max;
        serve(kind, &engine, request, exchange);
    })
}

fn serve(kind: Kind, engine: &Engine, request: &Received, exchange: &mut Exchange<'_>) {
    let owner = match kind {
        Kind::VllmGenerate | Kind::Vllm => "vllm",
        Kind::TensorRtLlm => "tensorrt_llm",
        Kind::Sglang | Kind::SglangIncremental => "sglang",
        Kind::LlamaServer => "llamacpp",
        Kind::Triton => "",
    };
    let path = request.path.as_str();
    if path == "/v1/models" && kind != Kind::Triton {
        let mut model = json!({ "id": "served", "owned_by": owner });
        if kind != Kind::LlamaServer && kind != Kind::TensorRtLlm {
            model["max_model_len"] = 512.into();
        }
        return exchange.json(200, &json!({ "data": [model] }));
    }
    let (route, fields) = match (kind, path) {
        (Kind::LlamaServer, "/props") => {
            return exchange.json(200, &json!({ "default_generation_settings": { "n_ctx": 512 } }));
        }
        (Kind::Triton, "/v2/health/ready") => return exchange.respond(200, "text/plain", "", ""),
        (Kind::VllmGenerate, "/inference/v1/abort_requests") | (_, "/abort_request") => {
            return exchange.json(200, &json!({}));
        }
        (Kind::VllmGenerate, "/inference/v1/generate") if request.body == json!({}) => {
            return exchange.json(400, &json!({ "error": { "message": "token_ids: field required" } }));
        }
        (Kind::Vllm, "/inference/v1/generate") => {
            return exchange.json(403, &json!({ "error": "start with --enable-scale-out" }));
        }
        (Kind::VllmGenerate, "/inference/v1/generate") => ("generate", fields::VLLM_GENERATE),
        (Kind::Vllm | Kind::VllmGenerate, "/v1/completions") => ("completions", fields::VLLM_COMPLETION),
        (Kind::TensorRtLlm, "/v1/completions") => ("completions", fields::TRTLLM_COMPLETION),
        (Kind::Sglang | Kind::SglangIncremental, "/generate") => ("sglang", fields::SGLANG_GENERATE),
        (Kind::LlamaServer, "/completion") => ("llama", fields::LLAMA_COMPLETION),
        (Kind::Triton, "/v2/models/ensemble/generate_stream") => ("triton", fields::TRITON_ENSEMBLE),
        _ => return exchange.json(404, &json!({ "detail": "Not Found" })),
    };
    let body = request.body.as_object().unwrap();
    let nested = body.get("sampling_params").and_then(Value::as_object);
    let nested_fields = if route == "sglang" { fields::SGLANG_SAMPLING } else { fields::VLLM_SAMPLING };
    let unknown = fields::unknown(body, fields).or_else(|| fields::unknown(nested?, nested_fields));
    if let Some(name) = unknown {
        return exchange.json(400, &json!({ "message": format!("extra inputs are not permitted: {name}") }));
    }
    let settings = nested.unwrap_or(body);
    let prompt = match route {
        "generate" => ids(&body["token_ids"]),
        "sglang" => body.get("input_ids").map_or_else(|| bytes(&body["text"]), ids),
        "triton" => bytes(&body["text_input"]),
        _ if body["prompt"].is_array() => ids(&body["prompt"]),
        _ => bytes(&body["prompt"]),
    };
    let answer = generate(kind, engine, &prompt, settings, body);
    assert_eq!(body["stream"], true);
    exchange.begin_events();
    exchange.chunk(b": the request is queued\n\n");
    Writer { kind, exchange, body, prompt: prompt.len(), answer }.write(route);
}

fn ids(value: &Value) -> Vec<TokenId> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as TokenId).collect()
}

fn bytes(value: &Value) -> Vec<TokenId> {
    value.as_str().unwrap().bytes().map(TokenId::from).collect()
}

/// A whole answer, the token that ended it included.
struct Generated {
    tokens: Vec<Token>,
    /// Text that the end releases: what is left of a character.
    rest: String,
    by_limit: bool,
}

fn generate(
    kind: Kind,
    engine: &Engine,
    prompt: &[TokenId],
    settings: &Map<String, Value>,
    body: &Map<String, Value>,
) -> Generated {
    let real = |name: &str| settings.get(name).and_then(Value::as_f64);
    let number = |name: &str, default: f32| real(name).map_or(default, |value| value as f32);
    let (max_name, min_name, seed_name) = match kind {
        Kind::Sglang | Kind::SglangIncremental => ("max_new_tokens", "min_new_tokens", "sampling_seed"),
        Kind::LlamaServer => ("n_predict", "min_tokens", "seed"),
        _ => ("max_tokens", "min_tokens", "seed"),
    };
    let repetition = if kind == Kind::LlamaServer { "repeat_penalty" } else { "repetition_penalty" };
    // Defaults of the engines differ from the fields that are sent, so that omissions show.
    let mut sampling = SamplingParams::default()
        .temperature(number("temperature", 1.0))
        .top_k(real("top_k").filter(|k| *k > 0.0).map(|k| k as u32))
        .top_p(number("top_p", 1.0))
        .min_p(number("min_p", 0.0))
        .repetition_penalty(number(repetition, 1.0))
        .frequency_penalty(number("frequency_penalty", 0.0))
        .presence_penalty(number("presence_penalty", 0.0))
        .penalty_window(None)
        .penalize_prompt(kind == Kind::LlamaServer)
        .min_tokens(number(min_name, 0.0) as u32)
        .seed(settings.get(seed_name).and_then(Value::as_u64).expect("an explicit seed"))
        .logprobs(true)
        .top_logprobs(5);
    if let Some(bias) = settings.get("logit_bias") {
        let pair = |token: &str, bias: &Value| (token.parse().unwrap(), bias.as_f64().unwrap() as f32);
        sampling.logit_bias = match bias {
            Value::Object(map) => map.iter().map(|(token, bias)| pair(token, bias)).collect(),
            Value::Array(pairs) => pairs.iter().map(|it| pair(&it[0].to_string(), &it[1])).collect(),
            other => panic!("{other}"),
        };
    }
    if let Some(ignored) = body.get("prompt_ignore_length").and_then(Value::as_u64) {
        assert!(ignored as usize <= prompt.len());
    }
    let mut request = Request::tokens(prompt.to_vec()).sampling(sampling);
    request.max_tokens = real(max_name).filter(|max| *max > 0.0).map(|max| max as usize);
    request.ignore_eos = settings.get("ignore_eos") == Some(&json!(true));
    let stops = settings.get("stop_token_ids").map(ids).unwrap_or_default();
    request.stop_tokens = stops;
    let mut tokens = Vec::new();
    for event in engine.submit(request).unwrap() {
        match event {
            Event::Token(token) => tokens.push(token),
            Event::Finished(finished) => {
                match finished.reason {
                    FinishReason::EndOfGeneration => tokens.push(Token::new(ByteTokenizer::EOS, "")),
                    FinishReason::StopToken(id) => tokens.push(Token::new(id, "")),
                    _ => {}
                }
                let by_limit = matches!(finished.reason, FinishReason::MaxTokens | FinishReason::ContextFull);
                return Generated { tokens, rest: finished.text, by_limit };
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no end")
}

/// Writes an answer as a dialect does.
struct Writer<'a, 'b> {
    kind: Kind,
    exchange: &'a mut Exchange<'b>,
    body: &'a Map<String, Value>,
    prompt: usize,
    answer: Generated,
}

impl Writer<'_, '_> {
    fn write(mut self, route: &str) {
        match route {
            "generate" | "completions" => self.completions(route == "generate"),
            "sglang" => self.sglang(),
            "llama" => self.llama(),
            _ => self.triton(),
        }
    }

    /// Groups of one to three tokens.
    fn groups(&self) -> Vec<Vec<Token>> {
        let mut rest = &self.answer.tokens[..];
        let mut groups = Vec::new();
        while !rest.is_empty() {
            let n = (groups.len() % 3 + 1).min(rest.len());
            groups.push(rest[..n].to_vec());
            rest = &rest[n..];
        }
        groups
    }

    fn usage(&self) -> Value {
        let details = json!({ "cached_tokens": 2 });
        json!({ "prompt_tokens": self.prompt, "completion_tokens": self.answer.tokens.len(),
                "total_tokens": 0, "prompt_tokens_details": details })
    }

    fn completions(&mut self, generate: bool) {
        let by_ids =
            generate || self.body.get("return_token_ids").is_some() || self.body.get("detokenize").is_some();
        let no_text = generate || self.body.get("detokenize") == Some(&json!(false));
        for group in self.groups() {
            let mut choice = json!({ "index": 0, "finish_reason": null });
            let ids: Vec<_> = group.iter().map(|token| token.id).collect();
            if by_ids {
                choice["token_ids"] = json!(ids);
            }
            if !generate {
                // Text by another tokenizer than ours would differ; it must not be used where ids come.
                let text: String = group.iter().map(|token| token.text.as_str()).collect();
                choice["text"] = if no_text { json!("") } else { json!(text) };
            }
            choice["logprobs"] = match generate {
                true => json!({ "content": group.iter().map(chat_logprob).collect::<Vec<_>>() }),
                false => completion_logprobs(&group),
            };
            self.exchange.event(&json!({ "choices": [choice] }));
        }
        let reason = if self.answer.by_limit { "length" } else { "stop" };
        let mut choice = json!({ "index": 0, "finish_reason": reason, "token_ids": [] });
        if !generate {
            choice["text"] = json!(if no_text { "" } else { &self.answer.rest });
        }
        self.exchange.event(&json!({ "choices": [choice] }));
        let usage = self.usage();
        self.exchange.event(&json!({ "choices": [], "usage": usage }));
        self.exchange.done();
    }

    fn sglang(&mut self) {
        let whole = self.kind == Kind::Sglang;
        let (mut ids, mut text, mut lps, mut tops) = (Vec::new(), String::new(), Vec::new(), Vec::new());
        let groups = self.groups();
        for (i, group) in groups.iter().enumerate() {
            if !whole {
                (ids, text, lps, tops) = Default::default();
            }
            let entry = |top: &TopLogprob| json!([top.logprob, top.id, null]);
            for token in group {
                ids.push(token.id);
                text.push_str(&token.text);
                lps.push(json!([token.logprob, token.id, null]));
                tops.push(token.top_logprobs.iter().map(entry).collect::<Value>());
            }
            let total: usize = groups[..=i].iter().map(Vec::len).sum();
            let last = i + 1 == groups.len();
            let finish = match (last, self.answer.by_limit) {
                (false, _) => Value::Null,
                (true, true) => json!({ "type": "length", "length": total }),
                (true, false) => json!({ "type": "stop", "matched": ids.last() }),
            };
            let meta = json!({ "id": self.body["rid"], "finish_reason": finish, "prompt_tokens": self.prompt,
                "completion_tokens": total, "cached_tokens": 2, "output_token_logprobs": lps,
                "output_top_logprobs": tops });
            self.exchange.event(&json!({ "text": text, "output_ids": ids, "meta_info": meta }));
        }
        self.exchange.done();
    }

    /// Ids of tokens that end inside a character are left out, as by llama-server.
    fn llama(&mut self) {
        let mut bytes = Vec::new();
        for token in &self.answer.tokens {
            let id = token.id.unwrap();
            bytes.extend(u8::try_from(id));
            let incomplete = |error: std::str::Utf8Error| error.error_len().is_none();
            if bytes
                .utf8_chunks()
                .last()
                .is_some_and(|last| std::str::from_utf8(last.invalid()).is_err_and(incomplete))
            {
                continue;
            }
            let text = String::from_utf8_lossy(&std::mem::take(&mut bytes)).into_owned();
            let mut event = json!({ "index": 0, "content": text, "tokens": [id], "stop": false });
            if self.body.get("n_probs").is_some() {
                event["completion_probabilities"] = json!([chat_logprob(token)]);
            }
            self.exchange.event(&event);
        }
        let kind = if self.answer.by_limit { "limit" } else { "eos" };
        let timings = json!({ "cache_n": 2 });
        // The rest of a character, as its text.
        let rest = String::from_utf8_lossy(&bytes).into_owned();
        self.exchange.event(&json!({ "index": 0, "content": rest, "tokens": [], "stop": true, "stop_type": kind,
            "tokens_predicted": self.answer.tokens.len(), "tokens_evaluated": self.prompt, "timings": timings }));
        self.exchange.raw(b"0\r\n\r\n");
    }

    fn triton(&mut self) {
        for group in self.groups() {
            let text: String = group.iter().map(|token| token.text.as_str()).collect();
            self.exchange
                .event(&json!({ "model_name": "ensemble", "model_version": "1", "text_output": text }));
        }
        let counts = json!({ "text_output": self.answer.rest, "num_input_tokens": self.prompt,
            "num_output_tokens": self.answer.tokens.len() });
        self.exchange.event(&counts);
        self.exchange.raw(b"0\r\n\r\n");
    }
}

fn chat_logprob(token: &Token) -> Value {
    let entry = |id: Option<TokenId>, logprob: f32| json!({ "token": format!("t{id:?}"), "id": id, "token_id": id, "logprob": logprob });
    let mut value = entry(token.id, token.logprob.unwrap_or_default());
    let top = token.top_logprobs.iter().map(|top| entry(top.id, top.logprob));
    value["top_logprobs"] = top.collect();
    value
}

fn completion_logprobs(group: &[Token]) -> Value {
    let name = |id: Option<TokenId>| format!("token_id:{}", id.unwrap());
    let top = |token: &Token| {
        let pairs = token.top_logprobs.iter().map(|top| (name(top.id), json!(top.logprob)));
        Value::Object(pairs.collect())
    };
    json!({ "tokens": group.iter().map(|token| name(token.id)).collect::<Vec<_>>(),
            "token_logprobs": group.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": group.iter().map(top).collect::<Vec<_>>() })
}
