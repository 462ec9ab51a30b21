//! The cache: files of others, removal, several processes.

use super::repository::{COMMIT, Files, digest, source};
use super::server::{Content, Server, content, model, options, pull, tree};
use exsa_hub::{Cancel, Hub, HubError, Phase};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn files() -> Files {
    Files::new(&[
        ("m-Q4_0.gguf", model(2_000, 1)),
        ("m-Q8_0.gguf", model(3_000, 2)),
        ("mmproj-f16.gguf", model(400, 3)),
        ("README.md", b"x".to_vec()),
    ])
}

/// A cache as huggingface_hub leaves it.
#[cfg(unix)]
fn downloaded(cache: &Path, name: &str, bytes: &[u8]) {
    let repo = cache.join("models--org--repo");
    let snapshot = repo.join("snapshots").join(COMMIT);
    for folder in [repo.join("blobs"), repo.join("refs"), snapshot.clone()] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    std::fs::write(repo.join("blobs").join(digest(bytes)), bytes).unwrap();
    std::os::unix::fs::symlink(format!("../../blobs/{}", digest(bytes)), snapshot.join(name)).unwrap();
}

#[cfg(unix)]
#[test]
fn files_of_other_programs_are_found() {
    let folder = tempfile::tempdir().unwrap();
    downloaded(&folder.path().join("hub"), "m-Q4_0.gguf", &model(2_000, 1));
    let offline = pull(options(folder.path()).offline(true), &source("")).unwrap();
    assert_eq!(content(&offline), model(2_000, 1));
    let all = files();
    let server = Server::start(move |seen, _| all.reply(seen));
    let hub = Hub::new(options(folder.path()).endpoint(server.url("")).projector(false)).unwrap();
    hub.pull(&source("").parse().unwrap(), &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!(server.seen().len(), 1, "the listing alone");
    let models = hub.models();
    assert_eq!(models.len(), 1);
    assert_eq!((models[0].source.as_str(), models[0].bytes), ("hf:org/repo:Q4_0", 2_000));
    assert_eq!(models[0].quant.as_deref(), Some("Q4_0"));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_cache_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("hub");
    downloaded(&cache, "m-Q4_0.gguf", &model(100, 1));
    let outside = folder.path().join("outside-Q8_0.gguf");
    std::fs::write(&outside, model(100, 2)).unwrap();
    let snapshot = cache.join("models--org--repo/snapshots").join(COMMIT);
    std::os::unix::fs::symlink(&outside, snapshot.join("m-Q8_0.gguf")).unwrap();
    let hub = Hub::new(options(folder.path()).offline(true)).unwrap();
    let error = hub.cached(&source(":Q8_0").parse().unwrap()).unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error}");
    assert_eq!(hub.models().len(), 1);
    hub.remove(&source(":Q4_0").parse().unwrap()).unwrap();
    assert!(outside.exists());
    // A folder that leads out of the cache is not written to.
    let (all, elsewhere) =
        (Files::new(&[("sub/m-Q4_0.gguf", model(100, 1))]), folder.path().join("elsewhere"));
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    std::os::unix::fs::symlink(&elsewhere, snapshot.join("sub")).unwrap();
    let server = Server::start(move |seen, _| all.reply(seen));
    let error = pull(options(folder.path()).endpoint(server.url("")), &source("")).unwrap_err();
    assert!(error.to_string().contains("out of the cache"), "{error}");
    assert!(tree(&elsewhere).is_empty());
}

#[test]
fn what_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(options(folder.path()).offline(true)).unwrap();
    for name in [source(""), source(":Q4_0"), "https://a.org/m.gguf".into()] {
        let error = hub.cached(&name.parse().unwrap()).unwrap_err();
        assert!(matches!(&error, HubError::NotCached { source_name, .. } if *source_name == name), "{error}");
        assert!(hub.remove(&name.parse().unwrap()).is_err());
    }
    let error = hub.cached(&"no.gguf".parse().unwrap()).unwrap_err();
    assert!(matches!(error, HubError::NoFile(_)), "{error}");
    assert!(hub.models().is_empty());
    assert!(hub.remove(&"Cargo.toml".parse().unwrap()).is_err() && Path::new("Cargo.toml").exists());
}

