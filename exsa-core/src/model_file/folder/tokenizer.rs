//! From `tokenizer.json` and the files beside it to a GGUF's description of a tokenizer.

use super::json::{self, Json, shown};
use super::pre_tokenizer;
use crate::gguf::{Array, Metadata, Value};
use serde_json::Value as JsonValue;
use std::collections::HashMap;
use std::path::Path;

const FILE: &str = "tokenizer.json";

/// Ids without a token that a vocabulary may have.
const GAPS_MAX: usize = 1 << 16;

/// Types of tokens in a GGUF.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// Puts the tokenizer and the chat templates of `folder` into `metadata`.
pub(super) fn translate(folder: &Path, config: &Json, metadata: &mut Metadata) -> Result<(), String> {
    let file =
        Json::read(folder, FILE, json::TOKENIZER_BYTES_MAX)?.ok_or_else(|| format!("{FILE} is missing"))?;
    let model = file.object("model").ok_or_else(|| file.refuse("model", "an object is needed"))?;
    if model.text("type")? != Some("BPE") {
        return Err(model.refuse("type", "BPE is supported"));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix", "dropout"] {
        let is_empty = |value: &JsonValue| value.as_str() == Some("");
        if model.value(key).is_some_and(|value| !is_empty(value)) {
            return Err(model.refuse(key, "none is supported"));
        }
    }
    let cuts = pre_tokenizer::read(&file, &model)?;
    let mut tokens = Tokens::read(&file, &model)?;
    if cuts.is_sentence_piece() {
        tokens.mark_bytes(model.text("unk_token")?);
    }
    let merges = merges(&model)?;
    let mut set = |key: &str, value: Value| metadata.set(&format!("tokenizer.ggml.{key}"), value);
    match cuts {
        pre_tokenizer::Cuts::ByteLevel { pre } => {
            set("model", Value::Str("gpt2".into()));
            set("pre", Value::Str(pre.into()));
            let merges = merges.iter().map(|[left, right]| format!("{left} {right}")).collect();
            set("merges", Value::Array(Array::Str(merges)));
        }
        pre_tokenizer::Cuts::SentencePiece { space_prefix } => {
            set("model", Value::Str("llama".into()));
            set("scores", Value::Array(Array::F32(tokens.scores(&merges)?)));
            set("add_space_prefix", Value::Bool(space_prefix));
        }
    }
    let settings = Json::read(folder, "tokenizer_config.json", json::CONFIG_BYTES_MAX)?;
    let generation = Json::read(folder, "generation_config.json", json::CONFIG_BYTES_MAX)?;
    for (name, key) in [
        ("bos", "bos_token_id"),
        ("eos", "eos_token_id"),
        ("unk", "unknown_token_id"),
        ("pad", "padding_token_id"),
    ] {
        let by_text = settings.as_ref().map(|settings| role_text(settings, name)).transpose()?.flatten();
        let by_text = by_text.and_then(|text| tokens.ids.get(text.as_str()).copied());
        let by_id = ids_of(config, name).first().copied();
        if let Some(id) = by_text.or(by_id).filter(|id| (*id as usize) < tokens.texts.len()) {
            set(key, Value::U32(id));
            if name == "eos" {
                // Further ids that end an answer.
                let more = generation.as_ref().map(|json| ids_of(json, "eos")).unwrap_or_default();
                let more =
                    more.into_iter().filter(|other| *other != id && (*other as usize) < tokens.texts.len());
                for (other, key) in more.zip(["eot_token_id", "eom_token_id"]) {
                    set(key, Value::U32(other));
                }
            }
        } else if name == "bos" || name == "eos" {
            // No default takes its place.
            set(key, Value::U32(u32::MAX));
        }
    }
    let flag = |key: &str| settings.as_ref().map_or(Ok(None), |settings| settings.flag(key));
    let (first, last) = around(&file);
    let add_bos = flag("add_bos_token")?.unwrap_or(first);
    let add_eos = flag("add_eos_token")?.unwrap_or(last);
    set("add_bos_token", Value::Bool(add_bos));
    set("add_eos_token", Value::Bool(add_eos));
    set("token_type", Value::Array(Array::I32(tokens.types)));
    set("tokens", Value::Array(Array::Str(tokens.texts)));
    templates(folder, settings.as_ref(), metadata)
}

/// Texts and types by id.
struct Tokens {
    texts: Vec<String>,
    types: Vec<i32>,
    ids: HashMap<String, u32>,
}

