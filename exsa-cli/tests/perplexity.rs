//! `exsa perplexity` beside a computation of its own, by the engine's log-probabilities of prompts.

#![allow(clippy::unwrap_used, reason = "failures of helpers are failures of tests")]

use exsa::core::gguf::Gguf;
use exsa::core::tokenizer::{self, EncodeOptions};
use exsa::{Engine, Event, KvType, Request};
use std::process::{Command, Output};

const TEXT: &str = "Once upon a time there was a little frog who lived by a big pond. Every day the frog went to the water \
    to play with his friends. One day a bird came and said, \"Hello, frog! Do you want to see my nest?\" The frog was \
    happy and jumped up and down. They went to the tree together, and the bird showed him three small eggs. \"They are \
    very pretty,\" said the frog. Then the sun went down, and it was time to go home. The frog said thank you and went \
    to sleep in his bed. The next morning he heard a sound. It was the bird, and with her were three little birds!";

fn exsa(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exsa")).args(arguments).output().unwrap()
}

/// Perplexity of the text as llama.cpp defines it, and the number of tokens that are scored.
fn expected(context: usize) -> (f64, usize) {
    let gguf = Gguf::read(&mut std::io::Cursor::new(exsa::tiny::GGUF)).unwrap();
    let tokenizer = tokenizer::load(gguf.metadata()).unwrap();
    let bos = tokenizer.special().bos.filter(|_| tokenizer.special().add_bos);
    let mut tokens: Vec<_> = bos.into_iter().collect();
    tokenizer.encode(TEXT, &EncodeOptions::default(), &mut tokens);
    let engine = Engine::builder().kv_type(KvType::F16).load(exsa::tiny::GGUF).unwrap();
    let (mut sum, mut count) = (0.0, 0);
    for chunk in tokens.chunks_exact(context) {
        let mut prompt = chunk.to_vec();
        if let Some(bos) = bos {
            prompt[0] = bos;
        }
        let request = Request::tokens(prompt).max_tokens(1).prompt_logprobs(0);
        for event in engine.submit(request).unwrap() {
            let Event::Prompt(part) = event else { continue };
            for (position, token) in (part.start..).zip(part.tokens) {
                // The token at the middle is the first that predicts.
                if position > context / 2 {
                    sum -= f64::from(token.logprob.unwrap());
                    count += 1;
                }
            }
        }
    }
    ((sum / count as f64).exp(), count)
}

#[test]
fn the_perplexity_is_that_of_the_engines_probabilities() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, TEXT).unwrap();
    for context in [16, 48] {
        let (perplexity, tokens) = expected(context);
        let context = context.to_string();
        let output =
            exsa(&["perplexity", "builtin", path.to_str().unwrap(), "--context", &context, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["tokens"], tokens);
        let value = found["perplexity"].as_f64().unwrap();
        assert!((value / perplexity - 1.0).abs() < 1e-5, "{value} instead of {perplexity}");
        // A story model knows stories.
        assert!((1.0..40.0).contains(&value) && found["error"].as_f64().unwrap() > 0.0, "{found}");
    }
}

#[test]
fn short_texts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "Too short.").unwrap();
    let output = exsa(&["perplexity", "builtin", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("two chunks"), "{error}");
    let context = exsa(&["perplexity", "builtin", path.to_str().unwrap(), "--context", "9999999"]);
    assert_eq!(context.status.code(), Some(2));
}
