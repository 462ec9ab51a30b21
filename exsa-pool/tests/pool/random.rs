//! Members that are cut at random while many requests run.

use crate::proxy::Proxy;
use crate::{assert_same, read};
use exsa_core::sampler::Mirostat;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{Engine, EngineOptions, Event, FinishReason, Generator, Request, SamplingParams};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn model() -> ScriptedModel {
    ScriptedModel::ngram(11).order(3)
}

fn request(i: u64) -> Request {
    let request = Request::text(format!("prompt {i}")).ignore_eos(true).max_tokens(60 + i as usize % 90);
    let sampling = SamplingParams::default().seed(i).temperature(1.1);
    match i % 5 {
        0 => request.sampling(SamplingParams::greedy().seed(i)),
        1 => request.sampling(sampling.repetition_penalty(1.3).presence_penalty(0.4)),
        2 => request.sampling(sampling.mirostat(Mirostat::V2).mirostat_tau(3.0)),
        3 => request.sampling(sampling).stop("ab").stop("e."),
        _ => request.sampling(sampling).n(2),
    }
}

/// Every answer equals the one that is computed alone, whatever is cut and whenever.
#[test]
fn cuts_at_random_change_no_answer() {
    let alone = Engine::start(model().shared(), EngineOptions::default()).unwrap();
    let members: Vec<_> = (0..3).map(|_| Proxy::new(model().shared(), EngineOptions::default())).collect();
    let pool = Pool::new(PoolOptions::new().crashes_max(None)).unwrap();
    for (i, member) in members.iter().enumerate() {
        let of_ready = member.clone();
        let ready = move || of_ready.is_up();
        pool.add(Member::new(i.to_string(), member.clone()).in_flight_max(6).ready(ready));
    }
    let until = Instant::now() + Duration::from_secs(4);
    let stop = AtomicBool::new(false);
    let (answered, continued) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 1u64;
            while !stop.load(SeqCst) {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let member = &members[(random >> 33) as usize % members.len()];
                member.cut(false);
                std::thread::sleep(Duration::from_millis(1 + (random >> 40) % 6));
                member.revive();
                pool.wake();
            }
        });
        let users: Vec<_> = (0..8u64)
            .map(|user| {
                let (pool, alone, answered, continued) = (&pool, &alone, &answered, &continued);
                scope.spawn(move || {
                    for i in (0..).map(|i| user + 8 * i) {
                        if Instant::now() > until {
                            return;
                        }
                        let expected = read(alone.submit(request(i)).unwrap());
                        if i % 7 == 3 {
                            // One that leaves after a few tokens.
                            let mut stream = pool.submit(request(i)).unwrap();
                            for expected in expected.events.iter().take(5) {
                                assert_eq!(stream.next().as_ref().map(kind), Some(kind(expected)));
                            }
                            continue;
                        }
                        let seen = read(pool.submit(request(i)).unwrap());
                        assert!(
                            !matches!(seen.finished.reason, FinishReason::Failed(_)),
                            "{:?}",
                            seen.finished
                        );
                        assert_same(&seen, &expected, i % 5 == 4, &format!("request {i}"));
                        continued.fetch_add(usize::from(seen.finished.continued.is_some()), SeqCst);
                        answered.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for user in users {
            user.join().unwrap();
        }
        stop.store(true, SeqCst);
    });
    let (answered, continued) = (answered.into_inner(), continued.into_inner());
    println!("{answered} answers, {continued} of them continued");
    assert!(answered > 20 && continued > 5, "{answered} answers, {continued} continued");
    let start = Instant::now();
    while pool.members().iter().any(|member| member.in_flight > 0) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", pool.members());
        std::thread::sleep(Duration::from_millis(5));
    }
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.scheduler.waiting), (stats.finished, 0));
}

fn kind(event: &Event) -> std::mem::Discriminant<Event> {
    std::mem::discriminant(event)
}
