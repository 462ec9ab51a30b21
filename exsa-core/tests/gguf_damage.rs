//! Damage to a GGUF file, field by field: each results in a typed error that names the key or tensor and the
//! offset.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::gguf::{Array, GgmlType, Gguf, GgufError, GgufWriter, HEADER_BYTES_MAX, Value};
use exsa_core::model_info::ModelInfo;
use proptest::prelude::*;
use std::io::{self, Cursor, Read, Seek, SeekFrom};

fn read(bytes: &[u8]) -> Result<Gguf, GgufError> {
    Gguf::read(&mut Cursor::new(bytes))
}

/// A hand-assembled file that records the offsets of its numbers.
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
    /// Counts and lengths, of eight bytes each: what the error has to name, and where they stand.
    counts: Vec<(&'static str, usize)>,
    /// Other fields by name.
    fields: Vec<(&'static str, usize)>,
}

impl Image {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self
    }

    fn u32(&mut self, n: u32) -> &mut Self {
        self.put(&n.to_le_bytes())
    }

    fn u64(&mut self, n: u64) -> &mut Self {
        self.put(&n.to_le_bytes())
    }

    fn count(&mut self, names: &'static str, n: u64) -> &mut Self {
        self.counts.push((names, self.bytes.len()));
        self.u64(n)
    }

    fn field(&mut self, name: &'static str) -> &mut Self {
        self.fields.push((name, self.bytes.len()));
        self
    }

    fn text(&mut self, names: &'static str, text: &str) -> &mut Self {
        self.count(names, text.len() as u64).put(text.as_bytes())
    }

    /// Every kind of field once.
    fn whole() -> Self {
        let mut image = Self::default();
        image.put(b"GGUF").u32(3).count("number of tensors", 2).count("number of metadata keys", 6);
        image.text("metadata key", "text").field("type of text").u32(8);
        image.text("'text'", "value").text("metadata key", "texts").u32(9).field("element type").u32(8);
        image.count("'texts'", 2).text("'texts'", "one").text("'texts'", "two");
        image.text("metadata key", "numbers").u32(9).u32(5).count("'numbers'", 3).put(&[0; 12]);
        image.text("metadata key", "nested").u32(9).u32(9).count("'nested'", 1);
        image.field("nested type").u32(12).count("'nested'", 1).put(&[0; 8]);
        image.text("metadata key", "flag").u32(7).field("bool").put(&[1]);
        image.text("metadata key", "general.alignment").u32(4).field("alignment").u32(32);
        image.text("tensor's name", "a").field("dimensions").u32(2).field("shape").u64(32).u64(2);
        image.field("tensor type").u32(8).field("offset of a").u64(0);
        image
            .text("tensor's name", "b")
            .u32(1)
            .field("shape of b")
            .u64(3)
            .u32(0)
            .field("offset of b")
            .u64(96);
        let data = image.bytes.len().next_multiple_of(32);
        image.bytes.resize(data + 96 + 12, 0xaa);
        image
    }

    fn with(&self, at: usize, bytes: &[u8]) -> GgufError {
        let mut damaged = self.bytes.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        read(&damaged).expect_err("damaged")
    }

    fn at(&self, name: &str) -> usize {
        self.fields.iter().find(|field| field.0 == name).unwrap().1
    }
}

#[test]
fn the_image_is_sound() {
    let gguf = read(&Image::whole().bytes).unwrap();
    assert_eq!(gguf.metadata().len(), 6);
    assert_eq!(gguf.tensors().len(), 2);
    let b = gguf.tensor("b").unwrap();
    assert_eq!((b.offset + b.bytes, b.offset), (gguf.file_len(), gguf.data_offset() + 96));
    assert_eq!(
        gguf.metadata().get_value("nested"),
        Some(&Value::Array(Array::Array(vec![Array::F64(vec![0.0])])))
    );
}

