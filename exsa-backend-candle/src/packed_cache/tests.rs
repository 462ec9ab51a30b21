//! Packed files that are damaged, and those of other models.

use super::file::{PackedFile, Refusal};
use super::identity::ModelIdentity;
use super::layout::{BLOCK, PackedLayout};
use super::obtain;
use crate::kernels::memory::team::Team;
use crate::load_steps::LoadSteps;
use crate::model_files::ModelFiles;
use exsa_core::backend::{LoadProgress, ModelSource, PackedCache};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A model in a folder of its own, and its packed file.
struct Packed {
    _folder: TempDir,
    model: PathBuf,
    path: PathBuf,
    layout: Arc<PackedLayout>,
}

fn read(model: &Path) -> ModelFiles {
    ModelFiles::open(&ModelSource::file(model)).unwrap()
}

fn layout_of(model: &Path) -> PackedLayout {
    let files = read(model);
    PackedLayout::new(files.gguf(), &ModelIdentity::of(&files).unwrap()).unwrap()
}

fn packed(name: &str) -> Packed {
    let folder = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let model = folder.path().join("model.gguf");
    fs::copy(data, &model).unwrap();
    let files = read(&model);
    let (mut progress, mut team) = (LoadProgress::none(), Team::new(2).unwrap());
    let mut steps = LoadSteps::new(&mut progress, 0).unwrap();
    let cache = PackedCache::beside_model();
    obtain(&cache, &model, &files, &mut team, &mut steps).unwrap().unwrap();
    let layout = Arc::new(layout_of(&model));
    Packed { path: cache.file(&model), _folder: folder, model, layout }
}

impl Packed {
    /// The reason why the file with these bytes is refused; `None` if it is not.
    fn refusal(&self, bytes: &[u8]) -> Option<Refusal> {
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(&self.path).unwrap();
        file.write_all(bytes).unwrap();
        PackedFile::open(&self.path, &self.layout).err()
    }

    fn damaged(&self) -> Option<String> {
        let file = PackedFile::open(&self.path, &self.layout).unwrap();
        let mut progress = LoadProgress::none();
        let mut steps = LoadSteps::new(&mut progress, 0).unwrap();
        file.first_damaged(&mut Team::new(2).unwrap(), &mut steps).unwrap()
    }
}

#[test]
fn a_header_with_any_other_byte_is_refused() {
    let packed = packed("llama-q4_0.gguf");
    let good = fs::read(&packed.path).unwrap();
    assert_eq!(good.len(), packed.layout.file_bytes);
    assert!(packed.refusal(&good).is_none());
    let mut bytes = good.clone();
    for at in 0..packed.layout.header_bytes() {
        for change in [1, 0x80] {
            bytes[at] ^= change;
            assert!(matches!(packed.refusal(&bytes), Some(Refusal::Unusable(_))), "byte {at}");
            bytes[at] ^= change;
        }
    }
    assert!(packed.refusal(&bytes).is_none());
}

#[test]
fn other_lengths_are_refused() {
    let packed = packed("llama-f16.gguf");
    let good = fs::read(&packed.path).unwrap();
    let header = packed.layout.header_bytes();
    let lengths =
        (0..64).chain([header - 1, header, header + 1, good.len() / 2]).chain(good.len() - 64..good.len());
    for len in lengths {
        assert!(matches!(packed.refusal(&good[..len]), Some(Refusal::Unusable(_))), "{len} bytes");
    }
    let longer = [&good[..], &[0]].concat();
    assert!(matches!(packed.refusal(&longer), Some(Refusal::Unusable(_))));
    // As it is left where only the lengths got to the disk.
    assert!(matches!(packed.refusal(&vec![0; good.len()]), Some(Refusal::Unusable(_))));
    fs::remove_file(&packed.path).unwrap();
    assert!(matches!(PackedFile::open(&packed.path, &packed.layout), Err(Refusal::Missing)));
    fs::create_dir(&packed.path).unwrap();
    assert!(matches!(PackedFile::open(&packed.path, &packed.layout), Err(Refusal::Unusable(_))));
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let packed = packed("llama-q8_0.gguf");
    let mode = |mode| {
        fs::set_permissions(&packed.path, fs::Permissions::from_mode(mode)).unwrap();
        PackedFile::open(&packed.path, &packed.layout).is_ok()
    };
    assert_eq!(fs::metadata(&packed.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(mode(0o600) && mode(0o644));
    assert!(!mode(0o620) && !mode(0o602));
}

#[test]
fn checksums_find_every_change_of_a_matrix() {
    let packed = packed("llama-q6_k.gguf");
    let mut bytes = fs::read(&packed.path).unwrap();
    assert_eq!(packed.damaged(), None);
    for (name, entry) in &packed.layout.entries {
        for at in [entry.bytes.start, entry.bytes.start + entry.bytes.len() / 2, entry.bytes.end - 1] {
            bytes[at] ^= 4;
            assert!(packed.refusal(&bytes).is_none(), "the header does not know");
            assert_eq!(packed.damaged().as_ref(), Some(name));
            bytes[at] ^= 4;
        }
    }
}

#[test]
fn every_part_of_the_identity_is_in_the_header() {
    let packed = packed("llama-q5_k.gguf");
    let header = |model: &Path| layout_of(model).header;
    let first = header(&packed.model);
    assert_eq!(header(&packed.model), first);
    let file = fs::OpenOptions::new().write(true).open(&packed.model).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
    for other in [time + Duration::from_nanos(1000), time - Duration::from_secs(1), before_1970] {
        file.set_modified(other).unwrap();
        assert_ne!(header(&packed.model), first, "another time");
    }
    file.set_modified(time).unwrap();
    assert_eq!(header(&packed.model), first);
    let bytes = fs::read(&packed.model).unwrap();
    let with = |bytes: &[u8]| {
        fs::remove_file(&packed.model).unwrap();
        fs::write(&packed.model, bytes).unwrap();
        fs::OpenOptions::new().write(true).open(&packed.model).unwrap().set_modified(time).unwrap();
        header(&packed.model)
    };
    assert_ne!(with(&[&bytes[..], &[0; 32]].concat()), first, "another length");
    // The name of the model, which changes nothing that is packed.
    let files = read(&packed.model);
    let gguf = files.gguf();
    let name = gguf.metadata().iter().find_map(|(key, _)| (key == "general.name").then_some(key.len()));
    let at = bytes.windows(12).position(|window| window == b"general.name").unwrap() + name.unwrap() + 12;
    let mut other = bytes.clone();
    other[at] ^= 1;
    assert_ne!(with(&other), first, "other metadata");
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_ne!(with(&other), first, "other weights");
    assert_eq!(with(&bytes), first);
}

#[test]
fn matrices_lie_apart_and_in_the_file() {
    for name in ["llama-q4_k_m.gguf", "phi3-f32.gguf", "gemma3-f32.gguf"] {
        let layout = packed(name).layout;
        let mut end = layout.header_bytes();
        let mut blocks = 0;
        for name in &layout.order {
            let entry = &layout.entries[name];
            assert!(entry.bytes.start >= end && entry.bytes.start.is_multiple_of(128), "{name}");
            assert_eq!(entry.first_block, blocks);
            assert_eq!(entry.blocks(), entry.bytes.len().div_ceil(BLOCK));
            (end, blocks) = (entry.bytes.end, blocks + entry.blocks());
        }
        assert_eq!(blocks, layout.blocks);
        assert!(end <= layout.file_bytes && layout.file_bytes - end < 128);
    }
}
