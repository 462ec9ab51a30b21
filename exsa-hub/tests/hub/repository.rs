//! Repositories of the hub: the choice of files, the layout of the cache, lies about files.

use super::server::{Content, Reply, Seen, Server, content, model, options, pull, tree};
use exsa_hub::HubError;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// The commit of all repositories.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of a repository.
pub struct Files(Vec<(String, Vec<u8>)>);

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `hf:org/repo` with something behind it.
pub fn source(rest: &str) -> String {
    format!("hf:org/repo{rest}")
}

impl Files {
    pub fn new(files: &[(&str, Vec<u8>)]) -> Self {
        Self(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect())
    }

    /// The answer of the hub's API.
    pub fn listing(&self) -> Reply {
        let file = |(name, bytes): &(String, Vec<u8>)| {
            format!(
                r#"{{"rfilename": "{name}", "size": {0}, "blobId": "{1}", "lfs": {{"sha256": "{2}", "size": {0}, "pointerSize": 130}}}}"#,
                bytes.len(),
                "c".repeat(40),
                digest(bytes)
            )
        };
        let files: Vec<_> = self.0.iter().map(file).collect();
        Reply::text(format!(r#"{{"id": "org/repo", "sha": "{COMMIT}", "siblings": [{}]}}"#, files.join(", ")))
    }

    fn file(&self, seen: &Seen) -> Option<&Vec<u8>> {
        let path = seen.path.strip_prefix("/org/repo/resolve/")?.strip_prefix(COMMIT)?.strip_prefix('/')?;
        self.0.iter().find(|(name, _)| name == path).map(|(_, bytes)| bytes)
    }

    /// The answer with the headers of the hub for the file that is asked for.
    pub fn linked(&self, seen: &Seen, reply: Reply) -> Reply {
        let bytes = self.file(seen).unwrap();
        reply
            .header("X-Linked-ETag", format!("\"{}\"", digest(bytes)))
            .header("X-Linked-Size", bytes.len().to_string())
            .header("X-Repo-Commit", COMMIT)
    }

    /// The answer of a correct hub.
    pub fn reply(&self, seen: &Seen) -> Reply {
        if seen.path.starts_with("/api/models/org/repo/revision/main?") {
            return self.listing();
        }
        match self.file(seen) {
            Some(bytes) => self.linked(seen, Content::new(bytes.clone()).reply(seen)),
            None => Reply::status(404),
        }
    }
}

fn hub(files: &[(&str, Vec<u8>)]) -> Server {
    let files = Files::new(files);
    Server::start(move |seen, _| files.reply(seen))
}

fn link(path: &Path) -> String {
    std::fs::read_link(path).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn the_cache_is_laid_out_as_hugging_faces() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(4_200, 1));
    let server = hub(&[("README.md", b"# m".to_vec()), ("sub/m-Q4_0.gguf", file.clone())]);
    let pulled = pull(options(folder.path()).endpoint(server.url("")), &source("")).unwrap();
    assert_eq!(content(&pulled), file);
    let repo = folder.path().join("hub/models--org--repo");
    let id = digest(&file);
    assert_eq!(
        tree(&repo),
        [format!("blobs/{id}"), "refs/main".into(), format!("snapshots/{COMMIT}/sub/m-Q4_0.gguf")]
    );
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(pulled.model, repo.join(format!("snapshots/{COMMIT}/sub/m-Q4_0.gguf")));
    #[cfg(unix)]
    assert_eq!(link(&pulled.model), format!("../../../blobs/{id}"));
    assert!(folder.path().join(format!("hub/.locks/models--org--repo/{id}.lock")).exists());
    // The listing is asked for again, the file is not.
    let before = server.seen().len();
    pull(options(folder.path()).endpoint(server.url("")), &source("")).unwrap();
    assert_eq!(server.seen().len(), before + 1);
    // Without a network the cache suffices.
    let offline = pull(options(folder.path()).offline(true), &source(":Q4_0")).unwrap();
    assert_eq!(offline, pulled);
}

#[test]
fn split_files_and_the_projector_are_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = ("q/m-Q4_K_M-00001-of-00002.gguf", "q/m-Q4_K_M-00002-of-00002.gguf");
    let server = hub(&[
        (two, model(1_500, 2)),
        (one, model(2_500, 1)),
        ("m-Q8_0.gguf", model(9_000, 3)),
        ("mmproj-m-f16.gguf", model(700, 4)),
    ]);
    let with = options(folder.path()).endpoint(server.url(""));
    let pulled = pull(with.clone(), &source("")).unwrap();
    assert!(pulled.model.ends_with(one));
    assert!(pulled.files[1].ends_with(two) && pulled.files.len() == 3);
    assert_eq!(std::fs::read(pulled.projector.unwrap()).unwrap(), model(700, 4));
    assert!(!server.seen().iter().any(|seen| seen.path.contains("Q8_0")));
    let cached = pull(with.clone().offline(true), &source(":Q4_K_M")).unwrap();
    assert_eq!(cached.files, pulled.files);
    let plain = pull(with.projector(false), &source(":q8_0")).unwrap();
    assert_eq!((plain.files.len(), plain.projector), (1, None));
}

