//! Tokenizers of small, hand-made vocabularies.

use super::*;
use crate::gguf::{Array, Gguf, GgufWriter, Value};
use proptest::prelude::*;
use std::sync::Arc;

const BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut b = 0;
    while b < 256 {
        bytes[b] = b as u8;
        b += 1;
    }
    bytes
};

/// Texts that live as long as a vocabulary that borrows them.
struct Texts(Vec<String>);

impl Texts {
    fn new(texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(texts.into_iter().map(Into::into).collect())
    }

    fn all(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

/// `<unk>`, `<s>`, `</s>`, 256 bytes, then these with the scores 0, -1, -2 and so on.
fn spm_texts() -> Texts {
    let bytes = BYTES.iter().map(|b| format!("<0x{b:02X}>"));
    let words = [
        "▁a",
        "ab",
        "▁",
        "a",
        "b",
        "c",
        "abc",
        "▁abc",
        "▁▁",
        "é",
        "▁▁▁▁",
        "bc",
        "<|user|>",
        "[x]",
        "s>",
        "<",
    ];
    Texts::new(
        ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes).chain(words.map(String::from)),
    )
}

fn spm(texts: &Texts) -> Vocabulary<'_> {
    let tokens = texts.all();
    let types = tokens.iter().map(|text| match *text {
        "<unk>" => TokenType::Unknown,
        "<s>" | "</s>" | "<|user|>" => TokenType::Control,
        "[x]" => TokenType::UserDefined,
        _ if text.starts_with("<0x") => TokenType::Byte,
        _ => TokenType::Normal,
    });
    Vocabulary {
        scores: (0..tokens.len()).map(|i| 259.0 - i as f32).collect(),
        types: types.collect(),
        tokens,
        ..Vocabulary::default()
    }
}

/// 256 bytes, then these.
const BPE_WORDS: [&str; 9] = ["ab", "Ġab", "abc", "éé", "<|end|>", "<|user|>", "[x]", "Ċ<|", "Ġ"];

fn bpe_texts() -> Texts {
    let bytes = BYTES.iter().map(|b| alphabet::char_of(*b).to_string());
    let words = BPE_WORDS.map(String::from).into_iter().filter(|word| word != "Ġ");
    let halves = ["Ã", "©"].map(String::from).concat();
    Texts::new(bytes.chain(words).chain([halves]))
}

fn bpe(texts: &Texts) -> Vocabulary<'_> {
    let tokens = texts.all();
    let types = tokens.iter().map(|text| match *text {
        "<|end|>" | "<|user|>" => TokenType::Control,
        "[x]" => TokenType::UserDefined,
        _ => TokenType::Normal,
    });
    Vocabulary {
        model: TokenizerModel::Bpe,
        pre: Some("gpt-2"),
        types: types.collect(),
        merges: vec!["a b", "Ġ ab", "ab c", "Ã ©"],
        tokens,
        ..Vocabulary::default()
    }
}

fn wpm() -> Vocabulary<'static> {
    let tokens =
        vec!["[PAD]", "[UNK]", "[SEP]", "[CLS]", "▁hello", "▁wor", "ld", "▁!", "▁a", "a", "▁中", "[x]"];
    let hidden = |text: &&str| text.len() == 5;
    let kind = |text: &&str| if hidden(text) { TokenType::Control } else { TokenType::Normal };
    let mut types: Vec<TokenType> = tokens.iter().map(kind).collect();
    types[11] = TokenType::UserDefined;
    Vocabulary {
        model: TokenizerModel::Wpm,
        types,
        tokens,
        ids: RoleIds { bos: Some(3), unk: Some(1), sep: Some(2), ..RoleIds::default() },
        ..Vocabulary::default()
    }
}

fn encode(tokenizer: &dyn Tokenizer, text: &str, options: EncodeOptions<'_>) -> Vec<TokenId> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &options, &mut ids);
    ids
}

/// The texts of the tokens of `text`.
fn split(tokenizer: &dyn Tokenizer, text: &str, special: bool) -> Vec<String> {
    let ids = encode(tokenizer, text, EncodeOptions::default().parse_special(special));
    ids.iter().map(|id| tokenizer.token_text(*id).expect("an id of the vocabulary").to_owned()).collect()
}

fn decode(tokenizer: &dyn Tokenizer, ids: &[TokenId]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ids.iter().for_each(|id| tokenizer.piece(*id, &mut bytes));
    bytes
}

