//! Loads with a packed cache: equal bits, one file for all, and nothing that stops a load.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use exsa_backend_candle::CandleBackend;
use exsa_conformance::edit::{Edit, Tensor};
use exsa_conformance::harness::feed;
use exsa_core::SeqId;
use exsa_core::backend::{
    InferenceBackend, LoadOptions, LoadProgress, Model, ModelSource, PackedCache, PackedCheck, WeightPages,
};
use exsa_core::batch::{Batch, Span};
use exsa_core::error::LoadError;
use exsa_core::gguf::{GgmlType, Value};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::{ARCHITECTURES, data, edit_of, session};
use tempfile::TempDir;

/// Types of matrices that are packed, with a hash of the packed bytes of [`of_type`]. They are the same for
/// all instruction sets and machines.
const PACKED: [(GgmlType, u64); 25] = [
    (GgmlType::F32, 0xb88b_74d7_250c_fd62),
    (GgmlType::F16, 0x9994_fb10_23f9_fc53),
    (GgmlType::BF16, 0x9994_fb10_23f9_fc53),
    (GgmlType::Q4_0, 0xdff4_df69_25cc_f2d1),
    (GgmlType::Q4_1, 0x208c_e3d5_10c5_5f64),
    (GgmlType::Q5_0, 0x592c_3609_01d4_7ac6),
    (GgmlType::Q5_1, 0xabc8_8cfe_93da_4ccd),
    (GgmlType::Q8_0, 0x6222_f681_453e_8092),
    (GgmlType::Q2K, 0xba42_4532_2446_850b),
    (GgmlType::Q3K, 0xf4f4_c731_6f33_6838),
    (GgmlType::Q4K, 0xf9c7_e8f0_9e8d_a7f6),
    (GgmlType::Q5K, 0xd81b_ee11_ee7f_757c),
    (GgmlType::Q6K, 0x30d6_766f_0aef_1e26),
    (GgmlType::Iq4Nl, 0xdff4_df69_25cc_f2d1),
    (GgmlType::Iq4Xs, 0x7d57_2584_d854_558e),
    (GgmlType::Mxfp4, 0x14b1_d206_1fe6_c237),
    (GgmlType::Iq3Xxs, 0x4c92_3d3f_50c5_2038),
    (GgmlType::Iq3S, 0xe2da_bc0a_00dc_37f4),
    (GgmlType::Iq2Xxs, 0x320b_b76a_a7de_f255),
    (GgmlType::Iq2Xs, 0x9b85_bf70_5875_6e1b),
    (GgmlType::Iq2S, 0xa683_2b98_04a1_ab94),
    (GgmlType::Iq1S, 0x8484_44b8_c312_7e5e),
    (GgmlType::Iq1M, 0x5ad8_1b05_ae14_8b3d),
    (GgmlType::Tq1_0, 0x4feb_4d1e_05c8_7472),
    (GgmlType::Tq2_0, 0xc646_c4f3_76af_0c51),
];

/// Version of the packed layout to which the hashes belong.
const LAYOUT_VERSION: u32 = 1;

/// Set where this program is a child of a test, and names what it does.
const CHILD: &str = "EXSA_TEST_PACKED_CHILD";

fn load_with(
    model: &Path,
    cache: impl Into<Option<PackedCache>>,
    progress: &mut LoadProgress<'_>,
) -> Result<Arc<dyn Model>, LoadError> {
    CandleBackend::new().load(&ModelSource::file(model), &LoadOptions::new().packed_cache(cache), progress)
}

fn load(model: &Path, cache: impl Into<Option<PackedCache>>) -> Arc<dyn Model> {
    load_with(model, cache, &mut LoadProgress::none()).unwrap()
}

fn logits(model: &Arc<dyn Model>) -> Vec<Vec<f32>> {
    feed(&mut *session(model), 0, 0, &[1, 50, 300, 7, 7, 8], 6)
}

/// A copy of a micro model in a folder of its own.
fn model(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::copy(data(&format!("{name}.gguf")), &path).unwrap();
    (folder, path)
}

/// Names of the files in a folder, in order.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Tells a file from one that was written in its place.
#[cfg(unix)]
fn identity(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}

