//! Files by their address: parts, resumption, changes, lengths.

use super::server::{Content, Reply, Server, content, model, options, pull, tree};
use exsa_hub::{Cancel, Hub, HubError, Phase, Source};
use sha2::{Digest, Sha256};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_is_fetched_in_parts_and_only_once() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(10_500, 1));
    let served = Content::new(file.clone());
    let server = Server::start(move |seen, _| served.reply(seen));
    let url = server.url("/m.gguf");
    let pulled = pull(options(folder.path()), &url).unwrap();
    assert_eq!(content(&pulled), file);
    let mut ranges: Vec<_> =
        server.seen().iter().map(|seen| seen.header("range").unwrap().to_owned()).collect();
    assert_eq!(ranges.len(), 11);
    ranges.sort();
    assert!(
        ranges.contains(&"bytes=0-999".to_owned()) && ranges.contains(&"bytes=10000-10499".to_owned()),
        "{ranges:?}"
    );
    // The second time nothing is asked for.
    assert_eq!(pull(options(folder.path()), &url).unwrap(), pulled);
    assert_eq!(server.seen().len(), 11);
    let names = tree(&folder.path().join("downloads"));
    assert!(!names.iter().any(|name| name.contains(".part")), "{names:?}");
}

#[test]
fn progress_ends_at_the_length() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(9_000, 2));
    let source = format!("#sha256={}", digest(&file));
    let served = Content::new(file);
    let server = Server::start(move |seen, _| served.reply(seen));
    let seen = Mutex::new(Vec::new());
    let hub = Hub::new(options(folder.path())).unwrap();
    let source: Source = format!("{}{source}", server.url("/m.gguf")).parse().unwrap();
    hub.pull(&source, &Cancel::new(), &mut |progress| {
        assert_eq!((progress.file, progress.index, progress.files), ("m.gguf", 0, 1));
        seen.lock().unwrap().push((progress.phase, progress.bytes, progress.total));
    })
    .unwrap();
    let seen = seen.into_inner().unwrap();
    let bytes: Vec<_> = seen.iter().filter(|at| at.0 == Phase::Downloading).map(|at| at.1).collect();
    assert!(bytes.windows(2).all(|pair| pair[0] <= pair[1]) && *bytes.last().unwrap() == 9000, "{bytes:?}");
    assert!(seen.contains(&(Phase::Verifying, 9000, Some(9000))));
    assert_eq!(seen.last(), Some(&(Phase::Done, 9000, Some(9000))));
}

#[test]
fn a_server_without_ranges_sends_the_whole_file() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(5_000, 3));
    for (chunked, etag) in [(false, Some("\"a\"")), (true, None)] {
        let served = Content { bytes: file.clone(), etag: etag.map(str::to_owned), ranges: false };
        let server = Server::start(move |seen, number| {
            let reply = Reply { chunked, ..served.reply(seen) };
            // The first answers break off.
            if number < 2 { reply.cut(1234) } else { reply }
        });
        assert_eq!(content(&pull(options(folder.path()), &server.url("/m.gguf")).unwrap()), file);
        assert_eq!(server.seen().len(), 3);
    }
}

#[test]
fn a_length_that_is_not_stated_is_refused() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(5_000, 3));
    let sent = file.clone();
    let server = Server::start(move |_, _| Reply { unbounded: true, ..Reply::text(sent.clone()) });
    let error = pull(options(folder.path()), &server.url("/m.gguf")).unwrap_err();
    assert!(error.to_string().contains("no length"), "{error}");
    // With a digest a cut can be told from the end.
    let source = format!("{}#sha256={}", server.url("/m.gguf"), digest(&file));
    assert_eq!(content(&pull(options(folder.path()), &source).unwrap()), file);
}

#[test]
fn without_validators_parts_are_not_mixed() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), model(5_000, 4), model(5_000, 5));
    let after = new.clone();
    let server = Server::start(move |seen, number| {
        // Another version from the second request on, of the same length.
        let bytes = if number == 0 { old.clone() } else { after.clone() };
        Content { bytes, etag: None, ranges: true }.reply(seen)
    });
    assert_eq!(content(&pull(options(folder.path()), &server.url("/m.gguf")).unwrap()), new);
}

