//! Damaged files and impossible metadata.

use crate::check::check;
use crate::clause;
use crate::edit::{Edit, Tensor};
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::test_data;
use exsa_core::backend::{LoadProgress, ModelSource};
use exsa_core::error::LoadError;
use exsa_core::gguf::{Array, GgmlType, Gguf, Value};
use std::io::Cursor;

const SKIPPED: &str = "the backend does not read files";

/// Requires a refusal of the file with an error that contains all of `words`.
fn refuse(fixture: &Fixture, what: &str, bytes: Vec<u8>, words: &[&str]) -> Result<(), Failure> {
    let any = |error: &LoadError| !matches!(error, LoadError::Cancelled | LoadError::Option { .. });
    refuse_as(fixture, what, bytes, words, any)
}

/// Requires a refusal of the file as invalid GGUF.
fn refuse_gguf(fixture: &Fixture, what: &str, bytes: Vec<u8>) -> Result<(), Failure> {
    refuse_as(fixture, what, bytes, &[], |error| matches!(error, LoadError::Gguf(_)))
}

/// Requires a refusal of the file with a `wanted` error that contains all of `words`.
fn refuse_as(
    fixture: &Fixture,
    what: &str,
    bytes: Vec<u8>,
    words: &[&str],
    wanted: fn(&LoadError) -> bool,
) -> Result<(), Failure> {
    let source = ModelSource::Memory(bytes.into());
    let loaded = fixture.backend.load(&source, &fixture.load_options, &mut LoadProgress::none());
    let says = format!("a LoadError that says {words:?}");
    // The header alone does not reveal every error, but must be read without a panic.
    let _ = fixture.backend.inspect(&source);
    check(clause::DAMAGED, format!("{}, {what}", fixture.place())).refused(loaded, &says, |error| {
        let text = error.to_string();
        wanted(error) && words.iter().all(|word| text.contains(word))
    })
}

