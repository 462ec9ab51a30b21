//! Answers of a pool whose remote engines break in mid-stream.

use crate::simulated::{Kind, engine, start, start_frail};
use exsa_backend_remote::{RemoteEngine, RemoteOptions, TokenizerSource};
use exsa_core::backend::Fingerprint;
use exsa_core::scripted::ByteTokenizer;
use exsa_core::{Continued, Event, Generator, Request, SamplingParams};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::Arc;

fn member(name: &str, url: &str) -> Member {
    let options = RemoteOptions::new(url)
        .fingerprint(Some(Fingerprint(1)))
        .positional_seeds(true)
        .tokenizer(TokenizerSource::Tokenizer(Arc::new(ByteTokenizer::new())));
    Member::new(name, Arc::new(RemoteEngine::connect(options).unwrap()))
}

#[test]
fn a_lost_answer_goes_on_at_another_engine() {
    let local = engine();
    let sampling = |seed| SamplingParams::default().seed(seed).temperature(1.1).top_k(0).min_p(0.0);
    for kind in [Kind::VllmGenerate, Kind::Vllm, Kind::TensorRtLlm, Kind::Sglang, Kind::SglangIncremental] {
        for events in [1, 3, 8] {
            let (frail, sound) = (start_frail(kind, events), start(kind));
            let pool = Pool::new(PoolOptions::new().crashes_max(None)).unwrap();
            pool.add(member("frail", &frail.url));
            pool.add(member("sound", &sound.url));
            let mut seen = Vec::new();
            for seed in 1..5 {
                let request = Request::text("A prompt").max_tokens(40).sampling(sampling(seed)).stop("zz");
                let whole = local.submit(request.clone()).unwrap().complete().unwrap();
                let mut stream = pool.submit(request).unwrap();
                let (mut text, mut ids) = (String::new(), Vec::new());
                for event in &mut stream {
                    match event {
                        Event::Token(token) => {
                            text.push_str(&token.text);
                            ids.extend(token.id);
                        }
                        Event::Finished(finished) => {
                            text.push_str(&finished.text);
                            seen.push(finished.continued);
                            assert_eq!(finished.reason, whole.reason, "{kind:?}");
                            assert_eq!(finished.usage.completion_tokens, whole.usage.completion_tokens);
                        }
                        other => panic!("{other:?}"),
                    }
                }
                let expected: Vec<_> = whole.tokens.iter().filter_map(|token| token.id).collect();
                assert_eq!((text, ids), (whole.text, expected), "{kind:?} {events}");
            }
            assert!(seen.contains(&Some(Continued::Identical)), "no answer was cut: {seen:?}");
        }
    }
}
