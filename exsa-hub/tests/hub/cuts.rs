//! Any sequence of faults ends with the exact bytes or an error, and a later call with the exact bytes.

use super::repository::{Files, source};
use super::server::{Content, Reply, Server, content, model, options, pull};
use exsa_hub::HubOptions;
use proptest::prelude::*;

/// A fault of one answer.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// An error that passes.
    Busy(u16),
    /// The range is not regarded.
    Whole,
    /// A part that is shorter than asked for.
    Short(usize),
    /// From now on the file is another one.
    Change,
    /// Some bytes are wrong.
    Damage,
}

fn faults(lies: bool) -> impl Strategy<Value = Vec<Fault>> {
    let honest = prop_oneof![
        4 => (0usize..3000).prop_map(Fault::Cut),
        1 => prop::sample::select(vec![429, 500, 503]).prop_map(Fault::Busy),
        1 => Just(Fault::Whole),
        2 => (1usize..900).prop_map(Fault::Short),
        1 => Just(Fault::Change),
    ];
    let any = prop_oneof![3 => honest, u32::from(lies) => Just(Fault::Damage)];
    prop::collection::vec(any, 0..12)
}

fn faulty(content: &Content, seen: &super::server::Seen, fault: Option<Fault>) -> Reply {
    let mut reply = content.reply(seen);
    match fault {
        None | Some(Fault::Change) => reply,
        Some(Fault::Cut(bytes)) => reply.cut(bytes),
        Some(Fault::Busy(status)) => Reply::status(status),
        Some(Fault::Whole) => Content { ranges: false, ..content.clone() }.reply(seen),
        Some(Fault::Short(bytes)) if reply.status == 206 && reply.body.len() > bytes => {
            let range = reply.headers.iter_mut().find(|(name, _)| *name == "Content-Range").unwrap();
            let first: usize = range.1["bytes ".len()..].split('-').next().unwrap().parse().unwrap();
            range.1 = format!("bytes {first}-{}/{}", first + bytes - 1, content.bytes.len());
            reply.body.truncate(bytes);
            reply
        }
        Some(Fault::Short(_)) => reply,
        Some(Fault::Damage) => {
            reply.body.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
            reply
        }
    }
}

fn tuned(options: HubOptions, parallel: usize, segment: u64) -> HubOptions {
    options.parallel(parallel).segment_bytes(segment).retries_max(3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn files_of_addresses_are_of_one_version(
        faults in faults(false),
        length in 4usize..9000,
        parallel in 1usize..5,
        segment in 200u64..4000,
        validators in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let versions = [model(length, 0), model(length, 1)];
        let served = versions.clone();
        let script = faults.clone();
        let server = Server::start(move |seen, number| {
            let changed = script.iter().take(number + 1).any(|fault| matches!(fault, Fault::Change));
            let etag = validators.then(|| format!("\"{changed}\""));
            let content = Content { bytes: served[usize::from(changed)].clone(), etag, ranges: true };
            faulty(&content, seen, script.get(number).copied())
        });
        let url = server.url("/m.gguf");
        let mut result = pull(tuned(options(folder.path()), parallel, segment), &url);
        // The faults end; so does each call.
        for _ in 0..faults.len() {
            if result.is_err() {
                result = pull(tuned(options(folder.path()), parallel, segment), &url);
            }
        }
        let result = result.map(|pulled| content(&pulled));
        let bytes = result.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(versions.contains(&bytes), "{} bytes of {length}, mixed", bytes.len());
    }

    #[test]
    fn files_of_the_hub_are_the_listed_ones(
        faults in faults(true),
        length in 4usize..9000,
        parallel in 1usize..5,
        segment in 200u64..4000,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let file = model(length, 0);
        let (script, files, bytes) = (faults.clone(), Files::new(&[("m-Q4_0.gguf", file.clone())]), file.clone());
        let count = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(move |seen, _| {
            if seen.path.starts_with("/api/") {
                return files.reply(seen);
            }
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let fault = script.get(number).copied();
            // The storage behind the hub sends another file.
            let bytes = if matches!(fault, Some(Fault::Change)) { model(length + 5, 1) } else { bytes.clone() };
            files.linked(seen, faulty(&Content { bytes, etag: None, ranges: true }, seen, fault))
        });
        let with = || tuned(options(folder.path()).endpoint(server.url("")), parallel, segment);
        let mut result = pull(with(), &source(""));
        for _ in 0..faults.len() {
            if let Ok(pulled) = &result {
                prop_assert!(content(pulled) == file);
            } else {
                result = pull(with(), &source(""));
            }
        }
        let pulled = result.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(content(&pulled) == file);
    }
}
