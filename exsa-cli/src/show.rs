//! `exsa show`: facts about a model, from its header.

use crate::args::ShowArgs;
use crate::error::CliError;
use crate::model;
use crate::output::{bytes, visible};
use exsa::core::gguf::{Gguf, Metadata, Value};
use exsa::{MemoryEstimate, ModelInfo};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;

/// Maximum characters shown of a metadata value.
const VALUE_CHARS: usize = 80;

/// Runs the command.
pub(crate) fn show(args: &ShowArgs) -> Result<(), CliError> {
    let gguf = model::header(&args.model)?;
    let info =
        ModelInfo::from_gguf(&gguf).map_err(|error| CliError::Other(format!("{}: {error}", args.model)))?;
    let mut out = std::io::stdout().lock();
    if args.template {
        let template = info.chat_template.as_deref();
        let template =
            template.ok_or_else(|| CliError::Other(format!("{} has no chat template", args.model)))?;
        return Ok(writeln!(out, "{template}")?);
    }
    let estimate = model::builder(&args.engine)?.estimate(model::source(&args.model)?);
    if args.json {
        return Ok(writeln!(out, "{}", as_json(&gguf, &info, estimate.ok(), args))?);
    }
    for (name, value) in facts(&gguf, &info, estimate) {
        writeln!(out, "{name:<14} {value}")?;
    }
    writeln!(out, "\n{:<10} {:>8} {:>14} {:>10}", "weights", "tensors", "parameters", "size")?;
    for (name, kind) in types(&gguf) {
        writeln!(out, "{name:<10} {:>8} {:>14} {:>10}", kind.tensors, kind.parameters, bytes(kind.bytes))?;
    }
    if args.metadata {
        writeln!(out)?;
        for (key, value) in gguf.metadata().iter() {
            writeln!(out, "{} = {}", visible(key), shortened(value))?;
        }
    }
    if args.tensors {
        writeln!(out)?;
        for tensor in gguf.tensors() {
            let shape = tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" × ");
            writeln!(out, "{:<40} {:<8} {shape}", visible(&tensor.name), tensor.dtype.name())?;
        }
    }
    Ok(())
}

/// Prints lines of names and values.
fn facts(
    gguf: &Gguf,
    info: &ModelInfo,
    estimate: exsa::Result<MemoryEstimate>,
) -> Vec<(&'static str, String)> {
    let text = |key: &str| metadata_text(gguf.metadata(), key);
    let mut facts = vec![
        ("name", visible(&info.name)),
        ("architecture", visible(&info.architecture)),
        ("parameters", info.parameters.to_string()),
        ("quantization", info.quantization.clone()),
        ("file", file(gguf)),
        ("context", format!("{} tokens", info.n_ctx)),
        ("layers, width", format!("{}, {}", info.n_layer, info.n_embd)),
        ("vocabulary", format!("{} tokens", info.n_vocab)),
        ("KV per token", format!("{} in f16", bytes(info.kv_bytes_per_token))),
        (
            "chat template",
            info.chat_template.as_ref().map_or("none".into(), |t| format!("{} characters", t.len())),
        ),
        ("licence", text("general.license").unwrap_or_else(|| "not stated".into())),
    ];
    facts.push(match estimate {
        Ok(estimate) => (
            "memory",
            format!(
                "{} ({} weights, {} KV, {} workspaces)",
                bytes(estimate.total()),
                bytes(estimate.weights),
                bytes(estimate.kv),
                bytes(estimate.scratch)
            ),
        ),
        Err(error) => ("memory", format!("no estimate: {error}")),
    });
    facts
}

/// Bytes and format of the model's files.
fn file(gguf: &Gguf) -> String {
    let format = match gguf.version() {
        0 => "safetensors".to_owned(),
        version => format!("GGUF version {version}"),
    };
    match gguf.files().len() {
        0 | 1 => format!("{}, {format}", bytes(gguf.file_len())),
        files => format!("{} in {files} files, {format}", bytes(gguf.file_len())),
    }
}

#[derive(Clone, Copy, Default)]
struct Kind {
    tensors: u64,
    parameters: u64,
    bytes: u64,
}

/// Groups tensors by element type.
fn types(gguf: &Gguf) -> BTreeMap<&'static str, Kind> {
    let mut types: BTreeMap<_, Kind> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let kind = types.entry(tensor.dtype.name()).or_default();
        kind.tensors += 1;
        kind.parameters = kind.parameters.saturating_add(tensor.elements());
        kind.bytes = kind.bytes.saturating_add(tensor.bytes);
    }
    types
}

fn as_json(
    gguf: &Gguf,
    info: &ModelInfo,
    estimate: Option<MemoryEstimate>,
    args: &ShowArgs,
) -> serde_json::Value {
    let types: BTreeMap<_, _> = types(gguf)
        .into_iter()
        .map(|(name, kind)| {
            (name, json!({"tensors": kind.tensors, "parameters": kind.parameters, "bytes": kind.bytes}))
        })
        .collect();
    let mut value = json!({
        "info": info,
        "file_bytes": gguf.file_len(),
        "gguf_version": gguf.version(),
        "license": metadata_text(gguf.metadata(), "general.license"),
        "types": types,
        "memory": estimate.map(|estimate| json!({
            "total": estimate.total(), "weights": estimate.weights, "kv": estimate.kv, "scratch": estimate.scratch,
        })),
    });
    if args.metadata {
        let all: BTreeMap<_, _> =
            gguf.metadata().iter().map(|(key, value)| (key, shortened(value))).collect();
        value["metadata"] = json!(all);
    }
    if args.tensors {
        let tensors = gguf.tensors().iter();
        value["tensors"] = tensors
            .map(|tensor| json!({"name": tensor.name, "type": tensor.dtype.name(), "shape": tensor.shape}))
            .collect();
    }
    value
}

fn metadata_text(metadata: &Metadata, key: &str) -> Option<String> {
    metadata.get_lossy(key).ok().flatten().map(visible)
}

/// Formats a value on one line, truncated.
fn shortened(value: &Value) -> String {
    let text = match value {
        Value::Array(array) => format!("{} of {} elements", value.type_name(), array.len()),
        Value::Str(text) => visible(text),
        other => format!("{other:?}"),
    };
    match text.char_indices().nth(VALUE_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