#[test]
fn spm_joins_the_best_score_first() {
    let texts = spm_texts();
    let tokenizer = spm(&texts).build().unwrap();
    assert_eq!(split(&*tokenizer, "abbc", false), ["▁a", "b", "bc"]);
    assert_eq!(split(&*tokenizer, "abc", false), ["▁abc"]);
    assert_eq!(split(&*tokenizer, "", false), [""; 0]);
    assert_eq!(split(&*tokenizer, "cabc", false), ["▁", "c", "abc"]);
    assert_eq!(split(&*tokenizer, "   ", false), ["▁▁▁▁"]);
    // A character without a token is encoded as bytes.
    assert_eq!(split(&*tokenizer, "é🦙", false), ["▁", "é", "<0xF0>", "<0x9F>", "<0xA6>", "<0x99>"]);
    assert!(tokenizer.leading_space());
    assert_eq!(
        decode(&*tokenizer, &encode(&*tokenizer, "a  é\n", EncodeOptions::default())),
        " a  é\n".as_bytes()
    );
}

#[test]
fn spm_puts_a_space_before_text_and_behind_special_tokens() {
    let texts = spm_texts();
    let tokenizer = spm(&texts).build().unwrap();
    assert_eq!(split(&*tokenizer, "a<|user|>a[x]a", true), ["▁a", "<|user|>", "▁a", "[x]", "▁a"]);
    let without = Vocabulary { add_space_prefix: Some(false), ..spm(&texts) }.build().unwrap();
    assert_eq!(split(&*without, "a a", false), ["a", "▁a"]);
    assert!(!without.leading_space());
}

#[test]
fn spm_without_bytes_has_an_unknown_token() {
    let tokens = vec!["<unk>", "▁", "a"];
    let types = vec![TokenType::Unknown, TokenType::Normal, TokenType::Normal];
    let vocabulary = Vocabulary { tokens, types, ..Vocabulary::default() };
    let tokenizer = vocabulary.build().unwrap();
    assert_eq!(split(&*tokenizer, "aé", false), ["▁", "a", "<unk>"]);
    assert!(tokenizer.is_control(0));

    // Token 0 is unknown text by default: a vocabulary without one is empty, which is another error.
    let error = Vocabulary::default().build().err().unwrap();
    assert!(matches!(error, TokenizerError::VocabularySize { len: 0, .. }), "{error}");
}

#[test]
fn bpe_joins_in_the_order_of_merges() {
    let texts = bpe_texts();
    let tokenizer = bpe(&texts).build().unwrap();
    assert_eq!(split(&*tokenizer, "abc abc", false), ["abc", "Ġab", "c"]);
    assert_eq!(split(&*tokenizer, "é\n", false), ["Ã©", "Ċ"]);
    assert!(!tokenizer.leading_space());
    let whole = Vocabulary { pre: Some("llama-bpe"), ..bpe(&texts) }.build().unwrap();
    // A token that no merge produces is still used if whole words are looked up.
    assert_eq!(split(&*whole, "\u{e9}\u{e9}", false), ["Ã©", "Ã©"]);
    assert!(!whole.special().add_bos, "there is no BOS to add");
}

#[test]
fn bpe_takes_whole_words_where_its_family_does() {
    let mut texts = bpe_texts();
    texts.0.push("zzz".into());
    for (pre, expected) in [("llama-bpe", vec!["zzz"]), ("qwen2", vec!["z", "z", "z"])] {
        let vocabulary = Vocabulary { types: Vec::new(), pre: Some(pre), ..bpe(&texts) };
        assert_eq!(split(&*vocabulary.build().unwrap(), "zzz", false), expected, "{pre}");
    }
}

#[test]
fn bpe_leaves_out_bytes_without_a_token() {
    let vocabulary =
        Vocabulary { model: TokenizerModel::Bpe, tokens: vec!["a", "b"], ..Vocabulary::default() };
    assert_eq!(split(&*vocabulary.build().unwrap(), "axb", false), ["a", "b"]);
}

#[test]
fn wpm_covers_words_from_the_left_or_not_at_all() {
    let tokenizer = wpm().build().unwrap();
    let expected = ["▁hello", "▁wor", "ld", "▁!", "[UNK]", "▁中", "▁a", "a"];
    assert_eq!(split(&*tokenizer, "Héllo WORLD!worldx 中áa\u{0}", false), expected);
    assert!(tokenizer.leading_space());
    let special = tokenizer.special();
    assert_eq!((special.bos, special.eos, special.add_bos, special.add_eos), (Some(3), Some(2), true, true));
    let ids = encode(&*tokenizer, "hello world", EncodeOptions::default());
    assert_eq!(decode(&*tokenizer, &ids), b" hello world");
    let cased = Vocabulary { lowercase: Some(false), ..wpm() }.build().unwrap();
    assert_eq!(split(&*cased, "Hello hello héllo", false), ["[UNK]", "▁hello", "[UNK]"]);
}

