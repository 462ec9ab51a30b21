//! The ways to cut text into words that `tokenizer.json` may describe.

use super::json::{Json, shown};
use serde_json::Value;

/// How text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cuts {
    /// Words of bytes, cut by the pre-tokenizer that a GGUF calls `pre`.
    ByteLevel {
        /// Value of `tokenizer.ggml.pre`.
        pre: &'static str,
    },
    /// Characters, with spaces written as U+2581.
    SentencePiece {
        /// Whether a text gets a space before it.
        space_prefix: bool,
    },
}

impl Cuts {
    pub(super) fn is_sentence_piece(self) -> bool {
        matches!(self, Self::SentencePiece { .. })
    }
}

/// A step of a pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Matches of the expression, and what is between them.
    Split(&'a str),
    /// Each digit alone.
    Digits,
    /// GPT-2's expression.
    Gpt2,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Steps, whether whole words that are tokens are taken before merges, and the name in a GGUF.
const KNOWN: [(&[Step<'_>], bool, &str); 6] = [
    (&[Step::Gpt2], false, "gpt-2"),
    (&[Step::Digits, Step::Gpt2], false, "smollm"),
    (&[Step::Split(LLAMA3)], true, "llama-bpe"),
    (&[Step::Split(LLAMA3)], false, "smaug-bpe"),
    (&[Step::Split(QWEN2)], false, "qwen2"),
    (&[Step::Split(TEKKEN)], true, "tekken"),
];

/// The known ways, for messages.
const NAMES: &str =
    "those of GPT-2, SmolLM, Llama 3, Qwen 2, Tekken, and SentencePiece with U+2581 for spaces";

/// Reads normalizer and pre-tokenizer of `file`, whose model is `model`.
pub(super) fn read(file: &Json, model: &Json) -> Result<Cuts, String> {
    let parts = |key: &str, inner: &str| flattened(file.value(key), inner);
    let normalizers = parts("normalizer", "normalizers");
    let steps = parts("pre_tokenizer", "pretokenizers");
    let kind = |step: &Value| step.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_byte_level = steps.iter().any(|step| kind(step) == "ByteLevel");
    if is_byte_level {
        // NFC is what text mostly is, and what a GGUF of such a model leaves out too.
        if let Some(other) = normalizers.iter().find(|step| kind(step) != "NFC") {
            return Err(refuse("normalizer", other));
        }
        return byte_level(&steps, model.flag("ignore_merges")?.unwrap_or(false));
    }
    let mut space_prefix = false;
    let mut spaces = false;
    for step in &normalizers {
        match kind(step).as_str() {
            "Prepend" if text(step, "prepend") == Some("\u{2581}") => space_prefix = true,
            "Replace" if is_space(step.get("pattern")) && text(step, "content") == Some("\u{2581}") => {
                spaces = true;
            }
            _ => return Err(refuse("normalizer", step)),
        }
    }
    for step in &steps {
        match kind(step).as_str() {
            // Spaces are replaced before.
            "Split" if spaces && is_space(step.get("pattern")) => {}
            "Metaspace" if text(step, "replacement") == Some("\u{2581}") => {
                spaces = true;
                match text(step, "prepend_scheme") {
                    Some("always") => space_prefix = true,
                    Some("never") => {}
                    None => {
                        space_prefix |= step.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(true);
                    }
                    Some(_) => return Err(refuse("pre_tokenizer", step)),
                }
            }
            _ => return Err(refuse("pre_tokenizer", step)),
        }
    }
    if !spaces || model.flag("ignore_merges")? == Some(true) {
        return Err(format!(
            "tokenizer.json: neither ByteLevel nor U+2581 for spaces; the known ways to cut text are {NAMES}"
        ));
    }
    Ok(Cuts::SentencePiece { space_prefix })
}

fn byte_level(steps: &[&Value], ignore_merges: bool) -> Result<Cuts, String> {
    let mut found = Vec::new();
    for step in steps {
        let flag = |key: &str| step.get(key).and_then(Value::as_bool);
        match text(step, "type") {
            Some("ByteLevel") if flag("add_prefix_space") != Some(true) => {
                if flag("use_regex").unwrap_or(true) {
                    found.push(Step::Gpt2);
                }
            }
            Some("Digits") if flag("individual_digits") == Some(true) => found.push(Step::Digits),
            Some("Split") => {
                let pattern = step.get("pattern").and_then(|pattern| pattern.get("Regex")?.as_str());
                let inverted = flag("invert").unwrap_or(false);
                // Nothing is left between the matches of these expressions.
                let isolated = match text(step, "behavior") {
                    Some("Isolated") => !inverted,
                    Some("Removed") => inverted,
                    _ => false,
                };
                match pattern.filter(|_| isolated) {
                    Some(pattern) => found.push(Step::Split(pattern)),
                    None => return Err(refuse("pre_tokenizer", step)),
                }
            }
            _ => return Err(refuse("pre_tokenizer", step)),
        }
    }
    let known = KNOWN.iter().find(|(steps, ignores, _)| *steps == found && *ignores == ignore_merges);
    known.map(|(_, _, pre)| Cuts::ByteLevel { pre }).ok_or_else(|| {
        format!(
            "tokenizer.json: pre_tokenizer is {}, with ignore_merges {ignore_merges}, which is not known; the known \
             ways to cut text are {NAMES}",
            steps.iter().map(|step| shown(Some(step))).collect::<Vec<_>>().join(", ")
        )
    })
}

/// The steps of a sequence, or the one step.
fn flattened<'a>(value: Option<&'a Value>, inner: &str) -> Vec<&'a Value> {
    let Some(value) = value else { return Vec::new() };
    match value.get(inner) {
        Some(Value::Array(steps)) => steps.iter().collect(),
        _ => vec![value],
    }
}

fn text<'a>(step: &'a Value, key: &str) -> Option<&'a str> {
    step.get(key).and_then(Value::as_str)
}

fn is_space(pattern: Option<&Value>) -> bool {
    pattern.and_then(|pattern| text(pattern, "String")) == Some(" ")
}

fn refuse(key: &str, step: &Value) -> String {
    format!(
        "tokenizer.json: {key} has {}, which is not known; the known ways to cut text are {NAMES}",
        shown(Some(step))
    )
}
