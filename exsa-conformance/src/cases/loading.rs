//! Device listing, inspection and loading.

use super::rows::plain;
use crate::check::check;
use crate::clause;
use crate::failure::{CaseResult, Failure, Outcome};
use crate::fixture::Fixture;
use crate::logits::Rows;
use exsa_core::SeqId;
use exsa_core::backend::{LoadProgress, Model, ModelSource};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::LoadError;
use std::collections::BTreeSet;
use std::sync::Arc;

fn load(fixture: &Fixture, source: &ModelSource) -> Result<Arc<dyn Model>, LoadError> {
    fixture.backend.load(source, &fixture.load_options, &mut LoadProgress::none())
}

/// Logits of `tokens` in a new session of `model`.
fn logits(fixture: &Fixture, model: &Arc<dyn Model>, tokens: &[u32]) -> Result<Rows, Failure> {
    let check = check(clause::MODEL, format!("a session of it, and {} tokens", tokens.len()));
    let mut session = check.works(model.session(&fixture.options()))?;
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, tokens).rows(tokens.len()));
    check.works(session.forward(&batch).map(crate::logits::copy))
}

/// `inspect` and the loaded model report the same metadata.
pub fn inspect_agrees_with_load(fixture: &Fixture) -> CaseResult {
    let check = check(clause::INSPECT, format!("inspect and load {}", fixture.place()));
    let inspected = check.works(fixture.backend.inspect(&fixture.source))?;
    let model = fixture.model()?;
    check.equal(&inspected, model.info())?;
    check.holds(inspected.n_vocab > 0 && inspected.n_ctx > 0, "a vocabulary and a context", &inspected)?;
    let name = fixture.backend.name();
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    check.holds(plain, "a backend with a short name, as users type it", name)?;
    Ok(Outcome::Passed)
}

/// At least one device exists, names are unique, a model loads on the
/// first device by name, and free memory does not exceed total memory.
pub fn devices(fixture: &Fixture) -> CaseResult {
    let devices = fixture.backend.devices();
    let check = check(clause::DEVICES, format!("{devices:?}"));
    check.holds(!devices.is_empty(), "at least one", 0)?;
    let names: BTreeSet<&str> = devices.iter().map(|device| device.name.as_str()).collect();
    check.equal(names.len(), devices.len())?;
    check.holds(!names.contains(""), "names", "an empty one")?;
    for device in &devices {
        let fits = device.memory_free.zip(device.memory_total).is_none_or(|(free, total)| free <= total);
        check.holds(fits, "no more memory free than there is", device)?;
    }
    let options = fixture.load_options.clone().device(devices[0].name.clone());
    let loaded = fixture.backend.load(&fixture.source, &options, &mut LoadProgress::none());
    self::check(clause::DEVICE_OPTION, format!("load on {}", devices[0].name)).works(loaded)?;
    Ok(Outcome::Passed)
}

/// An unknown device is refused; the error contains its name and a known name.
pub fn unknown_device(fixture: &Fixture) -> CaseResult {
    let options = fixture.load_options.clone().device("abacus:7");
    let loaded = fixture.backend.load(&fixture.source, &options, &mut LoadProgress::none());
    let known = fixture.backend.devices().first().map_or(String::new(), |device| device.name.clone());
    let words = format!("LoadError::Option of `device` that says 'abacus:7' and '{known}'");
    check(clause::DEVICE_OPTION, "load on the device 'abacus:7'").refused(loaded, &words, |error| {
        let text = error.to_string();
        matches!(error, LoadError::Option { option: "device", .. })
            && text.contains("abacus:7")
            && text.contains(&known)
    })?;
    Ok(Outcome::Passed)
}

/// Progress never decreases, has a constant total, and ends at it. If files are read, it starts
/// at 0, and the total is the size of the weights.
pub fn load_progress(fixture: &Fixture) -> CaseResult {
    let reports = reports(fixture)?;
    let check = check(clause::PROGRESS, format!("progress of loading {}", fixture.place()));
    let Some((done, total)) = reports.last().copied() else {
        return Err(check.fail("at least one report", "none"));
    };
    let few: Vec<_> = reports.iter().take(12).collect();
    check.holds(reports.iter().all(|report| report.1 == total), "one total", &few)?;
    check.holds(reports.is_sorted(), "growing numbers", &few)?;
    check.equal((done, total), (total, total))?;
    if fixture.reads_files {
        check.equal((reports[0], total), ((0, total), fixture.model()?.info().weights_bytes))?;
    }
    Ok(Outcome::Passed)
}

fn reports(fixture: &Fixture) -> Result<Vec<(u64, u64)>, Failure> {
    let mut reports = Vec::new();
    let mut listen = |done, total| {
        reports.push((done, total));
        true
    };
    let mut progress = LoadProgress::new(&mut listen);
    let loaded = fixture.backend.load(&fixture.source, &fixture.load_options, &mut progress);
    check(clause::PROGRESS, format!("load {}", fixture.place())).works(loaded)?;
    Ok(reports)
}