#[cfg(not(unix))]
fn identity(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Gives a file that nobody has mapped other bytes, and leaves its mode.
fn rewrite(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// A llama of one layer whose matrices are of type `dtype`.
fn of_type(dtype: GgmlType) -> Edit {
    let mut edit = edit_of("llama-f32");
    edit.tensors.clear();
    let values = [
        ("embedding_length", 256),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("feed_forward_length", 512),
        ("block_count", 1),
        ("rope.dimension_count", 64),
        ("attention.key_length", 64),
        ("attention.value_length", 64),
    ];
    for (key, value) in values {
        edit = edit.set(&format!("llama.{key}"), Value::U32(value));
    }
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut add = |name: &str, shape: &[u64]| {
        let is_vector = shape.len() == 1;
        let dtype = if is_vector { GgmlType::F32 } else { dtype };
        let len = (shape.iter().product::<u64>() / dtype.block_len() * dtype.block_bytes()) as usize;
        let data: Vec<u8> = match dtype {
            GgmlType::F32 if is_vector => 1f32.to_le_bytes().repeat(len / 4),
            GgmlType::F32 => (0..len / 4).flat_map(|_| (f32::from(random()) / 999.0).to_le_bytes()).collect(),
            // Exponents of 8 bits come first in a block.
            GgmlType::Mxfp4 => {
                (0..len).map(|i| random() & 0x2f | if i % 17 == 0 { 0x50 } else { 0 }).collect()
            }
            // Small numbers, whatever the type, and none that is infinite.
            _ => (0..len).map(|_| random() & 0x2f).collect(),
        };
        edit.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), dtype, data });
    };
    add("token_embd.weight", &[256, 512]);
    add("output_norm.weight", &[256]);
    for (part, shape) in [
        ("attn_norm", [256].as_slice()),
        ("ffn_norm", &[256]),
        ("attn_q", &[256, 256]),
        ("attn_k", &[256, 128]),
        ("attn_v", &[256, 128]),
        ("attn_output", &[256, 256]),
        ("ffn_gate", &[256, 512]),
        ("ffn_up", &[256, 512]),
        ("ffn_down", &[512, 256]),
    ] {
        add(&format!("blk.0.{part}.weight"), shape);
    }
    edit
}

#[test]
fn all_types_have_equal_bits() {
    for (dtype, _) in PACKED {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, of_type(dtype).bytes()).unwrap();
        let without = load(&path, None);
        let expected = logits(&without);
        assert!(expected.iter().flatten().any(|logit| *logit != 0.0), "{dtype}");
        let cache = PackedCache::beside_model();
        let written = load(&path, cache.clone());
        assert_eq!(written.fingerprint(), without.fingerprint(), "{dtype}");
        let first = identity(&cache.file(&path));
        for (pages, check) in [
            (WeightPages::Shared, PackedCheck::Header),
            (WeightPages::Shared, PackedCheck::Load),
            (WeightPages::Huge, PackedCheck::Background),
        ] {
            let mapped = load(&path, cache.clone().pages(pages).check(check));
            assert_eq!(logits(&mapped), expected, "{dtype}, {pages:?}");
            assert_eq!(mapped.fingerprint(), without.fingerprint(), "{dtype}");
        }
        assert_eq!(logits(&written), expected, "{dtype}");
        assert_eq!(identity(&cache.file(&path)), first, "{dtype}: written once");
        assert_eq!(files(folder.path()), ["model.gguf", "model.gguf.packed"]);
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Files that an older version wrote must not pass for those of this one.
#[test]
fn the_layout_version_goes_up_with_every_change_of_the_packed_bytes() {
    // After magic and version of the format.
    const VERSION: std::ops::Range<usize> = 12..16;
    // Alignment of the data in the file. The header of so few matrices is shorter.
    const DATA: usize = 64 << 10;
    let mut changed = Vec::new();
    for (dtype, expected) in PACKED {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, of_type(dtype).bytes()).unwrap();
        let cache = PackedCache::beside_model();
        load(&path, cache.clone());
        let file = fs::read(cache.file(&path)).unwrap();
        let version = u32::from_le_bytes(file[VERSION].try_into().unwrap());
        assert_eq!(version, LAYOUT_VERSION, "record the hashes of layout version {version} in this test");
        let found = hash(&file[DATA..]);
        if found != expected {
            changed.push(format!("{dtype}: {found:#018x}, recorded is {expected:#018x}"));
        }
    }
    assert!(
        changed.is_empty(),
        "packed bytes have changed: raise kernels::LAYOUT_VERSION, so that files of version {LAYOUT_VERSION} \
         are packed anew, and record version and hashes in this test.\n{}",
        changed.join("\n")
    );
}

#[test]
fn architectures_have_equal_bits() {
    for name in ARCHITECTURES.into_iter().chain(["llama-q4_k_m", "llama-bias-f32"]) {
        let (folder, path) = model(name);
        let expected = logits(&load(&path, None));
        let cache = PackedCache::in_folder(folder.path().join("deep/cache"));
        for _ in 0..2 {
            assert_eq!(logits(&load(&path, cache.clone())), expected, "{name}");
        }
        assert_eq!(files(folder.path()), ["deep", "model.gguf"]);
        assert_eq!(files(&folder.path().join("deep/cache")).len(), 1);
    }
}