#[test]
fn every_count_and_length_beyond_the_file_is_refused() {
    let image = Image::whole();
    let len = image.bytes.len() as u64;
    for (names, at) in &image.counts {
        for n in [u64::MAX, u64::MAX - 7, i64::MAX as u64, 1 << 61, 1 << 32, len, len - *at as u64 - 7] {
            let error = image.with(*at, &n.to_le_bytes());
            assert!(
                matches!(error, GgufError::Limit { .. } | GgufError::Truncated { .. }),
                "{names} at {at} set to {n}: {error:?}"
            );
            let message = error.to_string();
            assert!(message.contains(names), "{names} at {at} set to {n}: {message}");
            // The place named is the number's own, or that of the text after it.
            let places = [*at, at + 8].map(|place| message.contains(&format!("offset {place}")));
            assert!(places.contains(&true), "{names} at {at} set to {n}: {message}");
        }
    }
}

#[test]
fn a_count_off_by_one_is_refused() {
    let image = Image::whole();
    for (names, at) in &image.counts {
        let n = u64::from_le_bytes(image.bytes[*at..at + 8].try_into().unwrap());
        // One fewer reads the last item as what follows it. For the numbers of tensors that is sound:
        // trailing bytes are padding.
        for n in [n + 1, n - 1] {
            let mut damaged = image.bytes.clone();
            damaged[*at..at + 8].copy_from_slice(&n.to_le_bytes());
            match read(&damaged) {
                Ok(_) => assert_eq!(*names, "number of tensors"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn every_cut_is_named() {
    let image = Image::whole();
    for len in 0..image.bytes.len() {
        let error = read(&image.bytes[..len]).expect_err("cut");
        let expected = match error {
            GgufError::Truncated { offset, left, needed, .. } => {
                assert_eq!(offset + left, len as u64);
                needed > left
            }
            GgufError::Limit { offset, value, limit, .. } => offset < len as u64 && value > limit,
            GgufError::Tensor { ref problem, .. } => problem.contains("beyond the file"),
            _ => false,
        };
        assert!(expected, "cut to {len}: {error:?}");
    }
}

#[test]
fn wrong_fields_are_named() {
    let image = Image::whole();
    let message = |name: &str, bytes: &[u8], expected: &str| {
        let at = image.at(name);
        let message = image.with(at, bytes).to_string();
        assert!(message.contains(expected), "{name}: {message}");
        message
    };
    message("type of text", &13u32.to_le_bytes(), "13 is not a value type");
    message("element type", &u32::MAX.to_le_bytes(), "4294967295 is not a value type");
    message("nested type", &99u32.to_le_bytes(), "99 is not a value type");
    for byte in [2, 0xff] {
        let message = message("bool", &[byte], "is not a boolean");
        assert!(message.contains("'flag'") && message.contains(&image.at("bool").to_string()));
    }
    for n in [0u32, 1, 4, 7, 12, 33, 1 << 17, u32::MAX] {
        let message = message("alignment", &n.to_le_bytes(), &format!("general.alignment is {n};"));
        let entry = image.at("alignment") - 4 - "general.alignment".len() - 8;
        assert!(message.contains(&format!("offset {entry}")), "{message}");
    }
    for n in [0u32, 5, u32::MAX] {
        message("dimensions", &n.to_le_bytes(), &format!("{n} dimensions"));
    }
    message("shape", &0u64.to_le_bytes(), "dimension 0");
    message("shape", &33u64.to_le_bytes(), "blocks of 32");
    message("shape", &(1u64 << 63).to_le_bytes(), "more bytes than can be counted");
    message("shape", &(u64::MAX - 31).to_le_bytes(), "more bytes than can be counted");
    message("shape", &(1u64 << 40).to_le_bytes(), "beyond the file");
    message("shape of b", &4u64.to_le_bytes(), "beyond the file");
    for id in [4u32, 5, 31, 33, 36, 38, 43, u32::MAX] {
        message("tensor type", &id.to_le_bytes(), &format!("type {id} is unknown"));
    }
    message("offset of a", &1u64.to_le_bytes(), "not a multiple of the alignment");
    for offset in [128u64, 1 << 40, 1 << 63, u64::MAX - 31] {
        message("offset of b", &offset.to_le_bytes(), "beyond the file");
    }
    let overlap = message("offset of b", &64u64.to_le_bytes(), "overlaps");
    assert!(overlap.contains("'a'") && overlap.contains("'b'"));
}

#[test]
fn an_array_read_as_another_type_is_refused() {
    // Three i32 read as strings: the first zero bytes are a length of 0, then the file goes out of step.
    let image = Image::whole();
    let (_, count) = *image.counts.iter().find(|count| count.0 == "'numbers'").unwrap();
    for id in (0..14u32).filter(|id| ![4, 5, 6].contains(id)) {
        let error = image.with(count - 4, &id.to_le_bytes()).to_string();
        assert!(error.contains("offset"), "{id}: {error}");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_only_where_it_is_asked_for() {
    let image = Image::whole();
    for (names, at) in &image.counts {
        let (place, key, lossy) = match *names {
            "'text'" => (at + 8, "text", "\u{FFFD}alue"),
            "'texts'" if image.bytes[*at] == 3 => (at + 10, "texts", ""),
            "metadata key" => (at + 8, "", ""),
            "tensor's name" => {
                let error = image.with(at + 8, &[0xe8]);
                let is_named = error.to_string().contains(names);
                assert!(
                    is_named && matches!(&error, GgufError::Text { offset, .. } if *offset == *at as u64 + 8)
                );
                continue;
            }
            _ => continue,
        };
        let mut bytes = image.bytes.clone();
        bytes[place] = 0xe8;
        let gguf = read(&bytes).unwrap();
        let metadata = gguf.metadata();
        assert_eq!((metadata.len(), gguf.tensors().len()), (6, 2));
        if key.is_empty() {
            let found = metadata.iter().filter(|(key, _)| key.starts_with('\u{FFFD}')).count();
            assert_eq!(found, 1, "the key at {at}");
            continue;
        }
        let errors = [metadata.get::<&str>(key).err(), metadata.get::<&[String]>(key).err()];
        let is_named = |error: &GgufError| {
            matches!(error, GgufError::Text { offset, .. } if *offset == *at as u64 + 8)
                && error.to_string().contains(names)
        };
        assert_eq!(errors.iter().flatten().filter(|error| is_named(error)).count(), 1, "{errors:?}");
        assert_eq!(metadata.get_lossy(key).unwrap_or_default(), Some(lossy).filter(|text| !text.is_empty()));
    }
}

#[test]
fn keys_that_are_not_utf8_may_look_alike() {
    // Two keys in Latin-1 that differ in the wrong byte alone, and one that is spelt like what stands for
    // them.
    let file = GgufWriter::new()
        .key("a.xx", Value::U32(1))
        .key("a.yy", Value::U32(2))
        .key("a.\u{FFFD}", Value::U32(3))
        .key("b", Value::U32(4));
    let mut bytes = file.to_bytes();
    for (name, new) in [(b"a.xx", b"a.\xe8\x80"), (b"a.yy", b"a.\xe9\x80")] {
        let at = bytes.windows(4).position(|window| window == name).unwrap();
        bytes[at..at + 4].copy_from_slice(new);
    }
    let gguf = read(&bytes).unwrap();
    assert_eq!(gguf.metadata().len(), 4);
    assert_eq!(gguf.metadata().get::<u32>("b").unwrap(), Some(4));
    // A sound key twice is a mistake.
    assert!(matches!(read(&file.key("b", Value::U32(5)).to_bytes()), Err(GgufError::Duplicate { .. })));
}

#[test]
fn other_files_are_told_apart() {
    let image = Image::whole();
    assert!(read(b"").unwrap_err().to_string().contains("magic"));
    assert!(read(b"PK\x03\x04 and so on").unwrap_err().to_string().contains("not a GGUF"));
    assert!(read(b"ggjt\x01\0\0\0").unwrap_err().to_string().contains("not a GGUF"));
    for version in 1..=3u32 {
        let error = image.with(4, &version.to_be_bytes()).to_string();
        assert!(error.contains("big-endian"), "{error}");
    }
    for (version, hint) in [(0, "damaged"), (1, "convert"), (4, "later"), (u32::MAX, "damaged")] {
        let error = image.with(4, &version.to_le_bytes());
        assert!(matches!(error, GgufError::Version { version: found, .. } if found == version));
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
fn wrong_types_and_ranges_are_named() {
    let file = GgufWriter::new()
        .key("integers", Value::Array(Array::I64(vec![1, -1, 1 << 40])))
        .key("inf", Value::F32(f32::INFINITY))
        .key("large", Value::F64(1e300))
        .key("flag", Value::Bool(true))
        .to_bytes();
    let gguf = read(&file).unwrap();
    let metadata = gguf.metadata();
    let text = |error: GgufError| error.to_string();
    assert_eq!(metadata.get::<Vec<i64>>("integers").unwrap().unwrap(), [1, -1, 1 << 40]);
    assert_eq!(metadata.get::<&[i64]>("integers").unwrap().unwrap(), [1, -1, 1 << 40]);
    assert!(text(metadata.get::<Vec<u32>>("integers").unwrap_err()).contains("-1 at index 1"));
    assert!(text(metadata.get::<Vec<i32>>("integers").unwrap_err()).contains("1099511627776 at index 2"));
    assert!(text(metadata.get::<&[i32]>("integers").unwrap_err()).contains("array of 3 i64"));
    assert!(text(metadata.get::<u32>("flag").unwrap_err()).contains("found bool"));
    assert!(text(metadata.get::<bool>("inf").unwrap_err()).contains("found f32"));
    assert!(text(metadata.get::<f32>("inf").unwrap_err()).contains("found inf"));
    assert!(metadata.get::<f32>("large").is_err());
    assert_eq!(metadata.get::<f64>("large").unwrap(), Some(1e300));
    assert!(matches!(metadata.get::<u32>("flag"), Err(GgufError::Type { offset, .. }) if offset > 24));
}

#[test]
fn an_alignment_of_another_type_is_refused() {
    let file = |value| read(&GgufWriter::new().key("general.alignment", value).to_bytes());
    assert!(matches!(file(Value::Str("32".into())), Err(GgufError::Type { .. })));
    assert!(matches!(file(Value::I32(-32)), Err(GgufError::Type { .. })));
    assert_eq!(file(Value::U64(64)).unwrap().alignment(), 64);
}

#[test]
fn gaps_between_tensors_and_after_them_are_allowed() {
    let image = Image::whole();
    let mut bytes = image.bytes.clone();
    bytes.resize(bytes.len() + 4096, 0);
    let at = image.at("offset of b");
    bytes[at..at + 8].copy_from_slice(&1024u64.to_le_bytes());
    assert_eq!(read(&bytes).unwrap().tensors()[1].bytes, 12);
}

/// Place of the data offset of a directory's entry, in a file without keys whose tensors have names of
/// one letter and one dimension.
fn offset_field(entry: usize) -> usize {
    const HEADER_BYTES: usize = 4 + 4 + 8 + 8;
    const ENTRY_BYTES: usize = 8 + 1 + 4 + 8 + 4 + 8;
    HEADER_BYTES + (entry + 1) * ENTRY_BYTES - 8
}

#[test]
fn the_order_of_the_data_is_free() {
    let mut file =
        GgufWriter::new().tensor_f32("a", &[8], &[1.0; 8]).tensor_f32("b", &[8], &[2.0; 8]).to_bytes();
    let [first, second] = [0, 1].map(offset_field);
    assert_eq!(file[second..second + 8], 32u64.to_le_bytes());
    file.copy_within(second..second + 8, first);
    file[second..second + 8].fill(0);
    let gguf = read(&file).unwrap();
    assert_eq!(gguf.tensors()[0].offset, gguf.tensors()[1].offset + 32);
}

/// A file that begins with `start`, continues with zeros up to `len`, and counts the bytes read.
struct Endless {
    start: Vec<u8>,
    len: u64,
    at: u64,
    served: u64,
}

impl Endless {
    fn new(start: Vec<u8>, len: u64) -> Self {
        Self { start, len, at: 0, served: 0 }
    }
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min((self.len - self.at).try_into().unwrap_or(usize::MAX));
        for (byte, at) in into[..n].iter_mut().zip(self.at..) {
            *byte = self.start.get(at as usize).copied().unwrap_or(0);
        }
        self.at += n as u64;
        self.served += n as u64;
        Ok(n)
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.len.checked_add_signed(by).unwrap(),
            SeekFrom::Current(by) => self.at.checked_add_signed(by).unwrap(),
        };
        Ok(self.at)
    }
}

/// A header whose only key has this type and then these bytes.
fn header(tensors: u64, keys: u64, value: &[&[u8]]) -> Vec<u8> {
    let mut image = Image::default();
    image.put(b"GGUF").u32(3).u64(tensors).u64(keys).text("", "k");
    value.iter().for_each(|bytes| {
        image.put(bytes);
    });
    image.bytes
}

#[test]
fn claims_that_fit_a_huge_file_are_refused_before_they_are_read() {
    let [text, array, u8s, u64s] = [8u32, 9, 0, 10].map(u32::to_le_bytes);
    let huge = (1u64 << 38).to_le_bytes();
    let over = (HEADER_BYTES_MAX / 8).to_le_bytes();
    for start in [
        header(0, 1, &[&text, &huge]),
        header(0, 1, &[&array, &text, &huge]),
        header(0, 1, &[&array, &u8s, &huge]),
        header(0, 1, &[&array, &u64s, &over]),
        header(0, 1, &[&array, &text, &over]),
        header(0, 1, &[&array, &array, &huge]),
        header(1 << 30, 1, &[]),
        header(1, 1 << 30, &[]),
    ] {
        let mut file = Endless::new(start, 1 << 42);
        let error = Gguf::read(&mut file).expect_err("too large");
        assert!(matches!(error, GgufError::Limit { .. }), "{error}");
        assert!(file.served <= 1 << 17, "{} bytes read: {error}", file.served);
    }
}

#[test]
fn tensors_far_out_in_a_huge_file_are_found() {
    let mut start = GgufWriter::new().tensor_f32("t", &[1], &[0.0]).to_bytes();
    start[offset_field(0)..][..8].copy_from_slice(&(1u64 << 49).to_le_bytes());
    let mut file = Endless::new(start, 1 << 50);
    let gguf = Gguf::read(&mut file).unwrap();
    assert_eq!(gguf.tensors()[0].offset, gguf.data_offset() + (1 << 49));
    assert!(file.served <= 1 << 17);
}

#[test]
fn a_reader_that_fails_is_an_io_error() {
    struct Failing(Cursor<Vec<u8>>);
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let error = Gguf::read(&mut Failing(Cursor::new(Image::whole().bytes))).unwrap_err();
    assert!(matches!(error, GgufError::Io(_)) && error.to_string().contains("the disk is gone"));
}

/// A file that is shorter than its reported length.
#[test]
fn a_file_that_shrinks_is_an_io_error() {
    struct Shrinking(Cursor<Vec<u8>>);
    impl Read for Shrinking {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let left = 100u64.saturating_sub(self.0.position()) as usize;
            let n = into.len().min(left);
            self.0.read(&mut into[..n])
        }
    }
    impl Seek for Shrinking {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let error = Gguf::read(&mut Shrinking(Cursor::new(Image::whole().bytes))).unwrap_err();
    assert!(matches!(error, GgufError::Io(_)), "{error}");
}

#[test]
fn a_reader_is_read_from_its_start() {
    let mut file = Cursor::new(Image::whole().bytes);
    file.set_position(57);
    assert!(Gguf::read(&mut file).is_ok());
}

#[test]
fn blocks_have_the_sizes_of_their_fields() {
    // Scales and minima of half precision, packed sub-block scales, then the quants' bits.
    let (half, single) = (2, 4);
    let expected = [
        (GgmlType::Q4_0, 32, half + 32 / 2),
        (GgmlType::Q4_1, 32, 2 * half + 32 / 2),
        (GgmlType::Q5_0, 32, half + 4 + 32 / 2),
        (GgmlType::Q5_1, 32, 2 * half + 4 + 32 / 2),
        (GgmlType::Q8_0, 32, half + 32),
        (GgmlType::Q8_1, 32, 2 * half + 32),
        (GgmlType::Q2K, 256, 2 * half + 16 + 256 / 4),
        (GgmlType::Q3K, 256, half + 12 + 256 / 4 + 256 / 8),
        (GgmlType::Q4K, 256, 2 * half + 12 + 256 / 2),
        (GgmlType::Q5K, 256, 2 * half + 12 + 256 / 2 + 256 / 8),
        (GgmlType::Q6K, 256, half + 16 + 256 / 2 + 256 / 4),
        (GgmlType::Q8K, 256, single + 256 + 16 * 2),
        (GgmlType::Iq4Nl, 32, half + 32 / 2),
        (GgmlType::Iq4Xs, 256, 2 * half + 256 / 64 + 256 / 2),
        (GgmlType::Mxfp4, 32, 1 + 32 / 2),
        (GgmlType::Nvfp4, 64, 4 + 64 / 2),
        (GgmlType::Q1_0, 128, half + 128 / 8),
        (GgmlType::Q2_0, 64, half + 64 / 4),
        (GgmlType::Tq2_0, 256, half + 256 / 4),
    ];
    for (dtype, elements, bytes) in expected {
        assert_eq!((dtype.block_len(), dtype.block_bytes()), (elements, bytes), "{dtype}");
    }
    for (dtype, bytes) in [(GgmlType::F32, 4), (GgmlType::F16, 2), (GgmlType::BF16, 2), (GgmlType::F64, 8)] {
        assert_eq!((dtype.block_len(), dtype.block_bytes()), (1, bytes), "{dtype}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Beyond not panicking: what is read of a damaged file is sound, and only its own bytes were read.
    #[test]
    fn what_passes_is_sound(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        interesting in proptest::option::of((
            any::<proptest::sample::Index>(),
            prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(1 << 63), Just(1 << 31), any::<u64>(), 0..600u64],
        )),
        cut in proptest::option::weighted(0.2, any::<proptest::sample::Index>()),
    ) {
        let mut bytes = Image::whole().bytes;
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some((at, n)) = interesting {
            let at = at.index(bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&n.to_le_bytes());
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let len = bytes.len() as u64;
        let mut file = Endless::new(bytes, len);
        let result = Gguf::read(&mut file);
        prop_assert!(file.served <= len);
        if let Ok(gguf) = result {
            let mut ends = vec![(gguf.data_offset(), gguf.data_offset())];
            ends.extend(gguf.tensors().iter().map(|tensor| (tensor.offset, tensor.offset + tensor.bytes)));
            ends.sort_unstable();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            prop_assert!(gguf.tensors().is_empty() || ends.last().unwrap().1 <= len);
            let values: usize = gguf.metadata().iter().map(|(key, value)| key.len() + size(value)).sum();
            prop_assert!(values as u64 <= len);
            let _ = ModelInfo::from_gguf(&gguf);
        }
    }
}

/// Bytes that a value has in a file at least.
fn size(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len(),
        Value::Array(Array::Str(texts)) => texts.iter().map(|text| 8 + text.len()).sum(),
        Value::Array(array) => array.len(),
        _ => 1,
    }
}
