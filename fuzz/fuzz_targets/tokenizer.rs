//! Tokenizers of every kind, over any text, with any options; and of any vocabulary.
#![no_main]

use exsa_core::TokenId;
use exsa_core::tokenizer::{EncodeOptions, RoleIds, TokenType, Tokenizer, TokenizerModel, Vocabulary};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

/// Pre-tokenizers with a scanner of their own.
const PRE: [&str; 29] = [
    "default",
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "qwen35",
    "smollm",
    "falcon",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "tekken",
    "gpt-4o",
    "jais-2",
    "seed-coder",
    "ufakzeka",
    "exaone-moe",
    "bloom",
    "viking",
    "superbpe",
    "kimi-k2",
    "chameleon",
    "granite-embed-multi-97m",
    "tiny_aya",
    "youtu",
    "spark2_5",
    "afmoe",
    "laguna",
    "minicpm5",
    "hy_v4",
];

/// Pre-tokenizers of vocabularies of characters.
const PRE_OF_CHARACTERS: [&str; 3] = ["gemma4", "mmbert", "whitespace"];

const MODELS: [TokenizerModel; 9] = [
    TokenizerModel::Spm,
    TokenizerModel::Bpe,
    TokenizerModel::Wpm,
    TokenizerModel::Ugm,
    TokenizerModel::Rwkv,
    TokenizerModel::Plamo2,
    TokenizerModel::Gemma4,
    TokenizerModel::Whitespace,
    TokenizerModel::HybridDna,
];

/// A tokenizer, and whether what it decodes is what was encoded.
struct Fixed {
    tokenizer: Arc<dyn Tokenizer>,
    comes_back: bool,
}

static FIXED: LazyLock<Vec<Fixed>> = LazyLock::new(|| {
    let mut fixed =
        vec![Fixed { tokenizer: spm(), comes_back: true }, Fixed { tokenizer: wpm(), comes_back: false }];
    fixed.extend(PRE.map(|pre| Fixed { tokenizer: bpe(pre), comes_back: true }));
    fixed
});

fn spm() -> Arc<dyn Tokenizer> {
    let bytes = (0..=255u8).map(|b| (format!("<0x{b:02X}>"), TokenType::Byte));
    let words =
        ["\u{2581}", "a", "b", "ab", "aa", "aaa", "aaaa", "\u{2581}a", "\u{2581}\u{2581}", "a\u{2581}b", "é"];
    let words = words.map(|word| (word.to_owned(), TokenType::Normal));
    let special =
        [("<unk>", TokenType::Unknown), ("<s>", TokenType::Control), ("<x>", TokenType::UserDefined)];
    let special = special.map(|(text, kind)| (text.to_owned(), kind));
    let tokens: Vec<(String, TokenType)> = special.into_iter().chain(bytes).chain(words).collect();
    let vocabulary = Vocabulary {
        tokens: tokens.iter().map(|(text, _)| text.as_str()).collect(),
        types: tokens.iter().map(|(_, kind)| *kind).collect(),
        scores: (0..tokens.len()).map(|i| -((i * 7 % 13) as f32)).collect(),
        add_space_prefix: Some(false),
        ..Vocabulary::default()
    };
    vocabulary.build().expect("a sound vocabulary")
}

fn bpe(pre: &str) -> Arc<dyn Tokenizer> {
    let printable = |b: &u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = (0x100..0x144).map(|code| char::from_u32(code).expect("a character"));
    let bytes = (0..=255u8).filter(printable).map(char::from).chain(others).map(String::from);
    let words = ["aa", "aaaa", "ab", "Ġa", "ĠĠ", "12", "<s>", "<x>", "a<"].map(String::from);
    let tokens: Vec<String> = bytes.chain(words).collect();
    let kind = |text: &str| match text {
        "<s>" => TokenType::Control,
        "<x>" => TokenType::UserDefined,
        _ => TokenType::Normal,
    };
    let vocabulary = Vocabulary {
        model: TokenizerModel::Bpe,
        pre: Some(pre),
        tokens: tokens.iter().map(String::as_str).collect(),
        types: tokens.iter().map(|text| kind(text)).collect(),
        merges: vec!["a a", "aa aa", "a b", "Ġ a", "Ġ Ġ", "1 2", "a <"],
        ..Vocabulary::default()
    };
    vocabulary.build().expect("a sound vocabulary")
}