#[test]
fn a_model_that_changed_is_packed_anew() {
    let (_folder, path) = model("llama-q8_0");
    let cache = PackedCache::beside_model();
    load(&path, cache.clone());
    let first = identity(&cache.file(&path));
    let old = fs::read(cache.file(&path)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_modified(file.metadata().unwrap().modified().unwrap() + std::time::Duration::from_secs(1))
        .unwrap();
    drop(load(&path, cache.clone()));
    assert_ne!(identity(&cache.file(&path)), first);
    assert_ne!(fs::read(cache.file(&path)).unwrap(), old);
    // Other weights under the same name.
    fs::remove_file(&path).unwrap();
    fs::copy(data("llama-q4_0.gguf"), &path).unwrap();
    let expected = logits(&load(&path, None));
    assert_eq!(logits(&load(&path, cache.clone())), expected);
    assert_eq!(logits(&load(&path, cache)), expected);
}

#[test]
fn damaged_files_are_replaced() {
    let (folder, path) = model("llama-q5_1");
    let expected = logits(&load(&path, None));
    let cache = PackedCache::beside_model().check(PackedCheck::Load);
    let file = cache.file(&path);
    load(&path, cache.clone());
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut torn = good.clone();
    torn[good.len() / 2..].fill(0);
    for bad in [flipped, torn, good[..good.len() - 1].to_vec(), Vec::new(), b"EXSAPACK".to_vec()] {
        rewrite(&file, &bad);
        assert_eq!(logits(&load(&path, cache.clone())), expected);
        assert_eq!(fs::read(&file).unwrap(), good);
    }
    assert_eq!(files(folder.path()), ["model.gguf", "model.gguf.packed"]);
}

#[test]
fn the_background_check_ends_a_damaged_model() {
    let (_folder, path) = model("llama-q4_1");
    let cache = PackedCache::beside_model();
    let file = cache.file(&path);
    load(&path, cache.clone());
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    rewrite(&file, &bytes);
    let model = load(&path, cache.check(PackedCheck::Background));
    let mut session = session(&model);
    let mut batch = Batch::new();
    batch.push(Span::tokens(SeqId(0), 0, &[5]).rows(1));
    let error = loop {
        match session.forward(&batch) {
            Ok(_) => session.release(SeqId(0)),
            Err(error) => break error,
        }
        std::thread::yield_now();
    };
    assert!(error.to_string().contains("damaged"), "{error}");
    while file.exists() {
        std::thread::yield_now();
    }
}

#[test]
fn folders_that_cannot_be_used_cost_nothing() {
    let (folder, path) = model("llama-q3_k");
    let expected = logits(&load(&path, None));
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "a file").unwrap();
    for place in [blocked.clone(), blocked.join("below")] {
        assert_eq!(logits(&load(&path, PackedCache::in_folder(place))), expected);
    }
    // Places of the temporary file and of the file itself.
    let cache = PackedCache::in_folder(folder.path().join("cache"));
    let file = cache.file(&path);
    fs::create_dir_all(file.with_extension("packed.tmp")).unwrap();
    assert_eq!(logits(&load(&path, cache.clone())), expected);
    fs::remove_dir(file.with_extension("packed.tmp")).unwrap();
    fs::create_dir_all(file.join("inner")).unwrap();
    assert_eq!(logits(&load(&path, cache)), expected);
    assert_eq!(files(&folder.path().join("cache")).len(), 1, "no temporary file is left");
}

