//! Greedy texts of small trained models of the [test data](crate::test_data).
//!
//! Equal texts on every backend show that tokenizer, weights and sessions work together. A backend calls each
//! function in a test, with a fixture for the given model; without the model, the test is skipped.
//!
//! ```no_run
//! # use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
//! # struct MyBackend;
//! # impl MyBackend { fn new() -> ScriptedBackend { ScriptedBackend::new(ScriptedModel::ngram(1)) } }
//! use exsa_conformance::{Failure, Fixture, texts};
//! use exsa_core::backend::ModelSource;
//!
//! fn fixture(model: ModelSource) -> Fixture {
//!     Fixture::new(MyBackend::new(), model)
//! }
//!
//! # fn test() -> Result<(), Failure> {
//! texts::stories260k(fixture)
//! # }
//! ```

use crate::check::check;
use crate::clause;
use crate::failure::Failure;
use crate::fixture::Fixture;
use crate::harness::greedy;
use crate::test_data;
use exsa_core::backend::ModelSource;
use exsa_core::tokenizer::EncodeOptions;

const STORY: &str = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One \
                     day, she saw a big, red ball. She wanted to play with it, but it was too high.\n\
                     Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She \
                     said, \"I want to play with your ball, but I can't find it.\"\n\
                     Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to \
                     do.\"\n\
                     Lily didn't want to help her mom, so she";

const TINY: &str = "Once upon a time, there was a little girl named Lily. She loved to play with her toys and eat \
                    cookies. One day, she found a big cake with a big bucket. She picked it up and put it in her \
                    pocket.\nLily took a bucket of cake and put it in her";

/// 200 tokens of `stories260K-f32.gguf` after only BOS.
///
/// # Errors
///
/// The model cannot be loaded or run, or its text differs.
pub fn stories260k(fixture: impl Fn(ModelSource) -> Fixture) -> Result<(), Failure> {
    text("stories260K-f32.gguf", "", 200, fixture, |text| text == STORY, STORY)
}

/// 64 tokens of `stories260K-q8_0.gguf`: the beginning of the text of the 32-bit weights.
///
/// # Errors
///
/// As for [`stories260k`].
pub fn stories260k_in_8_bits_begins_alike(fixture: impl Fn(ModelSource) -> Fixture) -> Result<(), Failure> {
    text("stories260K-q8_0.gguf", "", 64, fixture, |text| STORY.starts_with(text), STORY)
}

/// 64 tokens of `exsa-tiny-f32.gguf` and `exsa-tiny-f16.gguf` after a prompt.
///
/// # Errors
///
/// As for [`stories260k`].
pub fn exsa_tiny(fixture: impl Fn(ModelSource) -> Fixture) -> Result<(), Failure> {
    for name in ["exsa-tiny-f32.gguf", "exsa-tiny-f16.gguf"] {
        text(name, "Once upon a time", 64, &fixture, |text| text == TINY, TINY)?;
    }
    Ok(())
}

/// Compares `n` greedy tokens after BOS and `prompt`, with the prompt, as text.
fn text(
    name: &str,
    prompt: &str,
    n: usize,
    fixture: impl Fn(ModelSource) -> Fixture,
    right: impl Fn(&str) -> bool,
    expected: &str,
) -> Result<(), Failure> {
    let Some(path) = test_data::model(name) else { return Ok(()) };
    let fixture = fixture(ModelSource::file(path));
    let check = check(clause::TEXT, format!("{n} greedy tokens of {name} after BOS and {prompt:?}"));
    let tokenizer = fixture.model()?.tokenizer();
    let Some(bos) = tokenizer.special().bos else { return Err(check.fail("a vocabulary with BOS", "none")) };
    let mut ids = vec![bos];
    if !prompt.is_empty() {
        tokenizer.encode(prompt, &EncodeOptions::default(), &mut ids);
    }
    let answer = greedy(&mut *fixture.session()?.session, 0, &ids, n);
    ids.extend(answer);
    let mut bytes = Vec::new();
    ids[1..].iter().for_each(|&id| tokenizer.piece(id, &mut bytes));
    let text = check.works(String::from_utf8(bytes))?;
    let text = text.strip_prefix(' ').unwrap_or(&text);
    if right(text) { Ok(()) } else { Err(check.fail(expected, text)) }
}
