//! A real instruct model on llama.cpp: its answers are right.
#![allow(clippy::unwrap_used, reason = "tests")]

use exsa_backend_llamacpp::LlamaCppBackend;
use exsa_conformance::real_model;

#[test]
fn it_knows_the_capital_of_france() {
    let answer = real_model::answer(&LlamaCppBackend::new(), "What is the capital of France?", 16).unwrap();
    let Some(answer) = answer else { return };
    println!("{answer}");
    assert!(answer.contains("Paris"), "{answer:?}");
}