#[test]
fn control_tokens_are_recognised_only_if_asked_for() {
    let (spm_texts, bpe_texts) = (spm_texts(), bpe_texts());
    for vocabulary in [spm(&spm_texts), bpe(&bpe_texts)] {
        let tokenizer = vocabulary.build().unwrap();
        let user = tokenizer.control_tokens().into_iter().find(|(_, text)| text == "<|user|>").unwrap().0;
        let plain = encode(&*tokenizer, "<|user|>", EncodeOptions::default());
        assert!(!plain.iter().any(|id| tokenizer.is_control(*id)), "{plain:?}");
        assert_eq!(decode(&*tokenizer, &plain).trim_ascii(), b"<|user|>");
        let special = encode(&*tokenizer, "<|user|>", EncodeOptions::default().parse_special(true));
        assert_eq!(special, [user]);
        assert_eq!(decode(&*tokenizer, &special), b"", "a control token shows nothing");
        assert!(split(&*tokenizer, "[x]", false).contains(&"[x]".into()), "user-defined tokens always are");
    }
}

#[test]
fn text_does_not_become_a_control_token_by_merging() {
    let tokens = vec!["<unk>", "<", "s>", "<s>", "s", ">", "▁", "<0x41>", "<0x4", "1>"];
    let (normal, control) = (TokenType::Normal, TokenType::Control);
    let mut types = vec![normal; tokens.len()];
    (types[0], types[3], types[7]) = (TokenType::Unknown, control, TokenType::Byte);
    let vocabulary = Vocabulary { tokens, types, ..Vocabulary::default() };
    let tokenizer = vocabulary.build().unwrap();
    assert_eq!(split(&*tokenizer, "<s>", false), ["▁", "<", "s>"]);
    assert!(!split(&*tokenizer, "<0x41>", false).contains(&"<0x41>".into()));

    let tokens = vec!["<", "s", ">", "<s", "<s>"];
    let types = vec![normal, normal, normal, normal, control];
    let merges = vec!["< s", "<s >"];
    for pre in ["gpt-2", "llama-bpe", "deepseek-llm"] {
        let (tokens, types, merges) = (tokens.clone(), types.clone(), merges.clone());
        let (model, pre) = (TokenizerModel::Bpe, Some(pre));
        let vocabulary = Vocabulary { model, pre, tokens, types, merges, ..Vocabulary::default() };
        let tokenizer = vocabulary.build().unwrap();
        assert!(!split(&*tokenizer, "<s>", false).contains(&"<s>".into()), "{pre:?}");
    }
}

#[test]
fn control_tokens_do_not_cross_protected_offsets() {
    let texts = bpe_texts();
    let tokenizer = bpe(&texts).build().unwrap();
    let text = "a<|user|>b<|user|>";
    let recognised = |offsets: &[usize]| {
        let ids = encode(
            &*tokenizer,
            text,
            EncodeOptions::default().parse_special(true).protected_offsets(offsets),
        );
        assert_eq!(decode(&*tokenizer, &ids).iter().filter(|b| **b == b'b').count(), 1);
        ids.iter().filter(|id| tokenizer.is_control(**id)).count()
    };
    for (offsets, expected) in
        [(&[][..], 2), (&[0, 1, 9, 10, 18, 99], 2), (&[2], 1), (&[8], 1), (&[8, 11], 0), (&[17], 1)]
    {
        assert_eq!(recognised(offsets), expected, "{offsets:?}");
    }
}

