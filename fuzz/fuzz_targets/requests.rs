//! Requests with any prompt and any parameters, through the engine's loop on the scripted backend: refused
//! with words, or accepted and ended exactly once; no KV is left, and the tokens are within what was asked
//! for.
#![no_main]

use exsa_core::backend::SessionOptions;
use exsa_core::clock::ManualClock;
use exsa_core::queue::Fcfs;
use exsa_core::scripted::{ByteTokenizer, ScriptedModel};
use exsa_core::{
    EngineLoop, EngineOptions, Event, FinishReason, Message, Overflow, Prompt, Request, SamplingParams, TokenStream,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use std::time::Duration;

const CONTEXT: usize = 64;

/// Numbers as people send them, and any others.
fn number(data: &mut Unstructured<'_>) -> Result<f32> {
    const USUAL: [f32; 14] = [
        0.0,
        -0.0,
        0.5,
        1.0,
        2.0,
        -1.0,
        1e-30,
        1e30,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        100.0,
    ];
    if data.ratio(3, 4)? { Ok(*data.choose(&USUAL)?) } else { data.arbitrary() }
}

fn sampling(data: &mut Unstructured<'_>) -> Result<SamplingParams> {
    let mut params = SamplingParams::default();
    if data.arbitrary()? {
        params.temperature = number(data)?;
    }
    if data.arbitrary()? {
        params.top_k = data.arbitrary()?;
    }
    if data.arbitrary()? {
        (params.top_p, params.min_p) = (number(data)?, number(data)?);
    }
    if data.arbitrary()? {
        params.repetition_penalty = number(data)?;
        params.frequency_penalty = number(data)?;
        params.presence_penalty = number(data)?;
        params.penalty_window = data.arbitrary()?;
    }
    for _ in 0..data.int_in_range(0..=4)? {
        params.logit_bias.push((data.int_in_range(0..=300)?, number(data)?));
    }
    // Everything forbidden.
    if data.ratio(1, 20)? {
        params.logit_bias = (0..ByteTokenizer::N_VOCAB as u32).map(|id| (id, f32::NEG_INFINITY)).collect();
    }
    params.seed = data.arbitrary()?;
    params.logprobs = data.arbitrary()?;
    Ok(params)
}

fn request(data: &mut Unstructured<'_>) -> Result<Request> {
    let text = |data: &mut Unstructured<'_>| -> Result<String> {
        Ok(data.arbitrary::<&str>()?.chars().take(80).collect())
    };
    let mut request = match data.int_in_range(0..=3)? {
        0 => Request::new(Prompt::Tokens(data.arbitrary::<Vec<u16>>()?.into_iter().map(u32::from).collect())),
        1 => Request::chat([Message::user(text(data)?), Message::new(text(data)?, text(data)?)]),
        _ => Request::text(text(data)?),
    };
    request.sampling = sampling(data)?;
    request.max_tokens = data.arbitrary::<Option<u8>>()?.map(usize::from);
    for _ in 0..data.int_in_range(0..=3)? {
        request.stop.push(text(data)?);
    }
    if data.ratio(1, 30)? {
        request.stop.extend((0..2000).map(|i| i.to_string()));
    }
    for _ in 0..data.int_in_range(0..=2)? {
        request.stop_tokens.push(data.int_in_range(0..=300)?);
    }
    for _ in 0..data.int_in_range(0..=3)? {
        let letter = char::from(data.int_in_range(b' '..=b'~')?).to_string();
        let banned = if data.arbitrary()? { text(data)? } else { letter };
        request.banned_strings.push(banned);
    }
    request.banned_strings_ignore_case = data.arbitrary()?;
    request.overflow = match data.int_in_range(0..=3)? {
        0 => Overflow::DropMessages,
        // Without a limit, the answer might not end.
        1 if request.max_tokens.is_some() => Overflow::Shift { keep: data.int_in_range(0..=CONTEXT)? },
        _ => Overflow::Refuse,
    };
    request.ignore_eos = data.arbitrary()?;
    request.parse_special = data.arbitrary()?;
    request.timeout = data.arbitrary::<Option<u8>>()?.map(|ms| Duration::from_millis(ms.into()));
    if data.ratio(1, 3)? {
        request.n = data.int_in_range(0..=6)?;
        request.best_of = data.arbitrary::<Option<u8>>()?.map(|n| usize::from(n) % 9);
    }
    if data.ratio(1, 10)? {
        (request.n, request.best_of) = (data.arbitrary()?, data.arbitrary()?);
    }
    if data.ratio(1, 3)? {
        request.prompt_logprobs = data.arbitrary::<Option<u8>>()?.map(|top| u32::from(top) % 24);
    }
    Ok(request)
}

struct Asked {
    stream: TokenStream,
    tokens_max: Option<usize>,
    n: usize,
    /// Whether fewer answers are sent than are generated.
    of_more: bool,
    scores_prompt: bool,
    scored: usize,
    /// Tokens by answer.
    tokens: Vec<usize>,
    /// Texts by answer.
    texts: Vec<String>,
    banned: Vec<String>,
    ended: Vec<bool>,
    ends: usize,
}

