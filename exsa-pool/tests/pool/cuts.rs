//! Answers cut between any two groups of events, and continued by another member.

use crate::proxy::Proxy;
use crate::{assert_same, read};
use exsa_conformance::faulty::{Effect, Faults, FaultyModel, Operation, When};
use exsa_core::backend::Model;
use exsa_core::chat::{ChatOptions, Json};
use exsa_core::sampler::Mirostat;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{
    Constraint, Continued, Engine, EngineOptions, Generator, Message, Overflow, Request, SamplingParams,
};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::Arc;
use std::time::Duration;

struct Case {
    name: &'static str,
    model: ScriptedModel,
    request: Request,
}

fn seeded(request: Request) -> Request {
    request.sampling(SamplingParams::default().temperature(1.2).seed(7)).ignore_eos(true).max_tokens(24)
}

fn greedy(request: Request) -> Request {
    request.sampling(SamplingParams::greedy().seed(7))
}

const TEMPLATE: &str = "{% for m in messages %}<|bos|>{{ m.role }}\n{{ m.content }}<|eos|>{% endfor %}\
    {% if tools %}<tools>{{ tools | tojson }}</tools> <tool_call>{% endif %}\
    {% if add_generation_prompt %}<|bos|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}\
    {# </think> #}";

fn cases() -> Vec<Case> {
    let case = |name, model, request| Case { name, model, request };
    let ngram = || ScriptedModel::ngram(11).order(usize::MAX);
    let simple = || ScriptedModel::ngram(5).order(1);
    let set = |set: fn(SamplingParams) -> SamplingParams| {
        let mut request = seeded(Request::text("aabbcc"));
        request.sampling = set(request.sampling);
        request
    };
    let schema = r#"{"type": "object", "properties": {"kind": {"enum": ["first", "second"]},
        "count": {"type": "integer", "minimum": -9, "maximum": 99}}, "required": ["kind", "count"],
        "additionalProperties": false}"#;
    let tool = r#"{"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}"#;
    let tool: Json = tool.parse().unwrap();
    let chat = || {
        greedy(Request::chat([Message::user("?")]).chat_options(ChatOptions::default().tools([tool.clone()])))
    };
    let call = "<tool_call>\n{\"name\": \"time\", \"arguments\": {\"zone\": \"UTC\"}}\n</tool_call>";
    let mut cases = vec![
        case("greedy", ngram(), greedy(Request::text("some prompt")).ignore_eos(true).max_tokens(24)),
        case("seeded", ngram(), seeded(Request::text("some prompt"))),
        case(
            "penalties",
            simple(),
            set(|s| s.repetition_penalty(1.4).frequency_penalty(0.5).presence_penalty(0.3)),
        ),
        case(
            "DRY, XTC, minimum tokens",
            simple(),
            set(|s| s.dry_multiplier(0.6).xtc_probability(0.5).min_tokens(20)),
        ),
        case("mirostat 1", simple(), set(|s| s.mirostat(Mirostat::V1).mirostat_tau(2.0))),
        case("mirostat 2", simple(), set(|s| s.mirostat(Mirostat::V2).mirostat_tau(2.0))),
        case("adaptive-p", simple(), set(|s| s.adaptive_target(0.3))),
        case("log-probabilities", ngram(), set(|s| s.logprobs(true).top_logprobs(2))),
        case("of the prompt too", ngram(), set(|s| s.logprobs(true)).prompt_logprobs(1)),
        case("a stop string", ScriptedModel::echo("one two three"), greedy(Request::text("x")).stop("o thr")),
        case(
            "a stop string held to the end",
            ScriptedModel::echo("ab--"),
            greedy(Request::text("x")).stop("--!"),
        ),
        case(
            "characters of several bytes",
            ScriptedModel::echo("Grüße, 世界 🎈"),
            greedy(Request::text("x")),
        ),
        case(
            "an end inside a character",
            ScriptedModel::echo("Grüße"),
            greedy(Request::text("x")).max_tokens(3),
        ),
        case(
            "banned strings",
            simple(),
            set(|s| s).banned_string("ab").banned_string("bcd").banned_string("c"),
        ),
        case(
            "a JSON schema",
            ngram(),
            seeded(Request::text("p"))
                .ignore_eos(false)
                .max_tokens(80)
                .constraint(Constraint::json_schema(schema)),
        ),
        case(
            "a shifted context",
            ngram().context(40),
            seeded(Request::text("short")).max_tokens(80).overflow(Overflow::Shift { keep: 3 }),
        ),
        case("a tool call", ScriptedModel::echo(&format!("I look.\n{call}")).chat_template(TEMPLATE), chat()),
        case(
            "reasoning",
            ScriptedModel::echo(&format!("<think>a b</think>\nSo:\n{call} c")).chat_template(TEMPLATE),
            chat(),
        ),
        case(
            "an incomplete call",
            ScriptedModel::echo("So:<tool_call>\n{\"name\": \"ti").chat_template(TEMPLATE),
            chat(),
        ),
        case("several answers", ngram(), seeded(Request::text("some prompt")).n(3).max_tokens(9)),
        case(
            "several of different length",
            ScriptedModel::ngram(3).order(2),
            seeded(Request::text("some")).n(3).ignore_eos(false).max_tokens(9).stop("a").stop("e"),
        ),
        case(
            "the best of several",
            ngram(),
            seeded(Request::text("some prompt")).n(2).best_of(4).max_tokens(5),
        ),
    ];
    cases.push(case(
        "a resumed answer",
        ngram(),
        seeded(Request::text("some prompt")).resume(exsa_core::Resume::new([b'a'.into(), b'b'.into()])),
    ));
    cases
}