#[test]
fn a_file_that_changes_is_fetched_anew() {
    for length in [5_000, 6_000] {
        let (folder, old, new) = (tempfile::tempdir().unwrap(), model(5_000, 4), model(length, 5));
        let after = new.clone();
        let server = Server::start(move |seen, number| {
            let (bytes, tag) = if number < 2 { (old.clone(), "\"old\"") } else { (after.clone(), "\"new\"") };
            Content { bytes, etag: Some(tag.into()), ranges: true }.reply(seen)
        });
        assert_eq!(content(&pull(options(folder.path()), &server.url("/m.gguf")).unwrap()), new);
    }
}

#[test]
fn a_file_that_always_changes_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(move |seen, number| {
        Content { bytes: model(5_000, 0), etag: Some(format!("\"{number}\"")), ranges: true }.reply(seen)
    });
    let error = pull(options(folder.path()), &server.url("/m.gguf")).unwrap_err();
    assert!(matches!(error, HubError::Changed(_)), "{error}");
}

#[test]
fn a_later_call_asks_for_what_is_missing() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(8_000, 6));
    let broken = std::sync::Arc::new(AtomicBool::new(true));
    let (served, flag) = (Content::new(file.clone()), broken.clone());
    let server = Server::start(move |seen, number| {
        let reply = served.reply(seen);
        // The first part and half of the second one arrive.
        match number {
            0 => reply,
            _ if !flag.load(Ordering::Relaxed) => reply,
            1 => reply.cut(500),
            _ => reply.cut(0),
        }
    });
    let url = server.url("/m.gguf");
    let error = pull(options(folder.path()).parallel(1).retries_max(2), &url).unwrap_err();
    assert!(matches!(error, HubError::Connection { .. }), "{error}");
    assert!(error.to_string().contains("continues"), "{error}");
    broken.store(false, Ordering::Relaxed);
    let before = server.seen().len();
    assert_eq!(content(&pull(options(folder.path()).parallel(1), &url).unwrap()), file);
    let later = &server.seen()[before..];
    assert_eq!(later[0].header("range"), Some("bytes=1500-2499"));
    assert!(later.iter().all(|seen| seen.header("if-range") == Some("\"v1\"")));
    assert_eq!(later.len(), 7);
}

#[test]
fn a_cancelled_download_ends_at_once_and_goes_on_later() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(50_000, 7));
    let served = Content::new(file.clone());
    let server = Server::start(move |seen, _| served.reply(seen));
    let (hub, cancel) = (Hub::new(options(folder.path())).unwrap(), Cancel::new());
    let source: Source = server.url("/m.gguf").parse().unwrap();
    let result = hub.pull(&source, &cancel, &mut |progress| {
        if progress.bytes > 10_000 {
            cancel.cancel();
        }
    });
    assert!(matches!(result, Err(HubError::Cancelled)), "{result:?}");
    let before = server.seen().len();
    assert_eq!(content(&pull(options(folder.path()), &source.to_string()).unwrap()), file);
    assert!(server.seen().len() - before < 50, "what had arrived is not fetched again");
    assert!(matches!(
        hub.pull(&"https://a.org/x.gguf".parse().unwrap(), &cancel, &mut |_| {}),
        Err(HubError::Cancelled)
    ));
}

#[test]
fn a_cancellation_wakes_a_download_that_waits_for_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/m.gguf", listener.local_addr().unwrap());
    let (hub, cancel) = (Hub::new(options(folder.path())).unwrap(), Cancel::new());
    let other = cancel.clone();
    let server = std::thread::spawn(move || {
        // It takes the request and says nothing.
        let stream = listener.accept().unwrap();
        other.cancel();
        stream
    });
    let result = hub.pull(&url.parse().unwrap(), &cancel, &mut |_| {});
    assert!(matches!(result, Err(HubError::Cancelled)), "{result:?}");
    server.join().unwrap();
}