/// Any progress report can cancel loading, and the model can be loaded afterwards.
pub fn load_can_be_cancelled(fixture: &Fixture) -> CaseResult {
    let count = reports(fixture)?.len();
    for stop in BTreeSet::from([0, 1, count / 2, count - 1]).into_iter().filter(|stop| *stop < count) {
        let mut heard = 0;
        let mut cancel = |_, _| {
            heard += 1;
            heard <= stop
        };
        let mut progress = LoadProgress::new(&mut cancel);
        let loaded = fixture.backend.load(&fixture.source, &fixture.load_options, &mut progress);
        let check = check(clause::CANCEL, format!("cancel at report {stop} of {count}"));
        check.refused(loaded, "LoadError::Cancelled", |error| matches!(error, LoadError::Cancelled))?;
        check.equal(heard, stop + 1)?;
    }
    check(clause::CANCEL, "load after loads that were cancelled").works(load(fixture, &fixture.source))?;
    Ok(Outcome::Passed)
}

/// Errors for a missing file and for a folder name the path.
pub fn missing_files(fixture: &Fixture) -> CaseResult {
    if !fixture.reads_files {
        return Ok(Outcome::Skipped("the backend does not read files".into()));
    }
    let folder = std::env::temp_dir();
    let source = ModelSource::file(&folder);
    let is_folder = |error: &LoadError| matches!(error, LoadError::Folder { path, .. } if *path == folder);
    let of_folder = check(clause::DAMAGED, format!("inspect and load {}", folder.display()));
    of_folder.refused(fixture.backend.inspect(&source), "LoadError::Folder", is_folder)?;
    of_folder.refused(load(fixture, &source), "LoadError::Folder", is_folder)?;
    for path in ["/nowhere/at-all.gguf".into(), folder.join("exsa-no-such-model.gguf")] {
        let source = ModelSource::file(&path);
        let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        let words = format!("LoadError::Io that says '{name}'");
        let wanted =
            |error: &LoadError| matches!(error, LoadError::Io { .. }) && error.to_string().contains(&name);
        let check = check(clause::DAMAGED, format!("inspect and load {}", path.display()));
        check.refused(fixture.backend.inspect(&source), &words, wanted)?;
        check.refused(load(fixture, &source), &words, wanted)?;
    }
    Ok(Outcome::Passed)
}

/// The model is the same when loaded from a file, from memory of any alignment, or embedded in the program; a
/// backend refuses sources that it does not support.
pub fn sources_give_the_same_model(fixture: &Fixture) -> CaseResult {
    if !fixture.reads_files {
        return Ok(Outcome::Skipped("the backend does not read files".into()));
    }
    let bytes = fixture.bytes()?;
    let tokens = fixture.tokens(6, 1)?;
    let expected = plain(fixture, &tokens)?;
    let path = std::env::temp_dir().join(format!("exsa-conformance-{}.gguf", std::process::id()));
    check(clause::SOURCE, format!("write {}", path.display())).works(std::fs::write(&path, &bytes))?;
    // Odd alignment, as with `include_bytes!`.
    let shifted = [1, 2, 16].map(|shift| {
        let leaked: &'static [u8] = Vec::leak([&vec![0; shift], &bytes[..]].concat());
        ("embedded bytes of any alignment", ModelSource::Embedded(&leaked[shift..]))
    });
    let mut sources =
        vec![("a file", ModelSource::file(&path)), ("memory", ModelSource::Memory(bytes.into()))];
    sources.extend(shifted);
    let mut taken = 0;
    for (name, source) in &sources {
        let check = check(clause::SOURCE, format!("load from {name}"));
        let model = match load(fixture, source) {
            Err(LoadError::Unsupported { .. }) => continue,
            loaded => check.works(loaded)?,
        };
        taken += 1;
        check.same(&logits(fixture, &model, &tokens)?, &expected, 0.0)?;
        check.equal(&check.works(fixture.backend.inspect(source))?, model.info())?;
    }
    std::fs::remove_file(&path).ok();
    check(clause::SOURCE, "all kinds of sources").holds(taken > 0, "at least one that is taken", taken)?;
    Ok(Outcome::Passed)
}

/// Four threads load at the same time; all four models are correct.
pub fn loads_at_the_same_time(fixture: &Fixture) -> CaseResult {
    let tokens = fixture.tokens(6, 1)?;
    let expected = plain(fixture, &tokens)?;
    let results: Vec<_> = std::thread::scope(|scope| {
        let work = || {
            let check = check(clause::PARALLEL_LOAD, "four threads load the model at the same time");
            let model = check.works(load(fixture, &fixture.source))?;
            let rows = logits(fixture, &model, &tokens)?;
            check.same(&rows, &expected, fixture.tolerance)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for result in results {
        result
            .map_err(|_| check(clause::PARALLEL_LOAD, "load on a thread").fail("no panic", "a panic"))??;
    }
    Ok(Outcome::Passed)
}
