//! Workers of one model on the packed cache.

use crate::engines::options;
use crate::harness::Test;
use crate::streams::WAIT;
use exsa_backend_candle::CandleBackend;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, ModelSource, PackedCache, ThreadOptions,
};
use exsa_core::gguf::Gguf;
use exsa_core::registry::Loader;
use exsa_core::{Engine, EngineOptions, Generator, Request, Shutdown};
use exsa_worker::{WorkerLoader, WorkerOptions, WorkerPool, WorkerPoolOptions};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const TESTS: &[Test] = &[
    ("packed::three_workers_map_one_file", three_workers_map_one_file),
    ("packed::a_loader_prepares_the_file", a_loader_prepares_the_file),
];

/// A folder with the built-in model as a file.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("exsa-packed-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("tiny.gguf"), exsa_tiny::GGUF).unwrap();
        Self(path)
    }

    fn model(&self) -> PathBuf {
        self.0.join("tiny.gguf")
    }

    fn cache(&self) -> PackedCache {
        PackedCache::in_folder(self.0.join("packed"))
    }

    fn packed(&self) -> PathBuf {
        self.cache().file(&self.model())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn request() -> Request {
    Request::text("Once upon a time").temperature(0.9).seed(5).max_tokens(20)
}

fn engine_options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.session.threads = ThreadOptions::compute(1);
    options
}

fn worker_options(folder: &Folder) -> WorkerOptions {
    let gguf = Gguf::read(&mut std::io::Cursor::new(exsa_tiny::GGUF)).unwrap();
    let tokenizer = exsa_core::tokenizer::load(gguf.metadata()).unwrap();
    options(json!({}))
        .backend("file")
        .model(folder.model())
        .packed_cache(folder.cache())
        .tokenizer(tokenizer)
        .engine(engine_options())
}

/// The answer of an engine in this process without a packed cache.
fn expected(folder: &Folder) -> String {
    let source = ModelSource::file(folder.model());
    let model = CandleBackend::new().load(&source, &LoadOptions::new(), &mut LoadProgress::none()).unwrap();
    Engine::start(model, engine_options()).unwrap().submit(request()).unwrap().complete().unwrap().text
}

/// Rights, device and inode of the mapping of `file` by process `pid`.
#[cfg(target_os = "linux")]
fn mapping(pid: u32, file: &Path) -> Option<[String; 3]> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.ends_with(file.to_str().unwrap()))?;
    let fields: Vec<&str> = line.split_whitespace().collect();
    Some([fields[1], fields[3], fields[4]].map(str::to_owned))
}

fn three_workers_map_one_file() {
    let folder = Folder::new("workers");
    let expected = expected(&folder);
    let pool = |folder| {
        let pool = WorkerPool::start(WorkerPoolOptions::new(worker_options(folder)).workers(3)).unwrap();
        pool.wait_ready(WAIT).unwrap();
        pool
    };
    let answers = |pool: &WorkerPool| {
        let streams: Vec<_> = (0..6).map(|_| pool.submit(request()).unwrap()).collect();
        for stream in streams {
            assert_eq!(stream.complete().unwrap().text, expected);
        }
    };

    // Without a file, which the sandbox keeps the workers from writing.
    let without = pool(&folder);
    answers(&without);
    if without.status().iter().all(|status| status.sandbox.as_ref().is_some_and(|sandbox| sandbox.files)) {
        assert!(!folder.packed().exists());
    } else {
        eprintln!("skipped: this kernel has no landlock");
    }
    drop(without);

    let load = LoadOptions::new().packed_cache(folder.cache());
    let source = ModelSource::file(folder.model());
    CandleBackend::new().prepare(&source, &load, &mut LoadProgress::none()).unwrap();
    let pool = pool(&folder);
    answers(&pool);
    #[cfg(target_os = "linux")]
    {
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(folder.packed()).unwrap());
        let mappings: Vec<_> = pool
            .status()
            .iter()
            .map(|status| mapping(status.pid.unwrap(), &folder.packed()).unwrap())
            .collect();
        for mapping in &mappings {
            assert_eq!(mapping[0], "r--s");
            assert_eq!(mapping[2], inode.to_string());
            assert_eq!(mapping, &mappings[0]);
        }
    }
}

fn a_loader_prepares_the_file() {
    let folder = Folder::new("loader");
    let mut worker = worker_options(&folder);
    worker.packed_cache = None;
    let options = WorkerPoolOptions::new(worker).workers(2);
    let loader = WorkerLoader::new(Arc::new(CandleBackend::new()), options);
    let source = ModelSource::file(folder.model());
    let load = LoadOptions::new().packed_cache(folder.cache());
    let (mut before, mut last) = (0, (0, 1));
    let mut progress = |done, total| {
        assert!(before <= done && done <= total, "{before}, {done} of {total}");
        (before, last) = (done, (done, total));
        true
    };
    let served =
        loader.load(&source, &load, &engine_options(), &mut LoadProgress::new(&mut progress)).unwrap();
    assert_eq!(last.0, last.1);
    assert!(folder.packed().exists());
    let answer = served.submit(request()).unwrap().complete().unwrap();
    assert_eq!(answer.text, expected(&folder));
    served.shut_down(Shutdown::Abort);

    // Packed pages count once, all others for each worker.
    let estimate = |load: &LoadOptions| loader.estimate(&source, load, &engine_options()).unwrap();
    let one = CandleBackend::new().estimate(&source, &load, &engine_options().session).unwrap();
    assert_eq!(estimate(&load).weights, 2 * one.weights - one.shared);
    assert!(estimate(&load).weights < estimate(&LoadOptions::new()).weights);
}
