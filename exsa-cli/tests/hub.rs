//! `exsa pull`, `list` and `rm` against a hub of this machine, and models by their source.

#![allow(clippy::unwrap_used, reason = "failures of helpers are failures of tests")]

use sha2::{Digest, Sha256};
#[cfg(feature = "server")]
use std::io::Read;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with the repository `org/tiny`, whose file is the built-in model.
struct Hub {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Hub {
    /// Breaks the connection of the first `cuts` answers with a part of a file.
    fn start(cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, count) = (Arc::<AtomicUsize>::default(), AtomicUsize::new(0));
        let counted = requests.clone();
        // It ends with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = answer(stream, || count.fetch_add(1, Ordering::Relaxed) < cuts);
            }
        });
        Self { url, requests }
    }
}

fn digest() -> String {
    Sha256::digest(exsa::tiny::GGUF).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(mut stream: TcpStream, cut: impl Fn() -> bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut range) = (String::new(), None);
    reader.read_line(&mut line)?;
    loop {
        let mut field = String::new();
        reader.read_line(&mut field)?;
        if field.trim().is_empty() {
            break;
        }
        if let Some(value) = field.to_ascii_lowercase().strip_prefix("range: bytes=") {
            let (first, last) = value.trim().split_once('-').unwrap();
            range = Some((first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap()));
        }
    }
    let (model, digest) = (exsa::tiny::GGUF, digest());
    if line.starts_with("GET /api/models/org/tiny/revision/main") {
        let body = format!(
            r#"{{"sha": "{COMMIT}", "siblings": [
                {{"rfilename": "tiny-Q8_0.gguf", "size": {0}, "lfs": {{"sha256": "{digest}", "size": {0}}}}},
                {{"rfilename": "tiny-Q2_K.gguf", "size": 5, "lfs": {{"sha256": "{digest}", "size": 5}}}}]}}"#,
            model.len()
        );
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    if !line.starts_with(&format!("GET /org/tiny/resolve/{COMMIT}/tiny-Q8_0.gguf ")) {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let (first, last) = range.unwrap_or((0, usize::MAX));
    let part = &model[first..=last.min(model.len() - 1)];
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{}/{}\r\nETag: \"{digest}\"\r\n\
         X-Linked-ETag: \"{digest}\"\r\nConnection: close\r\n\r\n",
        part.len(),
        first + part.len() - 1,
        model.len()
    )?;
    stream.write_all(if cut() { &part[..part.len() / 2] } else { part })
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exsa"));
    for name in [
        "HF_ENDPOINT",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "EXSA_MODEL",
        "EXSA_CONFIG",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command.env("HF_HOME", home).env("XDG_CACHE_HOME", home.join("cache")).stdin(Stdio::null());
    command
}

fn exsa(home: &Path, arguments: &[&str]) -> Output {
    command(home).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_model_is_pulled_run_listed_and_removed() {
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::start(2));
    let run = |arguments: &[&str]| exsa(home.path(), arguments);
    let ask = ["run", "hf:org/tiny:Q8_0", "Once upon a time", "-n", "8", "--seed", "1", "--threads=1"];
    let missing = failed(&run(&ask), 1);
    assert!(missing.contains("exsa pull hf:org/tiny:Q8_0"), "{missing}");

    let pull = ["pull", "hf:org/tiny:Q8_0", "--allow-http", "--endpoint", &hub.url, "--json"];
    let pulled: serde_json::Value = serde_json::from_str(&text(&run(&pull))).unwrap();
    let path = pulled["model"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read(&path).unwrap(), exsa::tiny::GGUF);
    assert!(path.contains("hub/models--org--tiny/snapshots"), "{path}");

    // From here on without a network.
    let requests = hub.requests.load(Ordering::Relaxed);
    let built_in: Vec<_> =
        ask.iter().map(|word| if *word == "hf:org/tiny:Q8_0" { "builtin" } else { *word }).collect();
    assert_eq!(text(&run(&ask)), text(&run(&built_in)));
    assert!(text(&run(&["show", "hf:org/tiny"])).contains("llama"));
    assert_eq!(
        text(&run(&["tokenize", "hf.co/org/tiny:Q8_0", "a b", "--count"])).trim(),
        text(&run(&["tokenize", "builtin", "a b", "--count"])).trim()
    );
    let preset = home.path().join("p.toml");
    std::fs::write(&preset, "model = \"hf:org/tiny\"\n[settings]\nseed = 1\nmax_tokens = 8\n").unwrap();
    assert!(!text(&run(&["run", preset.to_str().unwrap(), "Once"])).is_empty());

    let listed: serde_json::Value = serde_json::from_str(&text(&run(&["list", "--json"]))).unwrap();
    assert_eq!(listed[0]["source"], "hf:org/tiny:Q8_0");
    assert_eq!(listed[0]["bytes"], exsa::tiny::GGUF.len());
    assert!(text(&run(&["list"])).contains("hf:org/tiny:Q8_0"));
    assert!(text(&run(&["rm", "hf:org/tiny:Q8_0"])).contains(&path));
    assert!(!Path::new(&path).exists());
    failed(&run(&["rm", "hf:org/tiny:Q8_0"]), 1);
    assert!(text(&run(&["list"])).is_empty());
    assert_eq!(hub.requests.load(Ordering::Relaxed), requests);
}