impl Asked {
    fn read(&mut self) {
        while let Some(event) = self.stream.try_next() {
            assert_eq!(self.ends, 0, "an event after the last");
            match event {
                Event::Token(token) => {
                    assert!(token.id.is_some_and(|id| (id as usize) < ByteTokenizer::N_VOCAB));
                    assert!(token.logprob.is_none_or(|logprob| logprob <= 1e-4), "{:?}", token.logprob);
                    assert!(!self.ended[token.index], "a token after the end of its answer");
                    self.tokens[token.index] += 1;
                    self.texts[token.index] += &token.text;
                }
                Event::Prompt(part) => {
                    assert!(self.scores_prompt && part.start == self.scored);
                    assert!(self.tokens.iter().all(|n| *n == 0), "the prompt comes first");
                    assert!(part.tokens.iter().all(|token| token.logprob.is_none_or(|logprob| logprob <= 1e-4)));
                    self.scored += part.tokens.len();
                }
                Event::AnswerFinished(end) => self.end(end.index, &end.reason, &end.text),
                Event::Finished(finished) => {
                    self.ends += 1;
                    self.end(finished.index, &finished.reason, &finished.text);
                    assert!(self.ended.iter().all(|ended| *ended), "every answer ends");
                    let (sent, generated) = (self.tokens.iter().sum::<usize>(), finished.usage.completion_tokens);
                    // A token that ended an answer counts and is not sent.
                    assert!(sent <= generated);
                    assert!(self.of_more || generated <= sent + self.n);
                    if sent > 0 && self.scores_prompt {
                        assert_eq!(self.scored, finished.usage.prompt_tokens);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Asked {
    fn end(&mut self, index: usize, reason: &FinishReason, rest: &str) {
        assert!(!std::mem::replace(&mut self.ended[index], true), "an answer ends twice");
        let text = &mut self.texts[index];
        text.push_str(rest);
        // The end may replace an incomplete character, which is not searched.
        let mut banned = self.banned.iter().filter(|banned| !banned.contains(char::REPLACEMENT_CHARACTER));
        assert!(!banned.any(|banned| text.contains(banned.as_str())), "{text:?}");
        if *reason == FinishReason::MaxTokens {
            assert_eq!(Some(self.tokens[index]), self.tokens_max);
        }
        if let FinishReason::Failed(error) = reason {
            assert!(!error.to_string().is_empty());
        }
    }
}

fn run(data: &mut Unstructured<'_>) -> Result<()> {
    let clock = ManualClock::new();
    let template = "{% for m in messages %}<|bos|>{{ m.role }}:{{ m.content }}{% endfor %}";
    let model =
        if data.arbitrary()? { ScriptedModel::ngram(7) } else { ScriptedModel::echo("a story of two") };
    let model = model
        .kv(data.int_in_range(8..=256)?, data.int_in_range(1..=16)?)
        .context(CONTEXT)
        .chat_template(template)
        .cost(clock.clone(), Duration::from_millis(1), Duration::ZERO);
    let options = EngineOptions::default()
        .session(SessionOptions::new().sequences(data.int_in_range(1..=4)?).batch_tokens(data.int_in_range(1..=40)?))
        .queue_max(data.int_in_range(0..=6)?)
        .prefill_chunk_max(data.int_in_range(1..=40)?)
        .stream_events_max(data.int_in_range(1..=8)?);
    let engine = EngineLoop::new(model.shared(), options, Box::new(Fcfs::new()), Arc::new(clock.clone()));
    let Ok(mut engine) = engine else { return Ok(()) };
    let mut asked = Vec::new();
    for _ in 0..data.int_in_range(1..=6)? {
        let request = request(data)?;
        let (tokens_max, n) = (request.max_tokens, request.n);
        let of_more = request.best_of.is_some_and(|best_of| best_of > n);
        let scores_prompt = request.prompt_logprobs.is_some();
        let banned = request.banned_strings.clone();
        match engine.submit(request) {
            Ok(stream) => {
                let (tokens, texts, ended) = (vec![0; n], vec![String::new(); n], vec![false; n]);
                let asked_for = Asked {
                    stream, tokens_max, n, of_more, scores_prompt, scored: 0, tokens, texts, banned, ended, ends: 0,
                };
                asked.push(asked_for);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        for _ in 0..data.int_in_range(0..=3)? {
            engine.step();
        }
    }
    engine.step();
    for _ in 0..50_000 {
        if engine.is_empty() {
            break;
        }
        asked.iter_mut().for_each(Asked::read);
        if !engine.step() {
            clock.advance(engine.until_wakeup().unwrap_or(Duration::from_millis(1)));
        }
        engine.scheduler().check().expect("a sound scheduler");
    }
    assert!(engine.is_empty(), "requests that do not end: {:?}", engine.stats());
    for asked in &mut asked {
        asked.read();
        assert_eq!(asked.ends, 1);
    }
    assert_eq!(engine.stats().scheduler.kv_tokens_used, 0);
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Too little data for a case is no case.
    let _ = run(&mut Unstructured::new(data));
});