#[test]
fn what_the_repository_has_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = hub(&[("m-Q4_0.gguf", model(500, 1)), ("m-Q8_0.gguf", model(500, 2))]);
    let with = || options(folder.path()).endpoint(server.url(""));
    let error = pull(with(), &source(":Q5_K_M")).unwrap_err();
    assert!(matches!(error, HubError::NoMatch { .. }) && error.to_string().contains("Q4_0, Q8_0"), "{error}");
    let error = pull(with(), &source("/m.gguf")).unwrap_err();
    assert!(error.to_string().contains("m-Q4_0.gguf"), "{error}");
    assert!(tree(folder.path()).is_empty(), "nothing was written");
    let empty = hub(&[("config.json", b"{}".to_vec())]);
    let error = pull(options(folder.path()).endpoint(empty.url("")), &source("")).unwrap_err();
    assert!(matches!(error, HubError::NoModel(_)), "{error}");
}

#[test]
fn lies_about_files_are_noticed() {
    let file = model(3_300, 1);
    type Lie = Box<dyn Fn(Reply) -> Reply + Send + Sync>;
    let lies: Vec<(&str, Lie)> = vec![
        (
            "another content",
            Box::new(|mut reply| {
                reply.body.iter_mut().skip(4).for_each(|byte| *byte ^= 1);
                reply
            }),
        ),
        (
            "a longer file",
            Box::new(|mut reply| {
                reply.headers.retain(|(name, _)| *name != "Content-Range");
                let mut reply = reply.header("Content-Range", "bytes 0-999/4000");
                reply.status = 206;
                reply
            }),
        ),
        (
            "another length",
            Box::new(|mut reply| {
                reply.length = Some(reply.body.len() + 10);
                reply
            }),
        ),
        (
            "another digest",
            Box::new(|mut reply| {
                reply.headers.retain(|(name, _)| *name != "X-Linked-ETag");
                reply.header("X-Linked-ETag", format!("\"{}\"", "0".repeat(64)))
            }),
        ),
    ];
    for (name, lie) in lies {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(&[("m-Q4_0.gguf", file.clone())]);
        let server = Server::start(move |seen, _| {
            let reply = files.reply(seen);
            if seen.path.contains("/resolve/") { lie(reply) } else { reply }
        });
        // Beyond the end of each part nothing is read, so that a longer part does no harm.
        let result = pull(options(folder.path()).endpoint(server.url("")).retries_max(2), &source(""));
        match result {
            Ok(pulled) => assert_eq!((name, content(&pulled)), ("another length", file.clone())),
            Err(error) => {
                let expected = matches!(
                    error,
                    HubError::Digest { .. }
                        | HubError::Size { .. }
                        | HubError::Connection { .. }
                        | HubError::Changed(_)
                );
                assert!(expected, "{name}: {error}");
                let names = tree(folder.path());
                assert!(!names.iter().any(|file| file.ends_with(".gguf")), "{name}: {names:?}");
            }
        }
    }
}

#[test]
fn hostile_names_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let server = hub(&[
        ("../../../evil-Q4_0.gguf", model(500, 1)),
        ("/tmp/evil-Q4_0.gguf", model(500, 1)),
        ("a\\\\..\\\\evil-Q4_0.gguf", model(500, 1)),
        ("..", model(500, 1)),
    ]);
    let error = pull(options(folder.path()).endpoint(server.url("")), &source("")).unwrap_err();
    assert!(matches!(error, HubError::NoModel(_)), "{error}");
    let commit = Server::start(|_, _| Reply::text(r#"{"sha": "../../../../evil", "siblings": []}"#));
    let error = pull(options(folder.path()).endpoint(commit.url("")), &source("")).unwrap_err();
    assert!(error.to_string().contains("no commit"), "{error}");
    // A digest that is a path is none, so that the file has no id.
    let listing = format!(
        r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "m-Q4_0.gguf", "size": 4, "blobId": "../../x", "lfs": {{"sha256": "../../../x"}}}}]}}"#
    );
    let server = Server::start(move |seen, _| match seen.path.starts_with("/api/") {
        true => Reply::text(listing.clone()),
        false => Reply::text("GGUF").header("X-Linked-ETag", "\"../../../../evil\""),
    });
    let error = pull(options(folder.path()).endpoint(server.url("")), &source("")).unwrap_err();
    assert!(error.to_string().contains("no SHA-256"), "{error}");
    let names = tree(folder.path());
    assert!(!names.iter().any(|name| name.contains("evil")), "{names:?}");
}

#[test]
fn a_mirror_without_digests_states_them_by_header() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(2_200, 3));
    let files = Arc::new(Files::new(&[("m-Q4_0.gguf", file.clone())]));
    let server = Server::start(move |seen, _| match seen.path.starts_with("/api/") {
        true => {
            Reply::text(format!(r#"{{"sha": "{COMMIT}", "siblings": [{{"rfilename": "m-Q4_0.gguf"}}]}}"#))
        }
        false => files.reply(seen),
    });
    let pulled = pull(options(folder.path()).endpoint(server.url("")), &source("")).unwrap();
    assert_eq!(content(&pulled), file);
}

#[test]
fn a_listing_has_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Reply { chunked: true, ..Reply::text("[".repeat(100_000)) });
    let options = options(folder.path()).endpoint(server.url("")).listing_bytes_max(10_000);
    let error = pull(options, &source("")).unwrap_err();
    assert!(error.to_string().contains("more than 10000 bytes"), "{error}");
}

#[test]
fn a_proxy_gets_the_request() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Server::start(|_, _| Reply::status(404));
    let options = options(folder.path()).proxy(proxy.url("")).endpoint("http://hub.example");
    let error = pull(options, &source("")).unwrap_err();
    assert!(!proxy.seen().is_empty(), "{error}");
}
