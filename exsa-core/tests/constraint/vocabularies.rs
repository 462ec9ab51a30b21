//! Constraints on real vocabularies: masks only allow valid texts, and forced text has canonical tokens.

use exsa_core::TokenId;
use exsa_core::constraint::{Allowed, Compiled, Compiler, Constraint};
use exsa_core::gguf::Gguf;
use exsa_core::tokenizer::{self, EncodeOptions, Tokenizer};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn load(path: &Path) -> Arc<dyn Tokenizer> {
    let gguf = Gguf::read(&mut BufReader::new(File::open(path).unwrap())).unwrap();
    tokenizer::load(gguf.metadata()).unwrap()
}

/// The built-in model's vocabulary, and those of the test data that generate text.
fn vocabularies() -> Vec<(String, Arc<dyn Tokenizer>)> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/exsa-tiny-q8_0.gguf");
    let mut paths: Vec<PathBuf> = Some(built_in).into_iter().filter(|path| path.is_file()).collect();
    let folder = std::env::var_os("EXSA_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from)
        .join("models/vocab");
    if !folder.is_dir() {
        eprintln!("skipped: no vocabularies at {}", folder.display());
    }
    for name in ["llama-bpe", "llama-spm", "gpt-2", "qwen2"] {
        paths.extend(Some(folder.join(format!("ggml-vocab-{name}.gguf"))).filter(|path| path.is_file()));
    }
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), load(path))).collect()
}

/// A random number generator (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A random walk under the masks: the tokens, and whether the text is complete.
fn walk(compiled: &Arc<Compiled>, tokenizer: &dyn Tokenizer, random: &mut Random) -> (Vec<TokenId>, bool) {
    let mut state = compiled.state().unwrap();
    let mut tokens = Vec::new();
    for _ in 0..300 {
        let token = match state.allowed().unwrap() {
            Allowed::Forced(token) => token,
            Allowed::Mask(mask) => {
                let allowed: Vec<TokenId> = (0..tokenizer.n_vocab() as TokenId)
                    .filter(|id| mask[*id as usize / 64] >> (id % 64) & 1 == 1)
                    .collect();
                let ends = &tokenizer.special().end_of_generation;
                let end = allowed.iter().find(|id| ends.contains(id)).filter(|_| random.below(3) == 0);
                end.copied().unwrap_or_else(|| allowed[random.below(allowed.len())])
            }
            other => panic!("{other:?}"),
        };
        state.accept(token).unwrap();
        if tokenizer.special().end_of_generation.contains(&token) {
            return (tokens, true);
        }
        tokens.push(token);
    }
    (tokens, false)
}

fn text(tokenizer: &dyn Tokenizer, tokens: &[TokenId]) -> String {
    let mut bytes = Vec::new();
    tokens.iter().for_each(|id| tokenizer.piece(*id, &mut bytes));
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn random_walks_are_valid() {
    let schema = r#"{"type":"object","properties":{
        "name":{"type":"string","maxLength":12},"date":{"type":"string","format":"date"},
        "size":{"type":"integer","minimum":1,"maximum":20},"tags":{"type":"array","items":{"enum":["α","beta"]},
        "minItems":1,"maxItems":2}},"required":["name","date","size","tags"],"additionalProperties":false}"#;
    for (name, tokenizer) in vocabularies() {
        let compiler = Compiler::new(tokenizer.clone());
        let compiled = compiler.compile(&Constraint::json_schema(schema)).unwrap();
        let mut random = Random(7);
        for _ in 0..25 {
            let (tokens, complete) = walk(&compiled, &*tokenizer, &mut random);
            let text = text(&*tokenizer, &tokens);
            assert!(complete, "{name}: {text}");
            let value: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {text}: {e}"));
            assert!(value["name"].as_str().unwrap().chars().count() <= 12, "{name}: {text}");
            assert_eq!(value["date"].as_str().unwrap().len(), 10, "{name}: {text}");
            assert!((1..=20).contains(&value["size"].as_i64().unwrap()), "{name}: {text}");
            let tags = value["tags"].as_array().unwrap();
            assert!(
                (1..=2).contains(&tags.len()) && tags.iter().all(|tag| tag == "α" || tag == "beta"),
                "{text}"
            );
        }
    }
}