fn wpm() -> Arc<dyn Tokenizer> {
    let tokens =
        vec!["<unk>", "<s>", "<x>", "\u{2581}a", "a", "b", "ab", "\u{2581}!", "\u{2581}中", "\u{2581}"];
    let mut types = vec![TokenType::Normal; tokens.len()];
    types[..3].copy_from_slice(&[TokenType::Unknown, TokenType::Control, TokenType::UserDefined]);
    let ids = RoleIds { unk: Some(0), ..RoleIds::default() };
    let vocabulary = Vocabulary { model: TokenizerModel::Wpm, tokens, types, ids, ..Vocabulary::default() };
    vocabulary.build().expect("a sound vocabulary")
}

/// A vocabulary without any care; none if it is refused.
fn any_tokenizer(data: &mut Unstructured<'_>) -> Result<Option<Arc<dyn Tokenizer>>> {
    let id = |data: &mut Unstructured<'_>| data.arbitrary::<Option<u8>>().map(|id| id.map(TokenId::from));
    let count = data.int_in_range(0..=24)?;
    let mut texts: Vec<String> = Vec::new();
    for _ in 0..count {
        let text = match data.int_in_range(0..=3)? {
            0 => data.arbitrary::<&str>()?.chars().take(8).collect(),
            1 => format!("<0x{:02X}>", data.arbitrary::<u8>()?),
            // One of the others, or two: so merges and longer matches are likely.
            2 if !texts.is_empty() => format!("{}{}", data.choose(&texts)?, data.choose(&texts)?),
            _ => data.choose(&["a", "b", "\u{2581}", "Ġ", " ", "\n", "<", "1"])?.to_string(),
        };
        texts.push(text.chars().take(64).collect());
    }
    let mut merges = Vec::new();
    while !texts.is_empty() && merges.len() < 16 && data.arbitrary()? {
        merges.push(format!("{} {}", data.choose(&texts)?, data.choose(&texts)?));
    }
    let mut types = Vec::new();
    let mut scores = Vec::new();
    for _ in &texts {
        types.push(TokenType::from_gguf(data.int_in_range(0..=7)?));
        scores.push(data.arbitrary()?);
    }
    let vocabulary = Vocabulary {
        model: *data.choose(&MODELS)?,
        pre: Some(if data.arbitrary()? { *data.choose(&PRE)? } else { *data.choose(&PRE_OF_CHARACTERS)? }),
        charsmap: data.arbitrary()?,
        remove_extra_spaces: data.arbitrary()?,
        tokens: texts.iter().map(String::as_str).collect(),
        scores,
        types,
        merges: merges.iter().map(String::as_str).collect(),
        ids: RoleIds { bos: id(data)?, eos: id(data)?, unk: id(data)?, sep: id(data)?, ..RoleIds::default() },
        add_bos: data.arbitrary()?,
        add_space_prefix: data.arbitrary()?,
        lowercase: data.arbitrary()?,
        name: data.choose(&["", "phi-3", "modern-bert"])?,
        ..Vocabulary::default()
    };
    Ok(vocabulary.build().ok())
}

fn run(data: &mut Unstructured<'_>) -> Result<()> {
    let any;
    let (tokenizer, comes_back) = if data.arbitrary()? {
        let fixed = data.choose(&FIXED)?;
        (&*fixed.tokenizer, fixed.comes_back)
    } else {
        let Some(built) = any_tokenizer(data)? else { return Ok(()) };
        any = built;
        (&*any, false)
    };
    let special = data.arbitrary()?;
    let mut offsets = data.arbitrary::<Vec<u8>>()?.into_iter().map(usize::from).collect::<Vec<_>>();
    offsets.sort_unstable();
    // Long repetitive texts reach code that short ones do not.
    let repeat = data.int_in_range(1..=40)?;
    let rest = data.bytes(data.len())?;
    let text = String::from_utf8_lossy(rest).repeat(repeat);

    let mut ids = Vec::new();
    tokenizer.encode(
        &text,
        &EncodeOptions::default().parse_special(special).protected_offsets(&offsets),
        &mut ids,
    );
    let mut bytes = Vec::new();
    for id in &ids {
        assert!((*id as usize) < tokenizer.n_vocab());
        tokenizer.piece(*id, &mut bytes);
        let is_unknown = tokenizer.special().unk == Some(*id);
        assert!(special || !tokenizer.is_control(*id) || is_unknown, "text became a control token");
    }
    if comes_back && !special {
        // SentencePiece writes spaces with a character that text may hold as well.
        assert_eq!(String::from_utf8_lossy(&bytes).replace('\u{2581}', " "), text.replace('\u{2581}', " "));
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    // Too little data for a case is no case.
    let _ = run(&mut Unstructured::new(data));
});
