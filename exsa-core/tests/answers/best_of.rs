//! The best of several answers.

use crate::harness::*;
use exsa_core::{FinishReason, TokenId};

fn means(answers: &[Answer]) -> Vec<f64> {
    answers.iter().map(|answer| answer.logprob.map(|(sum, tokens)| sum / tokens as f64).unwrap()).collect()
}

#[test]
fn the_best_answers_have_the_highest_mean_log_probability() {
    let request = drawn(20).ignore_eos(false).stop_token(b'a'.into()).stop_token(b'e'.into()).max_tokens(40);
    let mut with_logprobs = request.clone();
    with_logprobs.sampling.logprobs = true;
    let mut all = singly(&model(), &with_logprobs, 9);
    for answer in &all {
        let (sum, tokens) = answer.logprob.unwrap();
        let seen: f64 = answer.tokens.iter().map(|token| f64::from(token.logprob.unwrap())).sum();
        let ended_by_token = answer.len() > answer.tokens.len();
        assert_eq!(tokens, answer.len());
        assert!(if ended_by_token { sum < seen } else { (sum - seen).abs() < 1e-9 }, "{sum}, {seen}");
    }
    let lens: Vec<_> = all.iter().map(|answer| answer.tokens.len()).collect();
    assert!(lens.iter().any(|len| *len != lens[0]), "lengths that differ: {lens:?}");
    all.sort_by(|a, b| means(std::slice::from_ref(b))[0].total_cmp(&means(std::slice::from_ref(a))[0]));
    for (n, model) in [(3, model()), (1, model()), (9, model()), (2, model().without_fork())] {
        let mut engine = Engine::new(&model, options());
        let got = engine.run(with_logprobs.clone().n(n).best_of(9));
        if n == 9 {
            // Nothing is to be chosen, so the answers keep their order.
            assert_eq!(got.answers, singly(&model, &with_logprobs, 9));
        } else {
            assert_eq!(got.answers, all[..n]);
            assert!(means(&got.answers).is_sorted_by(|a, b| a >= b));
        }
        let usage = got.finished.unwrap().usage;
        let tokens: usize = all.iter().map(|answer| answer.logprob.unwrap().1).sum();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (20, tokens), "all count");
        // Those of the tokens are sent only where they were asked for.
        let got = engine.run(request.clone().n(n).best_of(9));
        assert!(got.answers.iter().flat_map(|answer| &answer.tokens).all(|token| token.logprob.is_none()));
        if n < 9 {
            assert_eq!(means(&got.answers), means(&all[..n]));
        }
    }
}

#[test]
fn the_best_are_sent_when_all_have_ended() {
    // A stream as small as this would stop the answers if their tokens were sent.
    let mut engine = Engine::new(&model(), options().stream_events_max(2));
    let mut stream = engine.engine.submit(drawn(20).n(2).best_of(6)).unwrap();
    while engine.engine.stats().tokens_generated < 6 * 20 {
        assert_eq!(stream.try_next(), None);
        engine.step();
    }
    let mut got = Got::default();
    got.read(&mut stream);
    assert_eq!(got.answers.len(), 2);
    assert!(got.finished.is_some());
    // Cut off, it gives the best of what is there.
    let mut engine = Engine::new(&model(), options());
    let got = engine.run(drawn(20).max_tokens(None).n(2).best_of(6).timeout(ms(100)));
    let reasons: Vec<_> = got.answers.iter().map(|answer| answer.reason.clone()).collect();
    assert_eq!(reasons, vec![Some(FinishReason::Deadline); 2]);
    assert!(got.answers.iter().all(|answer| !answer.tokens.is_empty()));
    // Ended by themselves they go before longer ones that were cut off.
    let mut request = drawn(20).max_tokens(None).best_of(6);
    request.stop_tokens.extend((b'a'..=b'p').map(TokenId::from));
    request.sampling.logprobs = true;
    let all = singly(&model(), &request.clone().best_of(None), 6);
    let got = Engine::new(&model(), options()).run(request.timeout(ms(250)));
    let ended = all.iter().filter(|answer| answer.tokens.len() < 10).count();
    assert!((1..6).contains(&ended), "{ended} short answers");
    assert!(matches!(got.answers[0].reason, Some(FinishReason::StopToken(_))), "{got:?}");
}