#[test]
fn wrong_content_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let page = Server::start(|_, _| Reply::text("<!DOCTYPE html>\n<html>Please log in"));
    let error = pull(options(folder.path()), &page.url("/m.gguf")).unwrap_err();
    assert!(matches!(&error, HubError::NotGguf { begin, .. } if begin.contains("DOCTYPE")), "{error}");
    let served = Content::new(model(3_000, 8));
    let server = Server::start(move |seen, _| served.reply(seen));
    let source = format!("{}#sha256={}", server.url("/m.gguf"), "0".repeat(64));
    let error = pull(options(folder.path()), &source).unwrap_err();
    // Parts are tried again, since pieces of two versions could be the reason.
    assert!(matches!(error, HubError::Changed(_) | HubError::Digest { .. }), "{error}");
    let names = tree(&folder.path().join("downloads"));
    assert!(!names.iter().any(|name| name.ends_with(".gguf") || name.ends_with(".part")), "{names:?}");
}

#[test]
fn a_damaged_state_is_no_state() {
    for text in ["", "null", r#"{"version":1,"total":3000,"validator":"\"v1\"","done":[[0,99999]]}"#] {
        let (folder, file) = (tempfile::tempdir().unwrap(), model(3_000, 9));
        let served = Content::new(file.clone());
        let server = Server::start(move |seen, number| {
            let reply = served.reply(seen);
            if (1..4).contains(&number) { reply.cut(0) } else { reply }
        });
        let url = server.url("/m.gguf");
        pull(options(folder.path()).parallel(1).retries_max(2), &url).unwrap_err();
        let downloads = folder.path().join("downloads");
        let state = tree(&downloads).into_iter().find(|name| name.ends_with(".part.json")).unwrap();
        std::fs::write(downloads.join(&state), text).unwrap();
        let before = server.seen().len();
        assert_eq!(content(&pull(options(folder.path()), &url).unwrap()), file);
        assert_eq!(server.seen().len() - before, 3, "all parts are fetched");
    }
}

#[test]
fn a_disk_that_is_too_small_is_told_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let served = Content::new(model(3_000, 10));
    let server = Server::start(move |seen, _| served.reply(seen));
    let error = pull(options(folder.path()).reserve_bytes(1 << 60), &server.url("/m.gguf")).unwrap_err();
    assert!(matches!(error, HubError::Space { needed: 3000, .. }), "{error}");
    assert_eq!(server.seen().len(), 1);
    let names = tree(&folder.path().join("downloads"));
    assert!(!names.iter().any(|name| name.ends_with(".part")), "{names:?}");
}

#[test]
fn sizes_have_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    for chunked in [false, true] {
        let served = Content { ranges: !chunked, ..Content::new(model(3_000, 10)) };
        let server = Server::start(move |seen, _| Reply { chunked, ..served.reply(seen) });
        let error = pull(options(folder.path()).file_bytes_max(2_999), &server.url("/m.gguf")).unwrap_err();
        assert!(error.to_string().contains("allowed are 2999"), "{error}");
    }
    // A length that no disk has, by a server that would send it.
    let server = Server::start(|_, _| {
        let mut reply = Reply::text("GGUF").header("Content-Range", format!("bytes 0-999/{}", u64::MAX));
        reply.status = 206;
        reply.header("ETag", "\"a\"")
    });
    assert!(pull(options(folder.path()), &server.url("/m.gguf")).is_err());
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for range in [
        "",
        "bytes",
        "bytes 5-10/20",
        "bytes 0-10/5",
        "bytes */5",
        "bytes 0-999/*",
        "bytes 18446744073709551616-1/2",
    ] {
        let server = Server::start(move |_, _| {
            let mut reply =
                Reply::text("GGUF".repeat(250)).header("ETag", "\"a\"").header("Content-Range", range);
            reply.status = 206;
            reply
        });
        let error = pull(options(folder.path()), &server.url("/m.gguf")).unwrap_err();
        assert!(matches!(error, HubError::Protocol { .. }), "{range}: {error}");
    }
    let compressed = Server::start(|_, _| Reply::text("GGUF").header("Content-Encoding", "br"));
    let error = pull(options(folder.path()), &compressed.url("/m.gguf")).unwrap_err();
    assert!(error.to_string().contains("compresses"), "{error}");
    let large = Server::start(|_, _| Reply::text("GGUF").header("X-Large", "x".repeat(1 << 20)));
    assert!(pull(options(folder.path()), &large.url("/m.gguf")).is_err());
}