#[cfg(unix)]
#[test]
fn a_link_in_the_way_is_not_followed() {
    let (folder, path) = model("llama-q2_k");
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let cache = PackedCache::beside_model();
    std::os::unix::fs::symlink(&victim, cache.file(&path).with_extension("packed.tmp")).unwrap();
    load(&path, cache);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn other_sources_have_none() {
    let bytes = fs::read(data("llama-q6_k.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = LoadOptions::new().packed_cache(PackedCache::in_folder(folder.path()));
    let source = ModelSource::Memory(bytes.into());
    CandleBackend::new().load(&source, &options, &mut LoadProgress::none()).unwrap();
    assert!(files(folder.path()).is_empty());
}

#[test]
fn progress_reaches_the_end_and_can_cancel() {
    let (folder, path) = model("llama-q4_k");
    let cache = PackedCache::beside_model();
    // The second report comes when a matrix was packed.
    let mut reports = 0;
    let mut cancel = |_, _| {
        reports += 1;
        reports < 3
    };
    let cancelled = load_with(&path, cache.clone(), &mut LoadProgress::new(&mut cancel));
    assert!(matches!(cancelled, Err(LoadError::Cancelled)));
    assert_eq!(files(folder.path()), ["model.gguf"]);
    let damage = |cache: &PackedCache| {
        let mut bytes = fs::read(cache.file(&path)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(1);
        rewrite(&cache.file(&path), &bytes);
    };
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "a file").unwrap();
    let checked = cache.clone().check(PackedCheck::Load);
    for (cache, is_damaged) in [
        (cache.clone(), false),
        (cache, false),
        (checked.clone(), false),
        (checked, true),
        (PackedCache::in_folder(blocked), false),
    ] {
        for pages in [WeightPages::Shared, WeightPages::Huge] {
            if is_damaged {
                damage(&cache);
            }
            let (mut before, mut last) = (0, (0, 1));
            let mut progress = |done, total| {
                assert!(before <= done && done <= total);
                (before, last) = (done, (done, total));
                true
            };
            let cache = cache.clone().pages(pages);
            load_with(&path, cache, &mut LoadProgress::new(&mut progress)).unwrap();
            assert_eq!(last.0, last.1);
        }
    }
}

#[test]
fn prepare_writes_what_loads_map() {
    let (_folder, path) = model("llama-q5_0");
    let cache = PackedCache::beside_model();
    let (source, options) = (ModelSource::file(&path), LoadOptions::new().packed_cache(cache.clone()));
    let prepare = || CandleBackend::new().prepare(&source, &options, &mut LoadProgress::none()).unwrap();
    prepare();
    let first = identity(&cache.file(&path));
    prepare();
    let expected = logits(&load(&path, None));
    assert_eq!(logits(&load(&path, cache.clone())), expected);
    assert_eq!(identity(&cache.file(&path)), first);
    let none = CandleBackend::new().prepare(&source, &LoadOptions::new(), &mut LoadProgress::none());
    assert!(none.is_ok());
}

#[test]
fn loads_at_once_write_one_file() {
    let (folder, path) = model("llama-q4_k_m");
    let expected = logits(&load(&path, None));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(logits(&load(&path, PackedCache::beside_model())), expected));
        }
    });
    assert_eq!(files(folder.path()), ["model.gguf", "model.gguf.packed"]);
}

/// Starts this program again, to run [`child`] as `what` on the model at `path`.
fn start(what: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD, what).env("EXSA_TEST_PACKED_MODEL", path);
    command.stdout(Stdio::piped());
    command
}

/// The line that a child printed after `key`.
fn told(output: &str, key: &str) -> String {
    let line = output.lines().find_map(|line| line.split_once(key));
    line.unwrap_or_else(|| panic!("no '{key}' in {output}")).1.to_owned()
}

/// A part of tests below, in a process of its own; does nothing in this one.
#[test]
fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let path = PathBuf::from(std::env::var_os("EXSA_TEST_PACKED_MODEL").unwrap());
    let cache = PackedCache::beside_model();
    match what.as_str() {
        // As a kill does: no destructor runs.
        "ends while it writes" => {
            let mut reports = 0;
            let mut end = |_, _| {
                reports += 1;
                if reports == 4 { std::process::abort() } else { true }
            };
            let _ = load_with(&path, cache, &mut LoadProgress::new(&mut end));
            panic!("it was to end");
        }
        "maps" => {
            let before = exsa_backend_candle::bench_hooks::page_bytes();
            let model = load(&path, cache.clone());
            let bits: Vec<u32> = logits(&model).into_iter().flatten().map(f32::to_bits).collect();
            println!("logits={bits:?}");
            println!("own={}", exsa_backend_candle::bench_hooks::page_bytes() - before);
            if cfg!(target_os = "linux") {
                let maps = fs::read_to_string("/proc/self/maps").unwrap();
                let file = cache.file(&path);
                let line = maps.lines().find(|line| line.ends_with(file.to_str().unwrap()));
                // Address, rights, offset, device, inode.
                let fields: Vec<&str> = line.unwrap().split_whitespace().collect();
                println!("map={} {}", fields[1], fields[4]);
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn processes_map_one_file() {
    let (_folder, path) = model("llama-q8_0");
    let cache = PackedCache::beside_model();
    let expected: Vec<u32> = logits(&load(&path, None)).into_iter().flatten().map(f32::to_bits).collect();
    load(&path, cache.clone());
    let children: Vec<_> = (0..3).map(|_| start("maps", &path).spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert_eq!(told(&text, "logits="), format!("{expected:?}"));
        assert_eq!(told(&text, "own="), "0", "no packed weights of its own");
        #[cfg(target_os = "linux")]
        assert_eq!(told(&text, "map="), format!("r--s {}", identity(&cache.file(&path))));
    }
}

#[test]
fn a_process_that_ends_while_it_writes_leaves_a_model_that_loads() {
    let (folder, path) = model("llama-q8_0");
    let expected = logits(&load(&path, None));
    let output = start("ends while it writes", &path).stderr(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(files(folder.path()), ["model.gguf", "model.gguf.packed.tmp"]);
    for _ in 0..2 {
        assert_eq!(logits(&load(&path, PackedCache::beside_model())), expected);
        assert_eq!(files(folder.path()), ["model.gguf", "model.gguf.packed"]);
    }
}