#[test]
fn roles() {
    let texts = Texts::new(["a", "<|im_end|>", "</s>", "<fim_prefix>", "<file_sep>", "<|file_sep|>", "z"]);
    let vocabulary = Vocabulary {
        model: TokenizerModel::Bpe,
        tokens: texts.all(),
        types: vec![TokenType::UserDefined; 7],
        ids: RoleIds { bos: Some(0), eos: Some(6), pad: Some(4), ..RoleIds::default() },
        add_bos: Some(true),
        ..Vocabulary::default()
    };
    let tokenizer = vocabulary.clone().build().unwrap();
    let expected = SpecialIds {
        bos: Some(0),
        eos: Some(6),
        pad: Some(4),
        // Known by their texts.
        roles: RoleIds { fim_pre: Some(3), fim_sep: Some(5), ..vocabulary.ids.clone() },
        end_of_generation: vec![1, 2, 5, 6],
        add_bos: true,
        ..SpecialIds::default()
    };
    assert_eq!(tokenizer.special(), &expected);
    let control: Vec<TokenId> = tokenizer.control_tokens().into_iter().map(|(id, _)| id).collect();
    assert_eq!(control, [1, 2, 3, 5]);

    // A closing tag of HTML is text.
    let types = vec![TokenType::Normal; 7];
    let normal = Vocabulary { types, ..vocabulary.clone() }.build().unwrap();
    assert_eq!(normal.special().end_of_generation, [1, 5, 6]);
    assert!(!normal.is_control(2));

    // The end of one of many messages is not the end of the answer.
    let texts = Texts::new(["<|end|>", "<|return|>", "<|call|>"]);
    let vocabulary = Vocabulary { model: TokenizerModel::Bpe, tokens: texts.all(), ..Vocabulary::default() };
    assert_eq!(vocabulary.build().unwrap().special().end_of_generation, [1, 2]);
}

#[test]
fn some_special_tokens_swallow_white_space() {
    let tokens = vec!["<|user|>", "<s>", "a", " ", "\n"];
    let types =
        vec![TokenType::Control, TokenType::Control, TokenType::Normal, TokenType::Normal, TokenType::Normal];
    let base = Vocabulary {
        tokens,
        types,
        ids: RoleIds { unk: Some(2), ..RoleIds::default() },
        ..Vocabulary::default()
    };
    let named = Vocabulary { name: "Phi-3 mini", add_space_prefix: Some(false), ..base };
    let tokenizer = named.build().unwrap();
    assert_eq!(split(&*tokenizer, "<|user|>\n \na<s>\na", true), ["<|user|>", "a", "<s>", "\n", "a"]);

    let tokens = vec!["<mask>", "a", "Ġ"];
    let types = vec![TokenType::Control, TokenType::Normal, TokenType::Normal];
    let model = TokenizerModel::Bpe;
    let jina = Vocabulary { model, tokens, types, pre: Some("jina-v2-code"), ..Vocabulary::default() };
    assert_eq!(split(&*jina.build().unwrap(), "a  <mask> a", true), ["a", "<mask>", "Ġ", "a"]);
}