/// Files truncated anywhere: in the magic, the counts, the metadata, the directory, the data.
pub fn files_cut_short(fixture: &Fixture) -> CaseResult {
    if !fixture.reads_files {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    let bytes = fixture.bytes()?;
    let check = check(clause::DAMAGED, fixture.place());
    let gguf = check.works(Gguf::read(&mut Cursor::new(&bytes)))?;
    let data = usize::try_from(gguf.data_offset()).unwrap_or(usize::MAX).min(bytes.len());
    let ends = gguf.tensors().iter().map(|tensor| tensor.offset + tensor.bytes);
    let end = usize::try_from(ends.max().unwrap_or(gguf.data_offset())).unwrap_or(usize::MAX);
    let mut cuts: Vec<usize> = (0..32).collect();
    cuts.extend((0..data).step_by((data / 60).max(1)));
    cuts.extend([data - 1, data, data + 1, end - 1]);
    cuts.extend((data..end).step_by(((end - data) / 20).max(1)));
    for cut in cuts.into_iter().filter(|cut| *cut < end.min(bytes.len())) {
        refuse_gguf(fixture, &format!("cut to {cut} of {} bytes", bytes.len()), bytes[..cut].to_vec())?;
    }
    Ok(Outcome::Passed)
}

/// Wrong magics and versions, and counts beyond the file's size, which must not be allocated.
pub fn impossible_headers(fixture: &Fixture) -> CaseResult {
    if !fixture.reads_files {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    let bytes = fixture.bytes()?;
    let with = |at: usize, new: &[u8]| {
        let mut damaged = bytes.clone();
        damaged[at..at + new.len()].copy_from_slice(new);
        damaged
    };
    refuse_gguf(fixture, "with another magic", with(0, b"GGML"))?;
    refuse_gguf(fixture, "with a magic of zeros", with(0, &[0; 4]))?;
    for version in [0u32, 1, 4, 3 << 24, u32::MAX] {
        refuse_gguf(fixture, &format!("of version {version}"), with(4, &version.to_le_bytes()))?;
    }
    // Number of tensors, number of keys, length of the first key.
    for (at, name) in [(8, "tensors"), (16, "keys"), (24, "the first key's letters")] {
        for count in [u64::MAX, i64::MAX as u64, 1 << 40, 1 << 32, bytes.len() as u64] {
            let what = format!("with {count} as the number of {name}");
            refuse_gguf(fixture, &what, with(at, &count.to_le_bytes()))?;
        }
    }
    Ok(Outcome::Passed)
}

fn parts(fixture: &Fixture) -> Result<Edit, Failure> {
    check(clause::DAMAGED, format!("take {} apart", fixture.place())).works(Edit::of(&fixture.bytes()?))
}

/// Invalid metadata. The unchanged reassembled file must load, otherwise the refusals would prove nothing.
pub fn metadata_that_cannot_be(fixture: &Fixture) -> CaseResult {
    if !fixture.reads_files {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    let parts = parts(fixture)?;
    let same = ModelSource::Memory(parts.bytes().into());
    check(clause::DAMAGED, "the reassembled file without a change").works(fixture.backend.load(
        &same,
        &fixture.load_options,
        &mut LoadProgress::none(),
    ))?;
    let architecture = match parts.get("general.architecture") {
        Some(Value::Str(name)) => name.clone(),
        _ => String::new(),
    };
    let text = |text: &str| Value::Str(text.into());
    let alignment = "general.alignment";
    let blocks = format!("{architecture}.block_count");
    let width = format!("{architecture}.embedding_length");
    let tokens = "tokenizer.ggml.tokens";
    let numbers = Value::Array(Array::U32(vec![1, 2, 3]));
    let mut twice = parts.clone();
    twice.metadata.push(("general.architecture".into(), text(&architecture)));
    let cases: Vec<(&str, Edit, Vec<&str>)> = vec![
        (
            "of an unknown architecture",
            parts.clone().set("general.architecture", text("abacus")),
            vec!["abacus"],
        ),
        ("of no architecture", parts.clone().without("general.architecture"), vec!["general.architecture"]),
        (
            "with an architecture that is a number",
            parts.clone().set("general.architecture", Value::U32(7)),
            vec!["general.architecture"],
        ),
        ("with a key twice", twice, vec!["general.architecture"]),
        (
            "that is an adapter",
            parts.clone().set("general.type", text("adapter")),
            vec!["an adapter, not a model"],
        ),
        (
            "that is a projector",
            parts.clone().set("general.type", text("mmproj")),
            vec!["a multimodal projector"],
        ),
        ("with an alignment of 0", parts.clone().set(alignment, Value::U32(0)), vec![alignment]),
        ("with an alignment of 7", parts.clone().set(alignment, Value::U32(7)), vec![alignment]),
        ("without the number of layers", parts.clone().without(&blocks), vec![&blocks]),
        ("with a text as the number of layers", parts.clone().set(&blocks, text("two")), vec![&blocks]),
        ("with a width of 0", parts.clone().set(&width, Value::U32(0)), vec![]),
        ("with a width of 2^31", parts.clone().set(&width, Value::U32(1 << 31)), vec![]),
        ("with more layers than it has tensors for", parts.clone().set(&blocks, Value::U32(500)), vec![]),
        ("with 2^32 - 1 layers", parts.clone().set(&blocks, Value::U32(u32::MAX)), vec![]),
        ("without a vocabulary", parts.clone().without(tokens), vec![tokens]),
        ("with numbers for a vocabulary", parts.clone().set(tokens, numbers), vec![tokens]),
        ("with an empty vocabulary", parts.clone().set(tokens, Value::Array(Array::Str(vec![]))), vec![]),
        (
            "of an unknown kind of tokenizer",
            parts.clone().set("tokenizer.ggml.model", text("abacus")),
            vec!["abacus"],
        ),
    ];
    for (what, parts, words) in cases {
        refuse(fixture, what, parts.bytes(), &words)?;
    }
    ids_outside_the_vocabulary(fixture, &parts)?;
    // Arrays per token must have the length of the token list.
    for (key, short) in [
        ("tokenizer.ggml.scores", Value::Array(Array::F32(vec![0.0; 3]))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1; 3]))),
        ("tokenizer.ggml.token_type", Value::Array(Array::Str(vec!["1".into(); 3]))),
    ] {
        if parts.get(key).is_some() {
            refuse(
                fixture,
                &format!("with three {} in {key}", short.type_name()),
                parts.clone().set(key, short).bytes(),
                &[key],
            )?;
        }
    }
    Ok(Outcome::Passed)
}

/// A role id outside the vocabulary is treated as absent, since converters write it for "none". A loader may
/// refuse a file that requires such a token to be added to prompts, so that requirement is removed.
fn ids_outside_the_vocabulary(fixture: &Fixture, parts: &Edit) -> Result<(), Failure> {
    for (role, demand) in [
        ("bos", "tokenizer.ggml.add_bos_token"),
        ("eos", "tokenizer.ggml.add_eos_token"),
        ("unknown", ""),
        ("padding", ""),
    ] {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let parts = parts.clone().set(&key, Value::U32(u32::MAX)).without(demand);
        let source = ModelSource::Memory(parts.bytes().into());
        let check = check(clause::SPECIAL_IDS, format!("load with {} as {key}", u32::MAX));
        let loaded = fixture.backend.load(&source, &fixture.load_options, &mut LoadProgress::none());
        let tokenizer = check.works(loaded)?.tokenizer();
        let special = tokenizer.special();
        let roles = [special.bos, special.eos, special.unk, special.pad];
        let mut ids = roles.iter().flatten().chain(&special.end_of_generation);
        let outside = ids.find(|id| **id as usize >= tokenizer.n_vocab());
        check.holds(outside.is_none(), "ids of the vocabulary alone", outside)?;
    }
    Ok(())
}

