//! Vocabularies made from random texts, so that tokens reach over every place where a word may end.

use super::charsmap::charsmap;
use super::{check, compare, ours, random_text};
use crate::ffi::Vocab;
use exsa_core::gguf::{Array, GgufWriter, Value};
use exsa_core::tokenizer::{TokenizerModel, Vocabulary};
use std::collections::{BTreeSet, HashMap};

/// Texts to compare for each vocabulary.
const TEXTS: u64 = 400;
/// Seeds of the texts that vocabularies are made from lie above those of the texts to compare.
const TRAINING: std::ops::Range<u64> = 100_000..100_600;
/// Merges per round of training.
const MERGES: usize = 40;
const ROUNDS: usize = 14;

const UNK: &str = "<unk>";
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// Texts in which the expressions of pre-tokenizers differ.
const TEXTS_OF_EXPRESSIONS: [&str; 26] = [
    "",
    " ",
    "   ",
    "\n",
    "a\n\nb \n c\r\n\r\nd",
    "1234567 12 123 1234 a1234b !12345",
    "½123456, 12345½ ١٢٣٤٥",
    "I'M we'LL it's don't 'S'd 'RE",
    "hello brave new world  of two spaces",
    "fooBar HTTPServer ABC abc ABc àÉÉ ÀBC Éa",
    "e\u{301}a\u{301}B\u{301}C \u{301}ABC \u{301}abc !\u{301}\u{301}x",
    "x?!\n\n/y //\n// a/b\r\n/",
    "日本語 中文。が、か 한국어 ㄅㄆ ไทย ＡＢ豈",
    "<sentinel:12><sentinel:> IMGIMGABCDZ IMGIMGABCDEZ IMGIMGZ\t  x    y      z",
    "((a|b.c,d!e?f)) …g。h，i、j।k۔l،m",
    "tab\tand\u{a0}other\u{3000}spaces \u{2003}\u{2003}x",
    "                                                                          64 and more",
    "\u{85}\u{85}a \u{85}b",
    "\u{feff}mark \u{feff}",
    "<dna>ACGTAC</dna>ACGTAC <dna>acgtacgtac",
    "<dna>AC<dna></dna></dna> <dna>",
    "ﬁne ＡＢＣ\té",
    "▁a▁▁b ▁",
    "word\n\n\nword\n",
    "a<|end|>b[x]c",
    "\u{378}\u{378} \u{378}a\0\0",
];

fn texts() -> impl Iterator<Item = String> {
    (0..TEXTS).map(random_text).chain(TEXTS_OF_EXPRESSIONS.map(str::to_owned))
}