#[test]
fn bad_vocabularies_are_refused_by_key() {
    let spm_texts = spm_texts();
    let bpe_texts = bpe_texts();
    let long = "x".repeat(5000);
    let mut nan = spm(&spm_texts).scores;
    nan[7] = f32::NAN;
    let with_merges = |merges| Vocabulary { merges, ..bpe(&bpe_texts) };
    let no_unk = Vocabulary { model: TokenizerModel::Wpm, tokens: vec!["a"], ..Vocabulary::default() };
    let no_bos = Vocabulary {
        model: TokenizerModel::Bpe,
        tokens: vec!["a"],
        add_bos: Some(true),
        ..Vocabulary::default()
    };
    let cases = [
        (Vocabulary { tokens: vec![], ..Vocabulary::default() }, "tokenizer.ggml.tokens has 0 entries"),
        (Vocabulary { tokens: vec![&long], ..Vocabulary::default() }, "has 5000 bytes, but 4096 are allowed"),
        (Vocabulary { scores: vec![0.0; 3], ..spm(&spm_texts) }, "tokenizer.ggml.scores has 3 entries"),
        (Vocabulary { scores: nan, ..spm(&spm_texts) }, "the score of token 7 is not a number"),
        (Vocabulary { types: vec![TokenType::Normal], ..bpe(&bpe_texts) }, "tokenizer.ggml.token_type has 1"),
        (with_merges(vec!["a b", "ab"]), "entry 1 ('ab') is not two tokens"),
        (with_merges(vec![""]), "entry 0 ('') is not two tokens"),
        (with_merges(vec![" b"]), "is not two tokens"),
        (with_merges(vec!["a "]), "is not two tokens"),
        (with_merges(vec!["nope b"]), "does not start with a token"),
        (with_merges(vec!["a nope"]), "does not end with a token"),
        (with_merges(vec!["b a"]), "does not result in a token"),
        (
            Vocabulary { pre: Some("mystery"), ..bpe(&bpe_texts) },
            "unknown pre-tokenizer 'mystery'; TokenizerOptions::pre_tokenizer names another, of those that are supported: def",
        ),
        (no_unk, "tokenizer.ggml.unknown_token_id is missing"),
        (no_bos, "tokenizer.ggml.bos_token_id is missing"),
    ];
    for (vocabulary, expected) in cases {
        let error = vocabulary.build().err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn metadata_of_a_file() {
    let strings =
        |texts: &[&str]| Value::Array(Array::Str(texts.iter().map(|text| (*text).to_owned()).collect()));
    let write = |keys: &[(&str, Value)]| {
        let writer =
            keys.iter().fold(GgufWriter::new(), |writer, (key, value)| writer.key(key, value.clone()));
        let gguf = Gguf::read(&mut std::io::Cursor::new(writer.to_bytes())).unwrap();
        load(gguf.metadata())
    };
    let model = |name: &str| ("tokenizer.ggml.model", Value::Str(name.into()));
    let tokens = ("tokenizer.ggml.tokens", strings(&["a", "b", "ab", "<|x|>"]));
    let merges = ("tokenizer.ggml.merges", strings(&["a b"]));
    let types = ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1, 1, 1, 3])));
    let eos = ("tokenizer.ggml.eos_token_id", Value::U32(3));

    let tokenizer = write(&[model("gpt2"), tokens.clone(), merges.clone(), types, eos]).unwrap();
    assert_eq!(encode(&*tokenizer, "aab", EncodeOptions::default()), [0, 2]);
    assert_eq!((tokenizer.special().eos, tokenizer.is_control(3), tokenizer.n_vocab()), (Some(3), true, 4));
    assert_eq!((tokenizer.token_text(3), tokenizer.token_text(4)), (Some("<|x|>"), None));

    let errors = [
        (write(&[]), "tokenizer.ggml.model' is missing"),
        (write(&[model("none")]), "unknown tokenizer model 'none' (supported: llama, gpt2, bert, t5"),
        (write(&[model("gpt2")]), "tokenizer.ggml.tokens' is missing"),
        (write(&[model("gpt2"), tokens.clone()]), "tokenizer.ggml.merges' is missing"),
        (write(&[model("llama"), ("tokenizer.ggml.tokens", Value::U32(7))]), "tokenizer.ggml.tokens"),
        (
            write(&[model("llama"), tokens, ("tokenizer.ggml.bos_token_id", Value::Str("1".into()))]),
            "key 'tokenizer.ggml.bos_token_id' at offset",
        ),
    ];
    for (result, expected) in errors {
        let error = result.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

const ROLE_KEYS: [&str; 15] = [
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",
    "cls",
    "mask",
    "padding",
    "fim_pre",
    "fim_suf",
    "fim_mid",
    "fim_pad",
    "fim_rep",
    "fim_sep",
];

#[test]
fn ids_outside_the_vocabulary_count_as_absent() {
    let texts =
        |texts: &[&str]| Value::Array(Array::Str(texts.iter().map(|text| (*text).to_owned()).collect()));
    let read = |writer: &GgufWriter| {
        let gguf = Gguf::read(&mut std::io::Cursor::new(writer.to_bytes())).unwrap();
        load(gguf.metadata()).unwrap().special().clone()
    };
    for model in ["llama", "gpt2", "bert"] {
        let file = GgufWriter::new()
            .key("tokenizer.ggml.model", Value::Str(model.into()))
            .key("tokenizer.ggml.tokens", texts(&["<unk>", "a", "b", "ab", "<x>"]))
            .key("tokenizer.ggml.merges", texts(&["a b"]));
        let file =
            if model == "bert" { file.key("tokenizer.ggml.unknown_token_id", Value::U32(0)) } else { file };
        let without = read(&file);
        for role in ROLE_KEYS {
            let key = format!("tokenizer.ggml.{role}_token_id");
            if model == "bert" && role == "unknown" {
                continue;
            }
            for value in [
                Value::U32(5),
                Value::U32(u32::MAX),
                Value::I32(-1),
                Value::U64(1 << 32),
                Value::U64(u64::MAX),
                Value::I64(i64::MIN),
            ] {
                assert_eq!(
                    read(&file.clone().key(&key, value.clone())),
                    without,
                    "{model}: {key} is {value:?}"
                );
            }
            let with = read(&file.clone().key(&key, Value::U8(4)));
            assert_eq!(with.roles.named().filter(|(_, id)| *id == 4).count(), 1, "{model}: {key}");
        }
    }
    // In memory too; a role that cannot be absent is missing then.
    let ids = RoleIds { unk: Some(u32::MAX), ..wpm().ids };
    let error = Vocabulary { ids, ..wpm() }.build().err().unwrap().to_string();
    assert!(error.contains("tokenizer.ggml.unknown_token_id is missing"), "{error}");
}

#[test]
fn prompts_have_bos_and_eos_once() {
    let spm_texts = spm_texts();
    let vocabulary = Vocabulary { add_eos: Some(true), ..spm(&spm_texts) };
    let tokenizer = vocabulary.build().unwrap();
    let special = tokenizer.special();
    let (bos, eos) = (special.bos.unwrap(), special.eos.unwrap());
    let (bos_text, eos_text) = (tokenizer.token_text(bos).unwrap(), tokenizer.token_text(eos).unwrap());
    let options = EncodeOptions::default().parse_special(true);
    let plain = encode(&*tokenizer, "a b", options);
    for text in [
        "a b".to_owned(),
        format!("{bos_text}a b"),
        format!("{bos_text}a b{eos_text}"),
        format!("a b{eos_text}"),
    ] {
        let prompt = encode_prompt(&*tokenizer, &text, &options);
        let whole = encode_whole(&*tokenizer, &text, &options);
        assert_eq!(whole, [&[bos][..], &plain, &[eos]].concat(), "{text}");
        let end = if text.ends_with(eos_text) { whole.len() } else { whole.len() - 1 };
        assert_eq!(prompt, whole[..end], "{text}");
    }
    // Written out without `parse_special`, it is text.
    let text = format!("{bos_text}a");
    let prompt = encode_prompt(&*tokenizer, &text, &EncodeOptions::default());
    assert_eq!((prompt[0], prompt.contains(&bos), prompt.len() > 2), (bos, true, true));
    assert_eq!(prompt.iter().filter(|id| **id == bos).count(), 1);
    // If the vocabulary does not require BOS, none is added.
    let none = Vocabulary { add_bos: Some(false), ..spm(&spm_texts) }.build().unwrap();
    assert_eq!(encode_whole(&*none, "a b", &options), plain);
    assert_eq!(encode_prompt(&*none, bos_text, &options), [bos]);
}

/// Text that uses many tokens of the small vocabularies.
fn text() -> impl Strategy<Value = String> {
    let known = vec![
        "a", "b", "c", "ab", "abc", " ", "  ", "é", "▁", "<|user|>", "[x]", "<s>", "</s>", "<0x41>", "<|",
        "s>", "\n", "hello", "world", "!", "中",
    ];
    let piece = prop_oneof![
        3 => prop::sample::select(known).prop_map(String::from),
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn text_comes_back(text in text()) {
        let (spm_texts, bpe_texts) = (spm_texts(), bpe_texts());
        for (vocabulary, is_spm) in [(spm(&spm_texts), true), (bpe(&bpe_texts), false)] {
            let tokenizer = Vocabulary { add_space_prefix: Some(false), ..vocabulary }.build().unwrap();
            let ids = encode(&*tokenizer, &text, EncodeOptions::default());
            prop_assert!(ids.iter().all(|id| !tokenizer.is_control(*id)));
            // SentencePiece writes spaces with a character that text may hold as well.
            let expected = if is_spm { text.replace('▁', " ") } else { text.clone() };
            prop_assert_eq!(decode(&*tokenizer, &ids), expected.into_bytes());
        }
    }

    #[test]
    fn options_only_matter_for_control_tokens(
        text in text(),
        special: bool,
        mut offsets in prop::collection::vec(0..60usize, 0..6),
    ) {
        offsets.sort_unstable();
        let (spm_texts, bpe_texts) = (spm_texts(), bpe_texts());
        for vocabulary in [spm(&spm_texts), bpe(&bpe_texts), wpm()] {
            let tokenizer = vocabulary.build().unwrap();
            let ids = encode(&*tokenizer, &text, EncodeOptions::default().parse_special(special).protected_offsets(&offsets));
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.n_vocab()));
            if !text.contains('<') && !text.contains('[') {
                prop_assert_eq!(ids, encode(&*tokenizer, &text, EncodeOptions::default()));
            }
        }
    }

    #[test]
    fn no_vocabulary_makes_it_panic(
        tokens in prop::collection::vec(".{0,4}|[ab▁]{0,4}|<0x[0-9A-F]{2}>", 0..20),
        types in prop::collection::vec(0i32..8, 20),
        scores in prop::collection::vec(any::<f32>(), 20),
        merges in prop::collection::vec("[ab]{1,2} [ab]{1,2}", 0..3),
        ids in (any::<Option<u8>>(), any::<Option<u8>>()),
        model in prop::sample::select(vec![TokenizerModel::Spm, TokenizerModel::Bpe, TokenizerModel::Wpm]),
        text in text(),
    ) {
        let n = tokens.len();
        let tokens = tokens.iter().map(String::as_str).collect();
        let vocabulary = Vocabulary {
            model,
            tokens,
            types: types.into_iter().take(n).map(TokenType::from_gguf).collect(),
            scores: scores.into_iter().take(n).collect(),
            merges: merges.iter().map(String::as_str).collect(),
            ids: RoleIds {
                unk: ids.0.map(u32::from).filter(|id| (*id as usize) < n),
                eos: ids.1.map(u32::from).filter(|id| (*id as usize) < n),
                ..RoleIds::default()
            },
            ..Vocabulary::default()
        };
        let built: Option<Arc<dyn Tokenizer>> = vocabulary.build().ok();
        if let Some(tokenizer) = built {
            let ids = encode(&*tokenizer, &text, EncodeOptions::default().parse_special(true));
            prop_assert!(ids.iter().all(|id| (*id as usize) < n));
            decode(&*tokenizer, &ids);
        }
    }
}

