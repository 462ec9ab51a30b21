//! `exsa imatrix`: its chunks, its file, and quantization by it. The sums themselves are compared in candle's
//! tests.

#![allow(clippy::unwrap_used, reason = "failures of helpers are failures of tests")]

use exsa::candle::CandleBackend;
use exsa::core::backend::{LoadOptions, LoadProgress, SessionOptions};
use exsa::core::gguf::Gguf;
use exsa::core::tokenizer::EncodeOptions;
use exsa_quant::ImportanceMatrix;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

const TEXT: &str = "Once upon a time there was a little frog who lived by a big pond. Every day the frog went to the water \
    to play with his friends. One day a bird came and said, \"Hello, frog! Do you want to see my nest?\" The frog was \
    happy and jumped up and down. They went to the tree together, and the bird showed him three small eggs.";

fn exsa(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_exsa")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn read(path: &Path) -> ImportanceMatrix {
    ImportanceMatrix::read(&mut File::open(path).unwrap()).unwrap()
}

/// Means of the squared inputs over chunks of `size` tokens, each with BOS in the place of its first.
fn expected(size: usize, chunks: usize) -> ImportanceMatrix {
    let options = SessionOptions::new().context_tokens(size);
    let source = exsa::tiny::GGUF.into();
    let mut calibration = CandleBackend::new()
        .calibration(&source, &LoadOptions::new(), &options, &mut LoadProgress::none())
        .unwrap();
    let special = calibration.tokenizer().special();
    let bos = special.bos.filter(|_| special.add_bos);
    let mut tokens: Vec<_> = bos.into_iter().collect();
    calibration.tokenizer().encode(TEXT, &EncodeOptions::default(), &mut tokens);
    for chunk in tokens.chunks_exact(size).take(chunks) {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        calibration.add(&chunk).unwrap();
    }
    let mut matrix = ImportanceMatrix::new();
    for sums in calibration.sums() {
        assert_eq!(sums.rows, (size * chunks) as u64);
        let means = sums.squares.iter().map(|sum| (sum / sums.rows as f64) as f32).collect();
        matrix.insert(&sums.weight, means).unwrap();
    }
    matrix
}

#[test]
fn a_matrix_is_computed_and_quantizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let name = |name: &str| path(name).to_str().unwrap().to_owned();
    std::fs::write(path("text.txt"), TEXT).unwrap();
    let imatrix = |output: &str, more: &[&str]| {
        let (text, output) = (name("text.txt"), name(output));
        let arguments = ["imatrix", "builtin", &text, "-o", &output, "--context", "16"];
        exsa(&arguments.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
    };
    assert!(text(&imatrix("two.gguf", &["--chunks", "2"])).contains("2 chunks of 16 tokens"));
    let (found, expected) = (read(&path("two.gguf")), expected(16, 2));
    assert_eq!(found.len(), expected.len());
    let gguf = Gguf::read(&mut File::open(path("two.gguf")).unwrap()).unwrap();
    // llama.cpp reads the data of all tensors at once, and refuses a file that ends before the padding of the
    // last.
    assert!(std::fs::metadata(path("two.gguf")).unwrap().len().is_multiple_of(32));
    let model = Gguf::read(&mut std::io::Cursor::new(exsa::tiny::GGUF)).unwrap();
    for tensor in
        model.tensors().iter().filter(|tensor| tensor.name.starts_with("blk.") && tensor.shape.len() == 2)
    {
        let (found, expected) = (found.get(&tensor.name).unwrap(), expected.get(&tensor.name).unwrap());
        assert_eq!(found.len() as u64, tensor.shape[0]);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= 1e-6 * expected, "{}: {found} for {expected}", tensor.name);
        }
    }
    let metadata = gguf.metadata();
    assert_eq!(metadata.get::<u64>("imatrix.chunk_count").unwrap(), Some(2));
    assert_eq!(metadata.get::<u64>("imatrix.chunk_size").unwrap(), Some(16));
    assert_eq!(metadata.get::<&[String]>("imatrix.datasets").unwrap(), Some(&[name("text.txt")][..]));
    assert!(!path("two.gguf.part").exists());

    // Whole texts, and quantization by their matrix.
    text(&imatrix("all.gguf", &[]));
    assert_ne!(read(&path("all.gguf")), found);
    std::fs::write(path("in.gguf"), exsa::tiny::GGUF).unwrap();
    let quantize = |output: &str, more: &[&str]| {
        let (input, output) = (name("in.gguf"), name(output));
        let arguments = ["quantize", &input, &output, "Q4_0", "--allow-requantize"];
        text(&exsa(&arguments.into_iter().chain(more.iter().copied()).collect::<Vec<_>>()))
    };
    quantize("plain.gguf", &[]);
    quantize("better.gguf", &["--imatrix", &name("all.gguf")]);
    let bytes = |name: &str| std::fs::read(path(name)).unwrap();
    assert_ne!(bytes("plain.gguf"), bytes("better.gguf"));
    // Other weights, of as many bytes.
    let [plain, better] = ["plain.gguf", "better.gguf"].map(|file| {
        let gguf = Gguf::read(&mut File::open(path(file)).unwrap()).unwrap();
        gguf.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>()
    });
    assert_eq!(plain, better);
    // Nothing is written over.
    assert!(failed(&imatrix("all.gguf", &[]), 2).contains("exists"));
}

#[test]
fn mistakes_are_told_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(name("short.txt"), "Too short.").unwrap();
    let output = name("i.gguf");
    let short = failed(&exsa(&["imatrix", "builtin", &name("short.txt"), "-o", &output]), 2);
    assert!(short.contains("tokens; at least") && short.contains("--context"), "{short}");
    failed(&exsa(&["imatrix", "builtin", &name("short.txt"), "-o", &output, "--context", "9999999"]), 2);
    let missing = failed(&exsa(&["imatrix", "builtin", &name("none.txt"), "-o", &output]), 1);
    assert!(missing.contains("none.txt"), "{missing}");
    std::fs::write(name("long.txt"), TEXT).unwrap();
    let place = name("no/folder/i.gguf");
    let folder_missing =
        failed(&exsa(&["imatrix", "builtin", &name("long.txt"), "-o", &place, "-c", "16"]), 1);
    assert!(folder_missing.contains("no/folder"), "{folder_missing}");
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["long.txt", "short.txt"]);
}