/// The model with a pause before its first pass, so that no event comes before it can be piped.
fn slow(model: &ScriptedModel) -> Arc<dyn Model> {
    let faults = Faults::new();
    faults.add(When::Nth(Operation::Forward, 1), Effect::Stall(Duration::from_millis(5)));
    FaultyModel::new(model.clone().shared(), faults).shared()
}

fn options() -> EngineOptions {
    EngineOptions::default()
}

#[test]
fn an_answer_goes_on_after_any_cut() {
    for case in cases() {
        let alone = Engine::start(case.model.clone().shared(), options()).unwrap();
        let expected = read(alone.submit(case.request.clone()).unwrap());
        let several = case.request.n > 1;
        let (mut cuts, mut continued) = (0, 0);
        let goes_on = case.request.best_of.is_none() && case.request.prompt_logprobs.is_none();
        for groups in 0.. {
            let first = Proxy::new(slow(&case.model), options());
            let second = Proxy::new(case.model.clone().shared(), options());
            let pool = Pool::new(PoolOptions::new()).unwrap();
            pool.add(Member::new("first", first.clone()));
            first.cut_after(groups);
            let stream = pool.submit(case.request.clone()).unwrap();
            pool.add(Member::new("second", second.clone()));
            let seen = read(stream);
            let what = format!("{}, cut after {groups} groups", case.name);
            assert_same(&seen, &expected, several, &what);
            if first.is_up() {
                assert_eq!(seen.finished.continued, None, "{what}");
                break;
            }
            assert!(second.submitted.load(std::sync::atomic::Ordering::SeqCst) > 0, "{what}");
            // On a busy machine all of it, with the loss, may come before it is piped: the answer begins
            // anew.
            let resumed =
                |request: &Request| request.resume.as_ref().is_some_and(|resume| !resume.tokens.is_empty());
            if goes_on && groups > 0 && second.requests.lock().iter().any(resumed) {
                assert_eq!(seen.finished.continued, Some(Continued::Identical), "{what}");
                continued += 1;
            }
            cuts += 1;
        }
        assert!(cuts > 0 && (continued > 0 || !goes_on), "{}: {continued} of {cuts} continued", case.name);
    }
}

/// The same, but every member is cut after a few groups and comes back, so that an answer is cut many times.
#[test]
fn an_answer_goes_on_after_many_cuts() {
    for case in cases() {
        if case.request.best_of.is_some() {
            continue; // It begins anew each time.
        }
        let alone = Engine::start(case.model.clone().shared(), options()).unwrap();
        let expected = read(alone.submit(case.request.clone()).unwrap());
        let several = case.request.n > 1;
        let pool = Pool::new(PoolOptions::new().crashes_max(None)).unwrap();
        let member = Proxy::new(case.model.clone().shared(), options());
        let of_ready = member.clone();
        pool.add(Member::new("only", member.clone()).ready(move || of_ready.is_up()));
        member.cut_after(2);
        let stream = pool.submit(case.request.clone()).unwrap();
        let reader = std::thread::spawn(move || read(stream));
        while !reader.is_finished() {
            if !member.is_up() {
                member.cut(false);
                member.cut_after(2 + usize::from(several) * 4);
                member.revive();
                pool.wake();
            }
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        let seen = reader.join().unwrap();
        assert_same(&seen, &expected, several, case.name);
        drop(pool);
        assert_eq!(Arc::strong_count(&member), 1, "{}: nothing keeps the member", case.name);
    }
}