#[test]
fn unigrams_are_the_likeliest_cover() {
    let tokens = vec!["<pad>", "</s>", "<unk>", "▁", "a", "b", "ab", "▁ab", "x y"];
    let mut types = vec![TokenType::Normal; tokens.len()];
    types[..3].copy_from_slice(&[TokenType::Control, TokenType::Control, TokenType::Unknown]);
    let scores = vec![0.0, 0.0, 0.0, -1.0, -1.0, -1.0, -2.5, -2.5, -1.0];
    let vocabulary =
        Vocabulary { model: TokenizerModel::Ugm, tokens, types, scores, ..Vocabulary::default() };
    let tokenizer = vocabulary.clone().build().unwrap();
    // Two tokens of -1 are better than one of -2.5; neighbours that no token covers are one unknown token.
    assert_eq!(split(&*tokenizer, "ab", false), ["a", "b"]);
    assert_eq!(split(&*tokenizer, " ab", false), ["▁ab"]);
    assert_eq!(split(&*tokenizer, "aéüb", false), ["a", "<unk>", "b"]);
    let special = tokenizer.special();
    assert_eq!((special.eos, special.unk, special.add_bos, special.add_eos), (Some(1), Some(2), false, true));
    let spaces = Vocabulary { remove_extra_spaces: Some(true), ..vocabulary.clone() }.build().unwrap();
    assert_eq!(split(&*spaces, "  a   b ", false), ["▁", "a", "▁", "b"]);
    for charsmap in [vec![1, 2], vec![8, 0, 0, 0, 1], vec![0, 0, 0, 0, b'x']] {
        let error = Vocabulary { charsmap, ..vocabulary.clone() }.build().err().unwrap().to_string();
        assert!(error.contains("precompiled_charsmap"), "{error}");
    }
    // Nodes that lead out of the map replace nothing.
    let mut charsmap = 8u32.to_le_bytes().to_vec();
    charsmap.extend([[0xff; 8].as_slice(), b"x\0"].concat());
    let tokenizer = Vocabulary { charsmap, ..vocabulary }.build().unwrap();
    assert_eq!(split(&*tokenizer, "ab", false), ["a", "b"]);
}

