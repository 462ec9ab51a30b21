//! Masks of grammars over a vocabulary of 128 thousand tokens, and of states that an answer passes through.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use exsa_core::constraint::{Allowed, Compiler, Constraint, ConstraintState};
use exsa_core::gguf::Gguf;
use exsa_core::tokenizer;
use std::fs::File;
use std::hint::black_box;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SCHEMA: &str = r#"{"type": "object", "properties": {
    "name": {"type": "string"}, "email": {"type": "string", "format": "email"}, "age": {"type": "integer"},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}},
    "address": {"type": "object", "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
        "required": ["street", "zip"]}}, "required": ["name", "email", "age", "tags", "address"]}"#;

/// An instance, as a model would write it.
const TEXT: &str = r#"{"name": "Zoë Jones-Smith", "email": "zoe.jones@example.com", "age": 42, "tags": ["new customer", "süß", "x"], "address": {"street": "12 Long Street, 3rd floor", "zip": "12345"}}"#;

fn vocabulary() -> Option<PathBuf> {
    let folder = std::env::var_os("EXSA_TEST_DATA").map(PathBuf::from)?;
    Some(folder.join("models/vocab/ggml-vocab-llama-bpe.gguf")).filter(|path| path.is_file())
}

/// Walks along the text and returns the time of every mask that is not forced.
fn walk(mut state: ConstraintState, tokens: &[u32], times: &mut Vec<Duration>) {
    for token in tokens {
        let begun = Instant::now();
        let forced = matches!(black_box(state.allowed()), Ok(Allowed::Forced(_)));
        if !forced {
            times.push(begun.elapsed());
        }
        if state.accept(*token).is_err() {
            return;
        }
    }
}

fn masks(criterion: &mut Criterion) {
    let Some(path) = vocabulary() else {
        eprintln!("skipped: EXSA_TEST_DATA has no vocabulary of llama-bpe");
        return;
    };
    let Ok(file) = File::open(&path) else { return };
    let Ok(gguf) = Gguf::read(&mut BufReader::new(file)) else { return };
    let Ok(tokenizer) = tokenizer::load(gguf.metadata()) else { return };
    let begun = Instant::now();
    let compiler = Compiler::new(tokenizer.clone());
    let grammars = [
        ("schema", Constraint::json_schema(SCHEMA)),
        ("json_object", Constraint::json_object()),
        ("regex", Constraint::regex(r#"[^\x00-\x1f]*"#)),
    ];
    for (name, constraint) in grammars {
        let Ok(compiled) = compiler.compile(&constraint) else { continue };
        eprintln!("{name}: compiled after {:?}", begun.elapsed());
        let mut tokens = Vec::new();
        tokenizer.encode(TEXT, &tokenizer::EncodeOptions::default(), &mut tokens);
        let mut times = Vec::new();
        // Cold, then warm.
        for round in 0..50 {
            if round == 1 {
                times.sort_unstable();
                eprintln!("{name}: cold, {} masks, slowest {:?}", times.len(), times.last());
                times.clear();
            }
            if let Ok(state) = compiled.state() {
                walk(state, &tokens, &mut times);
            }
        }
        times.sort_unstable();
        let mean = times.iter().sum::<Duration>() / times.len().max(1) as u32;
        let p99 = times.get(times.len() * 99 / 100);
        eprintln!(
            "{name}: warm, {} masks, mean {mean:?}, p99 {p99:?}, slowest {:?}",
            times.len(),
            times.last()
        );
        criterion.bench_function(&format!("walk/{name}"), |bencher| {
            bencher.iter(|| {
                let mut times = Vec::new();
                if let Ok(state) = compiled.state() {
                    walk(state, &tokens, &mut times);
                }
                times.len()
            });
        });
    }
}

criterion_group!(benches, masks);
criterion_main!(benches);
