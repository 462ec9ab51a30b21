//! Which member gets a request.

use crate::proxy::Proxy;
use crate::read;
use exsa_core::scripted::ScriptedModel;
use exsa_core::{EngineOptions, Generator, Request, SamplingParams};
use exsa_pool::{Member, Pool, PoolOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

fn proxies(n: usize) -> Vec<Arc<Proxy>> {
    let model = || ScriptedModel::echo("some answer").context(4096).shared();
    (0..n).map(|_| Proxy::new(model(), EngineOptions::default())).collect()
}

fn pool(members: &[Arc<Proxy>], options: PoolOptions) -> Pool {
    let pool = Pool::new(options).unwrap();
    for (i, member) in members.iter().enumerate() {
        pool.add(Member::new(i.to_string(), member.clone()));
    }
    pool
}

fn request(prompt: String) -> Request {
    Request::text(prompt).sampling(SamplingParams::greedy())
}

fn counts(members: &[Arc<Proxy>]) -> Vec<usize> {
    members.iter().map(|member| member.submitted.load(SeqCst)).collect()
}

#[test]
fn requests_follow_their_prefix() {
    let members = proxies(3);
    let pool = pool(&members, PoolOptions::new());
    let prompt = |user: usize, turn: usize| format!("{user}").repeat(1500) + &format!("turn {turn}");
    for turn in 0..5 {
        for user in 0..3 {
            read(pool.submit(request(prompt(user, turn))).unwrap());
        }
    }
    assert_eq!(counts(&members), [5, 5, 5]);
    for member in &members {
        let users: Vec<_> =
            member.requests.lock().iter().map(|request| format!("{:?}", request.prompt)).collect();
        let first = |text: &String| text.chars().nth(6);
        assert!(users.iter().all(|user| first(user) == first(&users[0])), "a member has one user's prompts");
    }
}

#[test]
fn load_goes_before_a_prefix() {
    let members = proxies(2);
    let pool = pool(&members, PoolOptions::new().affinity_slack(2));
    let endless = || request("p".repeat(2000)).ignore_eos(true);
    let streams: Vec<_> = (0..10).map(|_| pool.submit(endless()).unwrap()).collect();
    let counts = counts(&members);
    assert!(counts.iter().all(|count| (3..=7).contains(count)), "{counts:?}");
    drop(streams);
}

#[test]
fn short_prompts_go_round() {
    let members = proxies(4);
    let pool = pool(&members, PoolOptions::new());
    for _ in 0..20 {
        read(pool.submit(request("x".into())).unwrap());
    }
    assert_eq!(counts(&members), [5; 4]);
}

#[test]
fn models_choose_members() {
    let model = |name| Proxy::named(name, ScriptedModel::echo(name).shared(), EngineOptions::default());
    let members = [model("a"), model("b")];
    let pool = pool(&members, PoolOptions::new());
    let names: Vec<_> = pool.models().iter().map(|model| model.name.clone()).collect();
    assert_eq!(names, ["a", "b"]);
    for (name, expected) in [("b", "b"), ("a", "a"), ("b", "b")] {
        let request = request("x".into()).model(name);
        assert_eq!(pool.submit(request).unwrap().complete().unwrap().text, expected);
    }
    assert_eq!(counts(&members), [1, 2]);
}