#[test]
fn mistakes_are_told_in_words() {
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::start(0));
    let run = |arguments: &[&str]| exsa(home.path(), arguments);
    let at_hub = |source: &str| run(&["pull", source, "--allow-http", "--endpoint", &hub.url]);
    let quant = failed(&at_hub("hf:org/tiny:Q4_K_M"), 2);
    assert!(quant.contains("Q2_K, Q8_0"), "{quant}");
    assert!(failed(&at_hub("hf:org/none"), 1).contains("404"));
    assert!(failed(&at_hub("hf:org"), 2).contains("hf:OWNER/REPO"));
    let http = failed(&run(&["pull", "hf:org/tiny", "--endpoint", &hub.url]), 1);
    assert!(http.contains("--allow-http"), "{http}");
    let offline = failed(&run(&["pull", "hf:org/tiny", "--offline"]), 1);
    assert!(offline.contains("not in the cache"), "{offline}");
    failed(&run(&["pull", "hf:org/tiny", "--parallel", "0"]), 2);
    failed(&run(&["rm", "Cargo.toml"]), 2);
    failed(&run(&["rm"]), 2);
    text(&run(&["rm", "--incomplete"]));
    let file = failed(&run(&["show", "no.gguf"]), 1);
    assert!(file.contains("no.gguf") && file.contains("exsa pull"), "{file}");
}

/// A server that ends with the test.
#[cfg(feature = "server")]
struct Serving(std::process::Child);

#[cfg(feature = "server")]
impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first time the model is fetched, the second time it is there.
#[cfg(feature = "server")]
#[test]
fn a_model_is_fetched_and_served() {
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::start(1));
    let serve = |arguments: &[&str]| {
        let mut serve = command(home.path());
        serve.arg("serve").args(arguments).env("HF_ENDPOINT", &hub.url).stderr(Stdio::piped());
        serve
    };
    for (first, arguments) in
        [(true, ["hf:org/tiny:Q8_0", "--allow-http"]), (false, ["--model", "hf:org/tiny:Q8_0"])]
    {
        let before = hub.requests.load(Ordering::Relaxed);
        let mut serving = Serving(serve(&[&arguments[..], &["--port", "0"]].concat()).spawn().unwrap());
        let log = BufReader::new(serving.0.stderr.take().unwrap());
        let listening = log.lines().map(|line| line.unwrap()).find_map(|line| {
            let (_, address) = line.split_once("listening on http://")?;
            Some(address.trim().to_owned())
        });
        let mut stream = TcpStream::connect(listening.unwrap()).unwrap();
        write!(stream, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert_eq!(hub.requests.load(Ordering::Relaxed) > before, first, "{arguments:?}");
    }
    failed(&serve(&["hf:org"]).output().unwrap(), 2);
    let http = failed(&serve(&["hf:org/other"]).output().unwrap(), 1);
    assert!(http.contains("--allow-http"), "{http}");
}

#[cfg(unix)]
#[test]
fn a_folder_without_rights_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let (home, hub) = (tempfile::tempdir().unwrap(), Hub::start(0));
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o500)).unwrap();
    if std::fs::create_dir(home.path().join("probe")).is_ok() {
        // The administrator may write everywhere.
        std::fs::remove_dir(home.path().join("probe")).unwrap();
        std::fs::write(home.path().join("hub"), "a file where a folder should be").unwrap();
    }
    let output = exsa(home.path(), &["pull", "hf:org/tiny", "--allow-http", "--endpoint", &hub.url]);
    let error = failed(&output, 1);
    assert!(error.contains(&home.path().join("hub").display().to_string()), "{error}");
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o700)).unwrap();
}