/// Merges of neighbours by how often they stand together, most frequent first, learned from `texts`.
fn train(texts: impl Iterator<Item = Vec<String>>) -> Vec<(String, String)> {
    let mut texts: Vec<Vec<String>> = texts.collect();
    let mut merges = Vec::new();
    for _ in 0..ROUNDS {
        let mut counts: HashMap<(&str, &str), u32> = HashMap::new();
        for pair in texts.iter().flat_map(|text| text.windows(2)) {
            *counts.entry((&pair[0], &pair[1])).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by_key(|(pair, count)| (std::cmp::Reverse(*count), *pair));
        let chosen: Vec<(String, String)> = counts
            .iter()
            .take(MERGES)
            .map(|((left, right), _)| ((*left).to_owned(), (*right).to_owned()))
            .collect();
        for text in &mut texts {
            for (left, right) in &chosen {
                let mut i = 0;
                while i + 1 < text.len() {
                    if text[i] == *left && text[i + 1] == *right {
                        text[i] = format!("{left}{right}");
                        text.remove(i + 1);
                    }
                    i += 1;
                }
            }
        }
        merges.extend(chosen);
    }
    merges
}

/// A vocabulary to write.
#[derive(Clone, Default)]
struct Made {
    tokens: Vec<(String, i32)>,
    scores: Vec<f32>,
    merges: Vec<(String, String)>,
}

impl Made {
    fn new(tokens: impl IntoIterator<Item = (String, i32)>) -> Self {
        Self { tokens: tokens.into_iter().collect(), ..Self::default() }
    }

    /// Adds tokens, without those that are there.
    fn add(&mut self, tokens: impl IntoIterator<Item = (String, i32)>) {
        let mut known: BTreeSet<String> = self.tokens.iter().map(|(text, _)| text.clone()).collect();
        self.tokens.extend(tokens.into_iter().filter(|(text, _)| known.insert(text.clone())));
    }

    /// Adds merges and the tokens that they make.
    fn merge(mut self, merges: Vec<(String, String)>) -> Self {
        self.add(merges.iter().map(|(left, right)| (format!("{left}{right}"), NORMAL)));
        self.merges = merges;
        self
    }

    /// Scores that fall with the id, with repetitions.
    fn score(mut self) -> Self {
        self.scores = (0..self.tokens.len()).map(|id| -((id * 7 % 61) as f32) / 4.0 - 1.0).collect();
        self
    }

    fn writer(&self, model: &str) -> GgufWriter {
        let texts = self.tokens.iter().map(|(text, _)| text.clone()).collect();
        let types = self.tokens.iter().map(|(_, kind)| *kind).collect();
        let mut writer = GgufWriter::new()
            .key("general.architecture", Value::Str("llama".into()))
            .key("tokenizer.ggml.model", Value::Str(model.into()))
            .key("tokenizer.ggml.tokens", Value::Array(Array::Str(texts)))
            .key("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
        if !self.scores.is_empty() {
            writer = writer.key("tokenizer.ggml.scores", Value::Array(Array::F32(self.scores.clone())));
        }
        if !self.merges.is_empty() {
            let merges = self.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
            writer = writer.key("tokenizer.ggml.merges", Value::Array(Array::Str(merges)));
        }
        writer
    }
}

fn byte_tokens() -> impl Iterator<Item = (String, i32)> {
    (0..=255u8).map(|b| (format!("<0x{b:02X}>"), BYTE))
}

/// The character that GPT-2's alphabet writes a byte as.
fn written(b: u8) -> String {
    let is_printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..b).filter(|b| !is_printable(*b)).count() as u32;
    let code = if is_printable(b) { b.into() } else { 0x100 + others };
    char::from_u32(code).unwrap().into()
}

/// Bytes, and merges over them.
fn of_bytes() -> Made {
    let special =
        [(UNK.to_owned(), UNKNOWN), ("<|end|>".to_owned(), CONTROL), ("[x]".to_owned(), USER_DEFINED)];
    let bytes = (0..=255).map(|b| (written(b), NORMAL));
    let texts = TRAINING.map(random_text).chain(TEXTS_OF_EXPRESSIONS.map(str::to_owned));
    let merges = train(texts.map(|text| text.bytes().map(written).collect()));
    Made::new(special.into_iter().chain(bytes)).merge(merges)
}

/// Characters with spaces as U+2581 and all in lower case too, bytes, and merges of characters.
fn of_characters() -> Made {
    let special = [UNK, "<bos>", "<eos>"].map(|text| (text.to_owned(), CONTROL));
    let texts = || TRAINING.map(random_text).chain(TEXTS_OF_EXPRESSIONS.map(str::to_owned));
    let texts = || texts().chain(texts().map(|text| text.to_lowercase().replace(' ', "▁")));
    let characters: BTreeSet<char> =
        texts().flat_map(|text| text.chars().collect::<Vec<_>>()).filter(|c| !c.is_control()).collect();
    // Every third character of those outside ASCII is spelt in bytes.
    let known = |c: &char| c.is_ascii() || *c == '▁' || !(*c as u32).is_multiple_of(3);
    let characters = characters.into_iter().filter(known).map(|c| (c.to_string(), NORMAL));
    let newlines = ["\n", "\n\n"].map(|text| (text.to_owned(), NORMAL));
    let mut made = Made::new(special);
    made.add(byte_tokens());
    made.add(newlines);
    made.add(characters);
    let single: BTreeSet<String> = made.tokens.iter().map(|(text, _)| text.clone()).collect();
    let merges = train(texts().map(|text| text.chars().map(String::from).collect()));
    let mut known = single;
    let merges = merges.into_iter().filter(|(left, right)| {
        let is_known = known.contains(left) && known.contains(right) && !left.contains(' ');
        is_known && known.insert(format!("{left}{right}"))
    });
    let merges: Vec<_> = merges.filter(|(_, right)| !right.contains(' ')).collect();
    made.merge(merges)
}

fn compare_files(files: impl IntoIterator<Item = (String, GgufWriter)>) {
    let mut different = Vec::new();
    for (name, writer) in files {
        let path = std::env::temp_dir().join(format!("exsa-vocabulary-{}-{name}.gguf", std::process::id()));
        std::fs::write(&path, writer.to_bytes()).unwrap();
        let (ours, theirs) = (ours(&path), Vocab::load(&path));
        std::fs::remove_file(&path).unwrap();
        let theirs = theirs.unwrap_or_else(|| panic!("llama.cpp does not load {name}"));
        compare(&name, &*ours, &theirs, texts(), &mut different);
    }
    check(&different);
}

/// The names that a refusal lists.
fn pre_tokenizers() -> Vec<String> {
    let vocabulary =
        Vocabulary { model: TokenizerModel::Bpe, pre: Some("?"), tokens: vec!["a"], ..Vocabulary::default() };
    let error = vocabulary.build().err().unwrap().to_string();
    let (_, names) = error.split_once("supported: ").unwrap();
    names.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_pre_tokenizer() {
    let (bytes, characters) = (of_bytes(), of_characters());
    let of_characters = ["gemma4", "granite-embed-multi-311m", "mmbert", "sarvam-moe", "whitespace"];
    let names = pre_tokenizers();
    assert!(of_characters.iter().all(|name| names.iter().any(|known| known == name)));
    compare_files(names.into_iter().map(|name| {
        let made = if of_characters.contains(&&*name) { &characters } else { &bytes };
        // llama.cpp cuts at white space for the model of that name alone.
        let model = if name == "whitespace" { "whitespace" } else { "gpt2" };
        let writer = made.writer(model).key("tokenizer.ggml.bos_token_id", Value::U32(1));
        (name.clone(), writer.key("tokenizer.ggml.pre", Value::Str(name)))
    }));
}

#[test]
fn byte_pairs_of_other_models() {
    let characters = of_characters();
    let mut dna = of_bytes();
    dna.add(["<dna>", "</dna>", "<oov>"].map(|text| (text.to_owned(), NORMAL)));
    let bases = ["ACGTAC", "GTACAA", "ACAAAA", "AAAAAA"];
    dna.add(bases.map(|bases| (bases.to_owned(), NORMAL)));
    dna.add(bases.map(|bases| (format!("{bases}\u{e000}"), NORMAL)));
    let bos = |writer: GgufWriter| writer.key("tokenizer.ggml.bos_token_id", Value::U32(1));
    let pre = |writer: GgufWriter, name: &str| writer.key("tokenizer.ggml.pre", Value::Str(name.into()));
    let keep_case = |writer: GgufWriter, lowercase| {
        writer.key("tokenizer.ggml.normalizer.lowercase", Value::Bool(lowercase))
    };
    compare_files([
        ("gemma4-model".to_owned(), bos(characters.writer("gemma4"))),
        ("whitespace-model".to_owned(), pre(characters.writer("whitespace"), "whitespace")),
        (
            "whitespace-lowercase".to_owned(),
            keep_case(pre(characters.writer("whitespace"), "whitespace"), true),
        ),
        ("whitespace-gpt-2".to_owned(), pre(of_bytes().writer("whitespace"), "gpt-2")),
        ("hybriddna".to_owned(), pre(dna.writer("hybriddna"), "qwen2")),
        ("no-dna".to_owned(), pre(of_bytes().writer("hybriddna"), "qwen2")),
        ("kimi-without-merges".to_owned(), {
            let made = Made { merges: Vec::new(), ..of_bytes() };
            pre(made.writer("gpt2"), "kimi-k2")
        }),
    ]);
}

#[test]
fn unigrams() {
    let special = [("<pad>", CONTROL), ("</s>", CONTROL), (UNK, UNKNOWN), ("[x]", USER_DEFINED)];
    let mut made = Made::new(special.map(|(text, kind)| (text.to_owned(), kind)));
    made.add(of_characters().tokens.into_iter().filter(|(_, kind)| *kind == NORMAL));
    let made = made.score();
    let map = charsmap(&[("ﬁ", "fi"), ("Ａ", "A"), ("\t", " "), ("é", "e\u{301}"), ("e", "E")]);
    let flag =
        |writer: GgufWriter, key: &str| writer.key(&format!("tokenizer.ggml.{key}"), Value::Bool(true));
    let charsmap = |writer: GgufWriter| {
        let key = "tokenizer.ggml.precompiled_charsmap";
        writer.key(key, Value::Array(Array::U8(map.clone())))
    };
    let plain = || made.writer("t5");
    compare_files([
        ("t5".to_owned(), plain()),
        ("t5-prefix".to_owned(), flag(plain(), "add_space_prefix")),
        ("t5-spaces".to_owned(), flag(plain(), "remove_extra_whitespaces")),
        ("t5-map".to_owned(), charsmap(flag(flag(plain(), "add_space_prefix"), "remove_extra_whitespaces"))),
        ("t5-map-only".to_owned(), charsmap(plain())),
    ]);
}

#[test]
fn longest_tokens_and_highest_sums() {
    let escaped = |b: u8| match b {
        b'\n' => "\\n".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\\' => "\\\\".to_owned(),
        0x20..=0x7e => char::from(b).to_string(),
        _ => format!("\\x{b:02x}"),
    };
    let mut rwkv = Made::new([("<s>".to_owned(), CONTROL)]);
    rwkv.add((0..=255).map(|b| (escaped(b), NORMAL)));
    let words = of_characters().merges.into_iter().map(|(left, right)| format!("{left}{right}"));
    let words: Vec<String> = words.map(|word| word.replace('▁', " ")).collect();
    rwkv.add(words.iter().map(|word| (word.replace('\\', "\\\\").replace('\n', "\\n"), NORMAL)));

    let special = ["<|plamo:unk|>", "<|plamo:bos|>", "<|plamo:eos|>", "<|plamo:pad|>"];
    let mut plamo = Made::new(special.map(|text| (text.to_owned(), CONTROL)));
    plamo.add(byte_tokens());
    plamo.add(words.into_iter().map(|word| (word, NORMAL)));
    plamo.add(('a'..='z').map(|c| (c.to_string(), NORMAL)));
    let plamo = plamo.score();
    compare_files([("rwkv".to_owned(), rwkv.writer("rwkv")), ("plamo2".to_owned(), plamo.writer("plamo2"))]);
}
