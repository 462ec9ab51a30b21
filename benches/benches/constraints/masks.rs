//! Times of masks along texts.

use criterion::Criterion;
use exsa_benches::percentile::percentile;
use exsa_benches::verdict;
use exsa_core::constraint::{Allowed, Compiler, Constraint, ConstraintState};
use exsa_core::gguf::Gguf;
use exsa_core::tokenizer;
use std::fs::File;
use std::hint::black_box;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Instant;

const SCHEMA: &str = r#"{"type": "object", "properties": {
    "name": {"type": "string"}, "email": {"type": "string", "format": "email"}, "age": {"type": "integer"},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}},
    "address": {"type": "object", "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
        "required": ["street", "zip"]}}, "required": ["name", "email", "age", "tags", "address"]}"#;

/// An instance, as a model would write it.
const TEXT: &str = r#"{"name": "Zoë Jones-Smith", "email": "zoe.jones@example.com", "age": 42, "tags": ["new customer", "süß", "x"], "address": {"street": "12 Long Street, 3rd floor", "zip": "12345"}}"#;

/// Walks along the text, of which the first is cold.
const WALKS: usize = 50;

/// Aims for warm masks, in microseconds.
const MEAN_MAX: f64 = 60.0;
const P99_MAX: f64 = 1000.0;

fn vocabulary() -> Option<PathBuf> {
    let folder = std::env::var_os("EXSA_TEST_DATA").map(PathBuf::from)?;
    Some(folder.join("models/vocab/ggml-vocab-llama-bpe.gguf")).filter(|path| path.is_file())
}

/// Walks along the text and appends the microseconds of every mask that is not forced.
fn walk(mut state: ConstraintState, tokens: &[u32], times: &mut Vec<f64>) {
    for token in tokens {
        let begun = Instant::now();
        let forced = matches!(black_box(state.allowed()), Ok(Allowed::Forced(_)));
        if !forced {
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        if state.accept(*token).is_err() {
            return;
        }
    }
}

pub(crate) fn masks(criterion: &mut Criterion) {
    let Some(path) = vocabulary() else {
        eprintln!("skipped: EXSA_TEST_DATA has no vocabulary of llama-bpe");
        return;
    };
    let Ok(file) = File::open(&path) else { return };
    let Ok(gguf) = Gguf::read(&mut BufReader::new(file)) else { return };
    let Ok(tokenizer) = tokenizer::load(gguf.metadata()) else { return };
    let compiler = Compiler::new(tokenizer.clone());
    let grammars = [
        ("schema", Constraint::json_schema(SCHEMA)),
        ("json_object", Constraint::json_object()),
        ("regex", Constraint::regex(r#"[^\x00-\x1f]*"#)),
    ];
    for (name, constraint) in grammars {
        let begun = Instant::now();
        let Ok(compiled) = compiler.compile(&constraint) else { continue };
        let compile = begun.elapsed();
        let mut tokens = Vec::new();
        tokenizer.encode(TEXT, &tokenizer::EncodeOptions::default(), &mut tokens);
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for round in 0..WALKS {
            if let Ok(state) = compiled.state() {
                walk(state, &tokens, if round == 0 { &mut cold } else { &mut warm });
            }
        }
        let slowest = cold.iter().copied().fold(0.0, f64::max);
        println!("{name}: compiled in {compile:.1?}, slowest of {} cold masks {slowest:.0} µs", cold.len());
        let mean = warm.iter().sum::<f64>() / warm.len().max(1) as f64;
        let p99 = percentile(&warm, 99.0).unwrap_or(f64::INFINITY);
        let of = format!("{name}, {} warm masks at {}", warm.len(), tokenizer.n_vocab());
        let line = |what: &str, value: f64, max: f64| {
            let (shown, aim) = (format!("{value:.1} µs"), format!("at most {max:.0} µs"));
            println!("{}", verdict::line(&format!("{of}: {what}"), &shown, &aim, value <= max));
        };
        line("mean", mean, MEAN_MAX);
        line("p99", p99, P99_MAX);
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