impl Tokens {
    /// Reads the vocabulary and the tokens that were added to it.
    fn read(file: &Json, model: &Json) -> Result<Self, String> {
        let Some(JsonValue::Object(vocabulary)) = model.value("vocab") else {
            return Err(model.refuse("vocab", "an object of texts and ids is needed"));
        };
        let mut entries: Vec<(&str, u32, i32)> = Vec::with_capacity(vocabulary.len());
        for (text, id) in vocabulary {
            let id = token_id(id).ok_or_else(|| format!("{FILE}: the id of token '{text}' is {id}"))?;
            entries.push((text, id, NORMAL));
        }
        let added = match file.value("added_tokens") {
            None => &[],
            Some(JsonValue::Array(added)) => added.as_slice(),
            Some(_) => return Err(file.refuse("added_tokens", "a list is expected")),
        };
        for token in added {
            let text = token.get("content").and_then(JsonValue::as_str);
            let id = token.get("id").and_then(token_id);
            let (Some(text), Some(id)) = (text, id) else {
                let shown = shown(Some(token));
                return Err(format!("{FILE}: added_tokens has {shown}; an id and a content are needed"));
            };
            let flag = |key: &str| token.get(key).and_then(JsonValue::as_bool).unwrap_or(false);
            for key in ["lstrip", "rstrip", "single_word"] {
                if flag(key) {
                    return Err(format!(
                        "{FILE}: {key} of the added token '{text}' is true; false is supported"
                    ));
                }
            }
            entries.push((text, id, if flag("special") { CONTROL } else { USER_DEFINED }));
        }
        let len = entries.iter().map(|entry| entry.1 as usize + 1).max().unwrap_or(0);
        if len > entries.len() + GAPS_MAX {
            let found = entries.len();
            return Err(format!(
                "{FILE}: it has {found} tokens, but ids up to {}; at most {GAPS_MAX} ids may be missing",
                len - 1
            ));
        }
        let mut tokens =
            Self { texts: vec![String::new(); len], types: vec![UNUSED; len], ids: HashMap::new() };
        for (text, id, kind) in entries {
            let at = id as usize;
            if let Some(other) = tokens.ids.insert(text.to_owned(), id).filter(|other| *other != id) {
                return Err(format!("{FILE}: token '{text}' has the ids {other} and {id}"));
            }
            if tokens.types[at] != UNUSED && tokens.texts[at] != text {
                return Err(format!(
                    "{FILE}: the tokens '{}' and '{text}' have the id {id}",
                    tokens.texts[at]
                ));
            }
            text.clone_into(&mut tokens.texts[at]);
            tokens.types[at] = kind;
        }
        for (id, text) in tokens.texts.iter_mut().enumerate().filter(|(id, _)| tokens.types[*id] == UNUSED) {
            *text = format!("[PAD{id}]");
        }
        Ok(tokens)
    }

    /// Gives the tokens of single bytes, and that of unknown text, their types.
    fn mark_bytes(&mut self, unknown: Option<&str>) {
        for (text, kind) in self.texts.iter().zip(&mut self.types) {
            let is_byte = text.len() == 6
                && text.strip_prefix("<0x").and_then(|text| text.strip_suffix('>')).is_some_and(|digits| {
                    digits.bytes().all(|digit| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit))
                });
            if is_byte && *kind == NORMAL {
                *kind = BYTE;
            } else if Some(text.as_str()) == unknown {
                *kind = UNKNOWN;
            }
        }
    }

    /// Scores by which tokens are joined in the order of `merges`.
    ///
    /// SentencePiece's tokens have scores, and `merges` lists the pairs that make each token, in the order of
    /// these: all pairs of a token follow one another.
    fn scores(&self, merges: &[[&str; 2]]) -> Result<Vec<f32>, String> {
        let lowest = -(merges.len() as f32) - 1.0;
        let mut scores = vec![lowest; self.texts.len()];
        let (mut joined, mut last) = (String::new(), None);
        for (rank, [left, right]) in merges.iter().enumerate() {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let known = [left, right].into_iter().all(|part| self.ids.contains_key(*part));
            let id = self.ids.get(&joined).filter(|_| known).ok_or_else(|| {
                format!("{FILE}: merges has '{left}' and '{right}' at {rank}, which are no tokens that make a token")
            })?;
            if last != Some(*id) {
                let score = &mut scores[*id as usize];
                if *score != lowest {
                    return Err(format!(
                        "{FILE}: the merges of '{joined}' are not next to each other (at {rank}); those of models by \
                         SentencePiece are, and others of this form are not supported"
                    ));
                }
                *score = -(rank as f32);
                last = Some(*id);
            }
        }
        Ok(scores)
    }
}