#[test]
fn rwkv_takes_the_longest_and_unescapes() {
    let tokens = vec!["<s>", "a", "ab", "abcd", "\\n", "\\xe4", "\\\\", "c"];
    let mut types = vec![TokenType::Normal; tokens.len()];
    types[0] = TokenType::Control;
    let vocabulary = Vocabulary { model: TokenizerModel::Rwkv, tokens, types, ..Vocabulary::default() };
    let tokenizer = vocabulary.build().unwrap();
    let ids = encode(&*tokenizer, "abcabcd\n\\zä", EncodeOptions::default());
    assert_eq!(ids, [2, 7, 3, 4, 6]);
    let mut bytes = Vec::new();
    [4, 5, 6].iter().for_each(|id| tokenizer.piece(*id, &mut bytes));
    assert_eq!(bytes, [b'\n', 0xe4, b'\\']);
    assert!(!tokenizer.special().add_bos && tokenizer.special().bos.is_none());
}

#[test]
fn plamo_takes_the_highest_sum_and_spells_the_rest() {
    let texts = Texts::new(
        ["<unk>", "<bos>", "<eos>", "<pad>"]
            .map(String::from)
            .into_iter()
            .chain(BYTES.iter().map(|b| format!("<0x{b:02X}>")))
            .chain(["a", "b", "ab", "abc"].map(String::from)),
    );
    let tokens = texts.all();
    let kind = |i: usize| match i {
        0..4 => TokenType::Control,
        4..260 => TokenType::Byte,
        _ => TokenType::Normal,
    };
    let types = (0..tokens.len()).map(kind).collect();
    let mut scores = vec![0.0; tokens.len()];
    scores[260..].copy_from_slice(&[-1.0, -1.0, -2.0, -9.0]);
    let vocabulary =
        Vocabulary { model: TokenizerModel::Plamo2, tokens, types, scores, ..Vocabulary::default() };
    let tokenizer = vocabulary.clone().build().unwrap();
    // Of equal sums that of the longest token; a byte order mark at the start is dropped.
    let expected = ["ab", "<0xC3>", "<0xA9>", "a"];
    assert_eq!(split(&*tokenizer, "\u{feff}abéa", false), expected);
    // Three bytes cost more than the token.
    assert_eq!(split(&*tokenizer, "abc", false), ["abc"]);
    let mut fewer = vocabulary;
    fewer.types[4] = TokenType::Normal;
    assert!(fewer.build().err().unwrap().to_string().contains("every byte"));
}