#[test]
fn models_are_removed_with_their_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let all = files();
    let server = Server::start(move |seen, _| all.reply(seen));
    let hub = Hub::new(options(folder.path()).endpoint(server.url(""))).unwrap();
    for quant in [":Q4_0", ":Q8_0"] {
        hub.pull(&source(quant).parse().unwrap(), &Cancel::new(), &mut |_| {}).unwrap();
    }
    let sources: Vec<_> = hub.models().into_iter().map(|model| model.source).collect();
    assert_eq!(sources, ["hf:org/repo:Q4_0", "hf:org/repo:Q8_0"]);
    // Which one is not said.
    let error = hub.remove(&source("").parse().unwrap()).unwrap_err();
    assert!(matches!(error, HubError::Ambiguous { .. }) && error.to_string().contains(":Q8_0"), "{error}");
    let removed = hub.remove(&source(":Q4_0").parse().unwrap()).unwrap();
    assert_eq!((removed.files.len(), removed.bytes), (1, 2_000));
    assert!(hub.cached(&source(":Q8_0").parse().unwrap()).unwrap().projector.is_some());
    // The projector goes with the last model, and the folder with it.
    let removed = hub.remove(&source("").parse().unwrap()).unwrap();
    assert_eq!((removed.files.len(), removed.bytes), (2, 3_400));
    assert!(tree(&folder.path().join("hub")).is_empty());
}

#[test]
fn files_that_are_no_models_stay() {
    let folder = tempfile::tempdir().unwrap();
    let all = files();
    let server = Server::start(move |seen, _| all.reply(seen));
    let hub = Hub::new(options(folder.path()).endpoint(server.url(""))).unwrap();
    let pulled = hub.pull(&source("").parse().unwrap(), &Cancel::new(), &mut |_| {}).unwrap();
    let other = pulled.model.with_file_name("config.json");
    std::fs::write(&other, "{}").unwrap();
    hub.remove(&source("").parse().unwrap()).unwrap();
    assert!(other.exists());
}

#[test]
fn downloads_from_addresses_are_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|seen, _| Content::new(model(900, 1)).reply(seen));
    let hub = Hub::new(options(folder.path())).unwrap();
    let url = server.url("/m-Q4_0.gguf");
    hub.pull(&url.parse().unwrap(), &Cancel::new(), &mut |_| {}).unwrap();
    let models = hub.models();
    assert_eq!((models.len(), models[0].source.as_str(), models[0].bytes), (1, url.as_str(), 900));
    assert_eq!(hub.remove(&url.parse().unwrap()).unwrap().bytes, 900);
    assert!(hub.models().is_empty() && tree(&folder.path().join("downloads")).is_empty());
}

#[test]
fn broken_downloads_are_removed_unless_in_progress() {
    let folder = tempfile::tempdir().unwrap();
    let all = files();
    let server = Server::start(move |seen, number| match number {
        0 | 1 => all.reply(seen),
        _ => all.reply(seen).cut(0),
    });
    let hub = Hub::new(options(folder.path()).endpoint(server.url("")).retries_max(0).parallel(1)).unwrap();
    hub.pull(&source("").parse().unwrap(), &Cancel::new(), &mut |_| {}).unwrap_err();
    let id = digest(&model(2_000, 1));
    let part = folder.path().join(format!("hub/models--org--repo/blobs/{id}.part"));
    assert!(part.exists());
    let lock =
        std::fs::File::open(folder.path().join(format!("hub/.locks/models--org--repo/{id}.lock"))).unwrap();
    lock.lock().unwrap();
    assert!(hub.remove_incomplete().unwrap().files.is_empty());
    lock.unlock().unwrap();
    assert_eq!(hub.remove_incomplete().unwrap().files, std::slice::from_ref(&part));
    assert!(!part.exists() && !part.with_extension("part.json").exists());
}

#[test]
fn two_that_fetch_the_same_file_fetch_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let all = Arc::new(files());
    let served = all.clone();
    let server = Server::start(move |seen, _| served.reply(seen));
    let (url, waits) = (server.url(""), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let hub = Hub::new(options(folder.path()).endpoint(url.clone())).unwrap();
                    hub.pull(&source("").parse().unwrap(), &Cancel::new(), &mut |progress| {
                        if progress.phase == Phase::Waiting {
                            waits.fetch_add(1, Ordering::Relaxed);
                        }
                    })
                    .unwrap()
                })
            })
            .collect();
        for pull in pulls {
            assert_eq!(content(&pull.join().unwrap()), model(2_000, 1));
        }
    });
    let fetched = server.seen().iter().filter(|seen| seen.path.contains("m-Q4_0.gguf")).count();
    assert_eq!(fetched, 2, "both parts once");
}
