//! Tokenizers of real files: the built-in model, and vocabularies with ids from llama.cpp.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::TokenId;
use exsa_core::gguf::Gguf;
use exsa_core::tokenizer::{self, EncodeOptions, Tokenizer};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Separator of texts in the text files.
const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

fn load(path: &Path) -> Arc<dyn Tokenizer> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let gguf =
        Gguf::read(&mut BufReader::new(file)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    tokenizer::load(gguf.metadata()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn encode(tokenizer: &dyn Tokenizer, text: &str, special: bool) -> Vec<TokenId> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &EncodeOptions::default().parse_special(special), &mut ids);
    ids
}

fn decode(tokenizer: &dyn Tokenizer, ids: &[TokenId]) -> String {
    let mut bytes = Vec::new();
    ids.iter().for_each(|id| tokenizer.piece(*id, &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn built_in_model() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/exsa-tiny-q8_0.gguf");
    if !path.is_file() {
        eprintln!("skipped: no model at {}", path.display());
    }
    path.is_file().then_some(path)
}

/// The folder of vocabularies in the optional test data.
fn vocabularies() -> Option<PathBuf> {
    let folder = std::env::var_os("EXSA_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from)
        .join("models/vocab");
    if !folder.is_dir() {
        eprintln!("skipped: no vocabularies at {}", folder.display());
    }
    folder.is_dir().then_some(folder)
}

#[test]
fn the_built_in_model() {
    let Some(path) = built_in_model() else { return };
    let tokenizer = load(&path);
    let cases: [(&str, bool, &[TokenId]); 6] = [
        ("Once upon a time", false, &[624, 570, 263, 443]),
        (
            "Hello, world!\n  Two spaces,\ttab.",
            false,
            &[
                375, 289, 1985, 2000, 966, 2013, 15, 1981, 302, 1994, 1985, 426, 642, 307, 2000, 14, 1983,
                540, 2002,
            ],
        ),
        ("", false, &[]),
        (
            "日本語 🦙 naïve",
            false,
            &[
                1981, 235, 156, 170, 235, 161, 177, 237, 175, 163, 1981, 245, 164, 171, 158, 299, 1984, 200,
                180, 328,
            ],
        ),
        (
            "<|im_start|>user\nHi<|im_end|>\n",
            false,
            &[
                1981, 65, 129, 311, 100, 348, 463, 129, 67, 531, 278, 15, 2011, 1988, 65, 129, 311, 100, 490,
                129, 67, 15,
            ],
        ),
        ("<|im_start|>user\nHi<|im_end|>\n", true, &[3, 689, 278, 15, 2011, 1988, 4, 1981, 15]),
    ];
    for (text, special, expected) in cases {
        let ids = encode(&*tokenizer, text, special);
        assert_eq!(ids, expected, "{text:?}");
        if !special && !text.is_empty() {
            assert_eq!(decode(&*tokenizer, &ids), format!(" {text}"));
        }
    }
    let special = tokenizer.special();
    assert_eq!(
        (special.bos, special.eos, special.unk, special.add_bos, special.add_eos),
        (Some(1), Some(2), Some(0), true, false)
    );
    assert_eq!(special.end_of_generation, [2, 4]);
    assert!(tokenizer.leading_space());
}

#[test]
fn ids_of_real_vocabularies() {
    let Some(folder) = vocabularies() else { return };
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "gguf") {
            continue;
        }
        let with = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", path.display())).unwrap();
        let (texts, expected) = (with(".inp"), with(".out"));
        let texts: Vec<&str> = texts.split(SEPARATOR).collect();
        let expected: Vec<&str> = expected.trim_end_matches('\n').split('\n').collect();
        // An empty line at the end belongs to a text that gives no token.
        assert!(expected.len() <= texts.len() && texts.len() <= expected.len() + 1, "{}", path.display());
        let tokenizer = load(&path);
        for (i, text) in texts.iter().enumerate() {
            let ids = encode(&*tokenizer, text, false);
            let ids: Vec<String> = ids.iter().map(TokenId::to_string).collect();
            let expected = expected.get(i).copied().unwrap_or_default();
            assert_eq!(ids.join(" "), expected.trim(), "{}: text {i}, {text:?}", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "no vocabulary in {}", folder.display());
}

/// `cargo test --release -p exsa-core --test tokenizer -- --ignored --nocapture`
#[test]
#[ignore = "measures; to be run in a release build"]
fn a_mebibyte_of_any_text_takes_well_under_a_second() {
    const BYTES: usize = 1 << 20;
    let Some(folder) = vocabularies() else { return };
    let held_out = std::fs::read_to_string(folder.join("../heldout.txt")).unwrap_or_default();
    let letters: String = held_out.chars().filter(|c| c.is_alphabetic()).collect();
    let fill = |piece: &str| {
        let mut text = piece.repeat(BYTES / piece.len().max(1) + 1);
        text.truncate((0..=BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        text
    };
    let texts = [
        ("prose", fill(&held_out)),
        ("prose without spaces", fill(&letters)),
        ("one letter", fill("a")),
        ("spaces", fill(" ")),
        ("newlines", fill("\n")),
        ("digits", fill("3141592653589793")),
        ("emoji", fill("😀🦙🚀😶✅")),
        ("chinese", fill("天地玄黄宇宙洪荒日月盈昃辰宿列张")),
        ("angles", fill("<|im_")),
    ];
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    names.sort();
    for path in names {
        let start = Instant::now();
        let tokenizer = load(&path);
        println!("{} loaded in {:.0?}", path.display(), start.elapsed());
        for (name, text) in &texts {
            for special in [false, true] {
                let start = Instant::now();
                let ids = encode(&*tokenizer, text, special);
                let time = start.elapsed();
                println!("    {name:22} special {special:5} {:8} ids {time:8.1?}", ids.len());
                assert!(time.as_millis() < 900, "{name}");
            }
        }
    }
}