#[test]
fn masks_of_a_used_grammar_are_those_of_a_new_one() {
    let schema = r#"{"type":"object","properties":{
        "name":{"type":"string","maxLength":12},"mail":{"type":"string","format":"email"},
        "zip":{"type":"string","pattern":"^[0-9]{5}$"},"note":{"type":"string"}},
        "required":["name","mail","zip","note"]}"#;
    // Lexemes that end within tokens of plain text, so that their parser decides.
    let words = "start: (A B | B C | \" \" A)*\nA: /[a-m]+/\nB: /[n-z ]{1,3}/\nC: /[a-z]{2} /\n";
    let sentence = "start: WORD (\" \" WORD)* \".\"\nWORD: /[a-z]{1,6}/\n%ignore /[,;]/\n";
    // One lexer state in two states of the parser: the digit decides what follows a word of four letters.
    let contexts =
        "start: (\"1\" WORD LOW | \"2\" WORD HIGH)+\nWORD: /[a-z]{4}/\nLOW: /[a-m]+/\nHIGH: /[n-z]+/\n";
    let grammars = [
        Constraint::lark(contexts),
        Constraint::json_object(),
        Constraint::json_schema(schema),
        Constraint::regex("([a-z]{2,5} ){3}[0-9]{1,4}( |x)[^0-9]*"),
        Constraint::lark(words),
        Constraint::lark(sentence),
        Constraint::choice(["one two three", "one two", "once upon a time", "\u{e4}\u{f6} \"x\""]),
    ];
    for (name, tokenizer) in vocabularies() {
        // Compilers of large vocabularies take a second to make.
        let (rounds, step) = if tokenizer.n_vocab() > 10_000 { (1, 3) } else { (8, 1) };
        for (number, grammar) in grammars.iter().enumerate().step_by(step) {
            let used = Compiler::new(tokenizer.clone()).compile(grammar).unwrap();
            let mut random = Random(number as u64);
            for round in 0..rounds {
                let (tokens, _) = walk(&used, &*tokenizer, &mut random);
                let new = Compiler::new(tokenizer.clone()).compile(grammar).unwrap();
                let [mut ours, mut theirs] = [&used, &new].map(|compiled| compiled.state().unwrap());
                for (place, token) in tokens.iter().take(60).enumerate() {
                    let [a, b] = [&mut ours, &mut theirs].map(|state| state.allowed().unwrap());
                    assert_eq!(a, b, "{name}, grammar {number}, round {round}, token {place}");
                    [&mut ours, &mut theirs].iter_mut().for_each(|state| state.accept(*token).unwrap());
                }
            }
        }
    }
}

#[test]
fn forced_text_has_canonical_tokens() {
    let words = "The quick brown fox, whose name was Zoë, jumped 1234567 times over \"lazy\" dogs.";
    for (name, tokenizer) in vocabularies() {
        let compiler = Compiler::new(tokenizer.clone());
        let compiled = compiler.compile(&Constraint::choice([words])).unwrap();
        let (tokens, complete) = walk(&compiled, &*tokenizer, &mut Random(1));
        assert!(complete, "{name}");
        assert_eq!(text(&*tokenizer, &tokens), words, "{name}");
        // Behind a line feed, as in the middle of a text.
        let mut expected = Vec::new();
        let before = if tokenizer.leading_space() { "\n" } else { "" };
        tokenizer.encode(&format!("{before}{words}"), &EncodeOptions::default(), &mut expected);
        let skipped = expected.len() - tokens.len().min(expected.len());
        assert_eq!(tokens, expected[skipped..], "{name}");
    }
}

#[test]
fn drafts_rollback_and_replay_agree_on_a_real_vocabulary() {
    for (name, tokenizer) in vocabularies() {
        let compiler = Compiler::new(tokenizer.clone());
        let compiled = compiler.compile(&Constraint::json_object()).unwrap();
        let (tokens, _) = walk(&compiled, &*tokenizer, &mut Random(3));
        let mut state = compiled.state().unwrap();
        let mut seen = Vec::new();
        for token in tokens.iter().take(40) {
            seen.push(format!("{:?}", state.allowed().unwrap()));
            state.accept(*token).unwrap();
        }
        for back in [1, 7, seen.len()] {
            let back = back.min(seen.len());
            state.rollback(back).unwrap();
            for i in seen.len() - back..seen.len() {
                assert_eq!(format!("{:?}", state.allowed().unwrap()), seen[i], "{name}: token {i}");
                state.accept(tokens[i]).unwrap();
            }
        }
    }
}
