//! Streams on a pool whose workers fail all the time: each is the same as without faults.
//!
//! `EXSA_KILL_SECONDS` sets the time of each test in seconds, 4 by default.

use crate::engines::{options, scripted};
use crate::harness::Test;
use crate::survive::{Fault, survive};
use exsa_core::backend::Model;
use exsa_core::chat::{ChatOptions, Json};
use exsa_core::sampler::Mirostat;
use exsa_core::{Constraint, Engine, EngineOptions, FinishReason, Message, Request, SamplingParams};
use serde_json::json;
use std::sync::Arc;

pub const TESTS: &[Test] = &[
    ("killing::streams_survive_kills", || streams(Fault::Kill)),
    ("killing::streams_survive_stops", || streams(Fault::Stop)),
    ("killing::streams_survive_a_memory_limit", || streams(Fault::Memory)),
    ("killing::streams_survive_panics", || streams(Fault::Panic)),
    ("killing::streams_survive_aborts", || streams(Fault::Abort)),
    ("killing::streams_survive_garbage", || streams(Fault::Garbage)),
    ("killing::tool_calls_survive_kills", tool_calls_survive_kills),
];

fn requests() -> Vec<(&'static str, Request)> {
    let seeded = |name: &str| Request::text(name).temperature(1.2).seed(7).ignore_eos(true).max_tokens(250);
    let set = |name: &str, set: fn(SamplingParams) -> SamplingParams| {
        let mut request = seeded(name);
        request.sampling = set(request.sampling);
        request
    };
    let schema = r#"{"type": "object", "properties": {"kind": {"enum": ["first", "second"]},
        "numbers": {"type": "array", "items": {"type": "integer"}, "minItems": 20, "maxItems": 30},
        "text": {"type": "string", "minLength": 50, "maxLength": 80, "pattern": "^[a-z ]*$"}},
        "required": ["kind", "numbers", "text"], "additionalProperties": false}"#;
    vec![
        ("greedy", set("greedy", |s| s.temperature(0.0))),
        ("seeded", set("seeded", |s| s.logprobs(true))),
        (
            "penalties",
            set("penalties", |s| s.repetition_penalty(1.4).frequency_penalty(0.5).presence_penalty(0.3)),
        ),
        ("DRY and XTC", set("dry", |s| s.dry_multiplier(0.6).xtc_probability(0.5))),
        ("mirostat 1", set("mirostat 1", |s| s.mirostat(Mirostat::V1).mirostat_tau(2.0))),
        ("mirostat 2", set("mirostat 2", |s| s.mirostat(Mirostat::V2).mirostat_tau(2.0))),
        (
            "a JSON schema",
            seeded("schema").ignore_eos(false).max_tokens(400).constraint(Constraint::json_schema(schema)),
        ),
        ("a stop string", seeded("stop").max_tokens(900).stop("zq").stop("ab").stop("Qx")),
        ("banned strings", seeded("banned").max_tokens(150).banned_string("ab").banned_string("c")),
    ]
}

/// The request with a long stop string in the middle of its answer, most of whose tokens are therefore held
/// back. Returns also the number of characters before it.
pub fn stopped_late(model: &Arc<dyn Model>, request: Request) -> (Request, usize) {
    let alone = Engine::start(model.clone(), EngineOptions::default()).unwrap();
    let text: Vec<char> = alone.submit(request.clone()).unwrap().complete().unwrap().text.chars().collect();
    let start = text.len() / 3;
    let stop: String = text[start..2 * start].iter().collect();
    let stopped = request.stop(&stop);
    let answer = alone.submit(stopped.clone()).unwrap().complete().unwrap();
    assert_eq!(answer.reason, FinishReason::StopString(0), "{stop:?}");
    let before = answer.text.chars().count();
    assert!(before <= start, "it is not in the answer");
    (stopped, before)
}

fn streams(fault: Fault) {
    let model = scripted(&json!({}));
    let mut requests = requests();
    let late = Request::text("late").temperature(1.2).seed(3).ignore_eos(true).max_tokens(300);
    let (late, _) = stopped_late(&model, late);
    requests.push(("a long stop string", late));
    survive(options(json!({"pace_us": 1500})), model, &requests, fault);
}

const TEMPLATE: &str = "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}<|eos|>{% endfor %}\
    {% if tools %}<tools>{{ tools | tojson }}</tools> <tool_call>{% endif %}\
    {% if add_generation_prompt %}<|bos|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}\
    {# </think> #}";

fn tool_calls_survive_kills() {
    let tool = r#"{"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}"#;
    let tool: Json = tool.parse().unwrap();
    let call = |city: &str| {
        let words = "a long argument ".repeat(8);
        format!(
            "<tool_call>\n{{\"name\": \"time\", \"arguments\": {{\"city\": \"{city}\", \"text\": \"{words}\"}}}}\n</tool_call>"
        )
    };
    let says = format!("<think>Grüße an die 世界</think>\nI look.\n{}\n{}", call("Berlin"), call("Köln"));
    let host = json!({"pace_us": 1500, "says": says, "template": TEMPLATE});
    let request = Request::chat([Message::user("?")]).chat_options(ChatOptions::default().tools([tool]));
    let request = request.sampling(SamplingParams::greedy().seed(7));
    let requests = [("tool calls", request.clone()), ("again", request)];
    survive(options(host.clone()), scripted(&host), &requests, Fault::Kill);
}