fn token_id(id: &JsonValue) -> Option<u32> {
    id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| *id < u32::MAX)
}

/// The merges of `model`: pairs, or texts with a space between two.
fn merges(model: &Json) -> Result<Vec<[&str; 2]>, String> {
    let Some(JsonValue::Array(list)) = model.value("merges") else {
        return Err(model.refuse("merges", "a list is needed"));
    };
    // Indices are ids of 24 bits in scores, exactly.
    if list.len() > 1 << 24 {
        return Err(format!("{FILE}: it has {} merges, but {} are allowed", list.len(), 1 << 24));
    }
    list.iter().enumerate().map(|(at, merge)| pair(at, merge)).collect()
}

/// The merge at place `at` of a list.
fn pair(at: usize, merge: &JsonValue) -> Result<[&str; 2], String> {
    let pair = match merge {
        JsonValue::String(text) => text.split_once(' '),
        JsonValue::Array(pair) => match pair.as_slice() {
            [left, right] => left.as_str().zip(right.as_str()),
            _ => None,
        },
        _ => None,
    };
    let pair = pair.filter(|(left, right)| !left.is_empty() && !right.is_empty());
    pair.map(<[&str; 2]>::from)
        .ok_or_else(|| format!("{FILE}: merges has {} at {at}; two tokens are expected", shown(Some(merge))))
}

/// The text of the token with the role `name` in `tokenizer_config.json`.
fn role_text(settings: &Json, name: &str) -> Result<Option<String>, String> {
    let key = format!("{name}_token");
    let text = match settings.value(&key) {
        None => return Ok(None),
        Some(JsonValue::Object(token)) => token.get("content").and_then(JsonValue::as_str),
        Some(value) => value.as_str(),
    };
    text.map(|text| Some(text.to_owned())).ok_or_else(|| settings.refuse(&key, "a text is expected"))
}

/// The ids with the role `name` in a configuration: one or a list.
fn ids_of(config: &Json, name: &str) -> Vec<u32> {
    match config.value(&format!("{name}_token_id")) {
        Some(JsonValue::Array(ids)) => ids.iter().filter_map(token_id).collect(),
        Some(id) => token_id(id).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Whether the post-processor puts a special token before a text, and behind it.
fn around(file: &Json) -> (bool, bool) {
    let mut steps: Vec<&JsonValue> = file.value("post_processor").into_iter().collect();
    if let Some(JsonValue::Array(inner)) = steps.first().and_then(|step| step.get("processors")) {
        steps = inner.iter().collect();
    }
    let template = steps.into_iter().find_map(|step| step.get("single")?.as_array());
    let is_special = |part: Option<&JsonValue>| part.is_some_and(|part| part.get("SpecialToken").is_some());
    template.map_or((false, false), |parts| (is_special(parts.first()), is_special(parts.last())))
}

/// Puts the chat templates into `metadata`: those of `chat_template.jinja`, else of `tokenizer_config.json`.
fn templates(folder: &Path, settings: Option<&Json>, metadata: &mut Metadata) -> Result<(), String> {
    const KEY: &str = "tokenizer.chat_template";
    const NAME: &str = "chat_template.jinja";
    if let Some(bytes) = json::read_file(folder, NAME, json::CONFIG_BYTES_MAX)? {
        let text = String::from_utf8(bytes).map_err(|_| format!("{NAME} is not UTF-8"))?;
        metadata.set(KEY, Value::Str(text));
        return Ok(());
    }
    let Some(settings) = settings else { return Ok(()) };
    match settings.value("chat_template") {
        None => Ok(()),
        Some(JsonValue::String(text)) => {
            metadata.set(KEY, Value::Str(text.clone()));
            Ok(())
        }
        Some(JsonValue::Array(list)) => {
            for entry in list {
                let text = |key: &str| entry.get(key).and_then(JsonValue::as_str);
                let (Some(name), Some(template)) = (text("name"), text("template")) else {
                    return Err(settings.refuse("chat_template", "names and templates are expected"));
                };
                let key = if name == "default" { KEY.to_owned() } else { format!("{KEY}.{name}") };
                metadata.set(&key, Value::Str(template.to_owned()));
            }
            Ok(())
        }
        Some(_) => Err(settings.refuse("chat_template", "a text or a list is expected")),
    }
}