/// Tensors that are missing, unknown, or of another shape, type or number of dimensions.
pub fn tensors_that_cannot_be(fixture: &Fixture) -> CaseResult {
    if !fixture.reads_files {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    let parts = parts(fixture)?;
    // Every tensor outside the layers and of the first and last layer.
    let layer = |tensor: &Tensor| tensor.name.strip_prefix("blk.")?.split('.').next()?.parse::<u32>().ok();
    let last = parts.tensors.iter().filter_map(layer).max();
    let is_tried = |tensor: &&Tensor| matches!(layer(tensor), None | Some(0)) || layer(tensor) == last;
    let tried: Vec<Tensor> = parts.tensors.iter().filter(is_tried).cloned().collect();
    for tensor in &tried {
        let name = tensor.name.as_str();
        // These tensors are optional: without a bias, nothing is added; without an output matrix, the
        // embeddings are used; without frequency factors, RoPE is not scaled.
        if !name.ends_with(".bias") && !["output.weight", "rope_freqs.weight"].contains(&name) {
            refuse(
                fixture,
                &format!("without '{name}'"),
                parts.clone().without_tensor(name).bytes(),
                &[name],
            )?;
        }
        let shorter = parts.clone().change(name, Tensor::drop_last_row);
        refuse(fixture, &format!("with '{name}' a row short"), shorter.bytes(), &[name])?;
        let flat =
            parts.clone().change(name, |tensor| tensor.shape = vec![tensor.shape.iter().product(), 1, 1]);
        refuse(fixture, &format!("with '{name}' in three dimensions"), flat.bytes(), &[name])?;
    }
    let name = "blk.0.attn_norm.weight";
    if tried.iter().any(|tensor| tensor.name == name) {
        let integers = parts.clone().change(name, |tensor| {
            tensor.dtype = GgmlType::I32;
            tensor.data = vec![0; tensor.shape.iter().product::<u64>() as usize * 4];
        });
        refuse(fixture, &format!("with '{name}' of integers"), integers.bytes(), &[name])?;
    }
    // A block type of later GGUF versions.
    let bytes = parts.bytes();
    let gguf = check(clause::DAMAGED, "the reassembled file").works(Gguf::read(&mut Cursor::new(&bytes)))?;
    if let Some(at) = type_field(&bytes, gguf.data_offset(), &parts.tensors[0]) {
        for id in [4u32, 31, 99, u32::MAX] {
            let mut damaged = bytes.clone();
            damaged[at..at + 4].copy_from_slice(&id.to_le_bytes());
            let words = [parts.tensors[0].name.as_str(), &id.to_string()];
            refuse(fixture, &format!("with a tensor of type {id}"), damaged, &words)?;
        }
    }
    Ok(Outcome::Passed)
}

/// A vocabulary-only file is distinguished from a model: the fixture's own vocabulary and a published one.
pub fn vocabularies_without_weights(fixture: &Fixture) -> CaseResult {
    if !fixture.reads_files {
        return Ok(Outcome::Skipped(SKIPPED.into()));
    }
    let is = |error: &LoadError| matches!(error, LoadError::NoWeights);
    let mut parts = parts(fixture)?;
    parts.tensors.clear();
    refuse_as(fixture, "without tensors", parts.bytes(), &[], is)?;
    if let Some(path) = test_data::model("vocab/ggml-vocab-llama-spm.gguf") {
        let check = check(clause::DAMAGED, format!("load {}", path.display()));
        let source = ModelSource::file(path);
        let loaded = fixture.backend.load(&source, &fixture.load_options, &mut LoadProgress::none());
        check.refused(loaded, "LoadError::NoWeights", is)?;
    }
    Ok(Outcome::Passed)
}

/// Offset of the first tensor's type: after its name, number of dimensions and dimensions.
fn type_field(bytes: &[u8], data_offset: u64, tensor: &Tensor) -> Option<usize> {
    let mut entry = (tensor.name.len() as u64).to_le_bytes().to_vec();
    entry.extend(tensor.name.as_bytes());
    entry.extend((tensor.shape.len() as u32).to_le_bytes());
    tensor.shape.iter().for_each(|dim| entry.extend(dim.to_le_bytes()));
    let header = bytes.get(..usize::try_from(data_offset).ok()?)?;
    header.windows(entry.len()).position(|window| window == entry).map(|at| at + entry.len())
}