#[test]
fn characters_are_spelt_in_bytes_and_newlines_stay_together() {
    let texts = Texts::new(
        ["<pad>", "<bos>"]
            .map(String::from)
            .into_iter()
            .chain(BYTES.iter().map(|b| format!("<0x{b:02X}>")))
            .chain(["a", "b", "▁", "▁a", "\n", "\n\n"].map(String::from)),
    );
    let tokens = texts.all();
    let kind = |i: usize| if (2..258).contains(&i) { TokenType::Byte } else { TokenType::Normal };
    let types: Vec<TokenType> = (0..tokens.len()).map(kind).collect();
    let ids = RoleIds { bos: Some(1), ..RoleIds::default() };
    let vocabulary = Vocabulary {
        model: TokenizerModel::Gemma4,
        tokens,
        types,
        ids,
        merges: vec!["▁ a"],
        add_bos: Some(false),
        ..Vocabulary::default()
    };
    let tokenizer = vocabulary.clone().build().unwrap();
    assert_eq!(
        split(&*tokenizer, " ab\n\né\n\n\n", false),
        ["▁a", "b", "\n\n", "<0xC3>", "<0xA9>", "\n", "\n", "\n"]
    );
    // Prompts start with BOS, whatever the file says.
    assert!(tokenizer.special().add_bos && !tokenizer.leading_space());
    let lines = Vocabulary { model: TokenizerModel::Bpe, pre: Some("mmbert"), ..vocabulary }.build().unwrap();
    assert_eq!(split(&*lines, "a b", false), ["▁a", "▁", "b"]);
    assert!(lines.leading_space());
}

#[test]
fn an_option_names_another_pre_tokenizer() {
    let texts = bpe_texts();
    let strings = |texts: Vec<&str>| Value::Array(Array::Str(texts.into_iter().map(String::from).collect()));
    let bytes = GgufWriter::new()
        .key("general.architecture", Value::Str("llama".into()))
        .key("tokenizer.ggml.model", Value::Str("gpt2".into()))
        .key("tokenizer.ggml.pre", Value::Str("tomorrow".into()))
        .key("tokenizer.ggml.tokens", strings(texts.all()))
        .key("tokenizer.ggml.merges", strings(bpe(&texts).merges))
        .to_bytes();
    let gguf = Gguf::read(&mut std::io::Cursor::new(bytes)).unwrap();
    let error = load(gguf.metadata()).err().unwrap().to_string();
    for word in ["'tomorrow'", "pre_tokenizer", "qwen2", "kimi-k2"] {
        assert!(error.contains(word), "{error}");
    }
    let with = |name: &str| load_with(gguf.metadata(), &TokenizerOptions::default().pre_tokenizer(name));
    assert_eq!(encode(&*with("qwen2").unwrap(), "12", EncodeOptions::default()).len(), 2);
    assert!(matches!(with("never").err(), Some(TokenizerError::UnknownPreTokenizer { .. })));
}
