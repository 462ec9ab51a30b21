//! Conversions of files: layouts compared to llama.cpp's, contents, refusals, damaged input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use exsa_core::gguf::{GgmlType, Gguf, GgufWriter, Value};
use exsa_quant::{
    CalibrationText, ImportanceMatrix, Mixture, QuantizeError, QuantizeOptions, QuantizeSummary,
    planned_types, quantize, quantize_gguf,
};
use std::io::Cursor;
use std::ops::ControlFlow;

mod support;
use support::{SplitMix64, importance};

fn convert(input: &[u8], options: &QuantizeOptions) -> Result<(Vec<u8>, QuantizeSummary), QuantizeError> {
    let mut output = Vec::new();
    let summary =
        quantize_gguf(&mut Cursor::new(input), &mut output, options, |_| ControlFlow::Continue(()))?;
    Ok((output, summary))
}

fn read(bytes: &[u8]) -> Gguf {
    Gguf::read(&mut Cursor::new(bytes)).unwrap()
}

/// A llama of tiny matrices.
struct Shape {
    layers: u32,
    width: u64,
    heads_kv: u32,
    tied: bool,
    experts: u64,
}

impl Shape {
    fn writer(&self) -> GgufWriter {
        let mut random = SplitMix64::new(5);
        let mut writer = GgufWriter::new()
            .key("general.architecture", Value::Str("llama".into()))
            .key("llama.block_count", Value::U32(self.layers))
            .key("llama.attention.head_count", Value::U32(8))
            .key("llama.attention.head_count_kv", Value::U32(self.heads_kv))
            .key("llama.context_length", Value::U32(128))
            .key("llama.embedding_length", Value::U32(self.width as u32))
            .key("llama.feed_forward_length", Value::U32(self.width as u32))
            .key("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
            .key("llama.rope.dimension_count", Value::U32(self.width as u32 / 8))
            .key("llama.vocab_size", Value::U32(4))
            .key("split.count", Value::U16(1))
            .key("general.file_type", Value::U32(0));
        if self.experts > 0 {
            writer = writer
                .key("llama.expert_count", Value::U32(self.experts as u32))
                .key("llama.expert_used_count", Value::U32(1));
        }
        let mut tensor = |name: &str, shape: &[u64]| {
            let values = random.bell_values(shape.iter().product::<u64>() as usize);
            writer = writer.clone().tensor_f32(name, shape, &values);
        };
        tensor("token_embd.weight", &[self.width, 4]);
        if !self.tied {
            tensor("output.weight", &[self.width, 4]);
        }
        tensor("output_norm.weight", &[self.width]);
        for layer in 0..self.layers {
            for (name, rows) in [("attn_q", 4), ("attn_k", 2), ("attn_v", 2), ("attn_output", 4)] {
                tensor(&format!("blk.{layer}.{name}.weight"), &[self.width, rows]);
            }
            tensor(&format!("blk.{layer}.attn_norm.weight"), &[self.width]);
            if self.experts > 0 {
                tensor(&format!("blk.{layer}.ffn_gate_inp.weight"), &[self.width, self.experts]);
                for name in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"] {
                    tensor(&format!("blk.{layer}.{name}.weight"), &[self.width, 2, self.experts]);
                }
            } else {
                for name in ["ffn_gate", "ffn_up", "ffn_down"] {
                    tensor(&format!("blk.{layer}.{name}.weight"), &[self.width, 2]);
                }
            }
        }
        writer
    }
}

/// Shapes that take different paths through the rules, with their names in `data/mixtures.txt`.
fn shapes() -> [(&'static str, Shape); 5] {
    let shape = |layers, width, heads_kv, tied, experts| Shape { layers, width, heads_kv, tied, experts };
    [
        ("plain", shape(18, 256, 8, false, 0)),
        ("grouped", shape(18, 256, 2, true, 0)),
        ("narrow", shape(9, 96, 8, true, 0)),
        ("experts", shape(9, 256, 8, false, 8)),
        ("seventy", shape(80, 256, 1, false, 0)),
    ]
}

/// Types as llama.cpp's quantizer chose them: a line per shape, mixture and presence of an importance matrix,
/// with the type of each tensor in the order of the file.
#[test]
fn mixtures_are_those_of_llama_cpp() {
    for (name, shape) in shapes() {
        let gguf = read(&shape.writer().to_bytes());
        let mut all = ImportanceMatrix::new();
        for tensor in gguf.tensors() {
            let columns = tensor.shape[0] * tensor.shape.get(2).unwrap_or(&1);
            all.insert(&tensor.name, vec![1.0; columns as usize]).unwrap();
        }
        let mut lines = 0;
        for line in
            include_str!("data/mixtures.txt").lines().filter(|line| line.starts_with(&format!("{name} ")))
        {
            let [_, mixture, matrix, types] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let mut options = QuantizeOptions::new(Mixture::from_name(mixture).unwrap());
            if matrix == "importance" {
                options = options.importance(all.clone());
            }
            let planned = planned_types(&gguf, &options).unwrap();
            let ids: Vec<u32> = types.split(',').map(|id| id.parse().unwrap()).collect();
            for ((tensor, planned), id) in gguf.tensors().iter().zip(&planned).zip(&ids) {
                assert_eq!(
                    Some(*planned),
                    GgmlType::from_id(*id),
                    "{name} {mixture} {matrix}: {}",
                    tensor.name
                );
            }
            assert_eq!(planned.len(), ids.len());
            lines += 1;
        }
        assert!(lines >= Mixture::all().count(), "{name}: {lines} lines");
    }
}

/// Prints the lines of `data/mixtures.txt`, by the program that `LLAMA_TYPES` names (`tools/llama_types.c`).
#[test]
#[ignore = "writes the reference and needs llama.cpp"]
fn mixtures_reference() {
    let program = std::env::var("LLAMA_TYPES").expect("LLAMA_TYPES names the program");
    let folder = std::env::temp_dir().join(format!("exsa-quant-mixtures-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (input, output) = (folder.join("in.gguf"), folder.join("out.gguf"));
    for (name, shape) in shapes() {
        std::fs::write(&input, shape.writer().to_bytes()).unwrap();
        for mixture in Mixture::all() {
            for (flag, matrix) in [("0", "none"), ("1", "importance")] {
                let mut command = std::process::Command::new(&program);
                command.arg(&input).arg(mixture.file_type().to_string()).arg(flag).arg(&output);
                let result = command.output().unwrap();
                // Q2_K_S without importance is refused.
                if result.status.success() {
                    println!(
                        "{name} {mixture} {matrix} {}",
                        String::from_utf8(result.stdout).unwrap().trim()
                    );
                }
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn contents_and_metadata() {
    let shape = Shape { layers: 2, width: 256, heads_kv: 8, tied: true, experts: 2 };
    let input = shape.writer().key("note", Value::Str("kept".into())).to_bytes();
    let before = read(&input);
    let mut matrix = ImportanceMatrix::new();
    let experts = [importance(256), vec![1.0; 256]].concat();
    matrix.insert("blk.1.ffn_up_exps.weight", experts.clone()).unwrap();
    let options = QuantizeOptions::new(Mixture::Q4KM).importance(matrix).threads(3);
    let (output, summary) = convert(&input, &options).unwrap();
    let after = read(&output);

    assert_eq!(after.metadata().get::<&str>("note").unwrap(), Some("kept"));
    assert_eq!(after.metadata().get::<u64>("general.file_type").unwrap(), Some(15));
    assert_eq!(after.metadata().get::<u64>("general.quantization_version").unwrap(), Some(2));
    assert_eq!(after.metadata().get_value("split.count"), None);
    assert_eq!(summary.bytes_after, after.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
    assert_eq!(summary.bytes_before, before.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
    assert_eq!(summary.without_importance, summary.converted - 1);
    let data = |bytes: &[u8], gguf: &Gguf, name: &str| {
        let tensor = gguf.tensor(name).unwrap();
        bytes[tensor.offset as usize..][..tensor.bytes as usize].to_vec()
    };
    for tensor in before.tensors() {
        let new = after.tensor(&tensor.name).unwrap();
        assert_eq!(new.shape, tensor.shape);
        let raw = data(&input, &before, &tensor.name);
        let found = data(&output, &after, &tensor.name);
        if tensor.name.contains("norm") || tensor.name.contains("gate_inp") {
            assert!(raw == found, "{} is copied", tensor.name);
            continue;
        }
        // Each expert has the importance of its own columns.
        let values: Vec<f32> =
            raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mut expected = Vec::new();
        if tensor.name == "blk.1.ffn_up_exps.weight" {
            for (values, importance) in values.chunks_exact(512).zip(experts.chunks_exact(256)) {
                quantize(new.dtype, values, 256, Some(importance), &mut expected).unwrap();
            }
        } else {
            quantize(new.dtype, &values, 256, None, &mut expected).unwrap();
        }
        assert!(found == expected, "{}", tensor.name);
    }
    let (again, _) = convert(&input, &options.threads(1)).unwrap();
    assert!(output == again, "the number of threads changes nothing");
}

#[test]
fn options_change_types() {
    let shape = Shape { layers: 1, width: 256, heads_kv: 8, tied: false, experts: 0 };
    let input = shape.writer().to_bytes();
    let types = |options: QuantizeOptions| {
        let (output, _) = convert(&input, &options).unwrap();
        let gguf = read(&output);
        ["output.weight", "blk.0.attn_k.weight", "blk.0.ffn_up.weight"]
            .map(|name| gguf.tensor(name).unwrap().dtype)
    };
    let mixed = QuantizeOptions::new(Mixture::Q4_0);
    assert_eq!(types(mixed.clone()), [GgmlType::Q6K, GgmlType::Q4_0, GgmlType::Q4_0]);
    assert_eq!(types(mixed.clone().pure(true)), [GgmlType::Q4_0; 3]);
    let forced = mixed.tensor_type("attn_k", GgmlType::Q8_0).tensor_type("ffn", GgmlType::Iq4Xs);
    assert_eq!(types(forced), [GgmlType::Q6K, GgmlType::Q8_0, GgmlType::Iq4Xs]);
}

#[test]
fn progress_and_cancellation() {
    let shape = Shape { layers: 1, width: 256, heads_kv: 8, tied: true, experts: 0 };
    let input = shape.writer().to_bytes();
    let options = QuantizeOptions::new(Mixture::Q8_0);
    let mut points = Vec::new();
    quantize_gguf(&mut Cursor::new(&input), Vec::new(), &options, |progress| {
        points.push((progress.index, progress.bytes_done, progress.bytes, progress.tensors));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(points.is_sorted(), "{points:?}");
    let last = points.last().unwrap();
    assert_eq!((points[0].1, last.0 + 1), (0, last.3));
    assert!(last.1 < last.2);
    let mut calls = 0;
    let cancelled = quantize_gguf(&mut Cursor::new(&input), Vec::new(), &options, |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(cancelled, Err(QuantizeError::Cancelled)));
    assert_eq!(calls, 3);
}

#[test]
fn refusals_name_the_tensor() {
    let shape = Shape { layers: 1, width: 256, heads_kv: 8, tied: true, experts: 0 };
    let input = shape.writer().to_bytes();
    let refused = |input: &[u8], options: &QuantizeOptions| convert(input, options).unwrap_err().to_string();

    let (quantized, _) = convert(&input, &QuantizeOptions::new(Mixture::Q8_0)).unwrap();
    let smaller = QuantizeOptions::new(Mixture::Q4_0);
    let message = refused(&quantized, &smaller);
    assert!(message.starts_with("tensor 'token_embd.weight' is already Q8_0"), "{message}");
    let allowed = convert(&quantized, &smaller.clone().allow_requantize(true)).unwrap();
    assert_eq!(read(&allowed.0).tensor("blk.0.attn_q.weight").unwrap().dtype, GgmlType::Q4_0);

    let mut matrix = ImportanceMatrix::new();
    matrix.insert("blk.0.attn_k.weight", vec![1.0; 128]).unwrap();
    let message = refused(&input, &smaller.clone().importance(matrix));
    assert!(message.contains("128 numbers for tensor 'blk.0.attn_k.weight', which needs 256"), "{message}");
    let message = refused(&input, &QuantizeOptions::new(Mixture::Q2KS));
    assert!(message.contains("Q2_K in a Q2_K_S file, which needs an importance matrix"), "{message}");
    let message = refused(&input, &smaller.clone().tensor_type("attn_q", GgmlType::Iq2S));
    assert!(message.contains("values cannot be quantized to IQ2_S"), "{message}");

    let values = [1.0, f32::INFINITY].repeat(32);
    let infinite = GgufWriter::new()
        .key("general.architecture", Value::Str("llama".into()))
        .tensor_f32("blk.0.attn_q.weight", &[32, 2], &values)
        .to_bytes();
    let message = refused(&infinite, &smaller);
    assert!(
        message.starts_with("tensor 'blk.0.attn_q.weight', rows from 0 on: row 0, column 1 is inf"),
        "{message}"
    );
}

/// The matrix in both of llama.cpp's formats, from hand-written bytes.
#[test]
fn importance_of_both_forms() {
    let mut legacy = 2i32.to_le_bytes().to_vec();
    for (name, calls, values) in [("a.weight", 2i32, [2.0f32, 4.0]), ("b.weight", 0, [0.5, 0.25])] {
        legacy.extend((name.len() as i32).to_le_bytes());
        legacy.extend(name.as_bytes());
        legacy.extend(calls.to_le_bytes());
        legacy.extend((values.len() as i32).to_le_bytes());
        values.iter().for_each(|x| legacy.extend(x.to_le_bytes()));
    }
    legacy.extend(7i32.to_le_bytes());
    let matrix = ImportanceMatrix::read(&mut Cursor::new(&legacy)).unwrap();
    assert_eq!(matrix.len(), 2);
    assert_eq!(matrix.get("a.weight"), Some(&[1.0, 2.0][..]));
    assert_eq!(matrix.get("b.weight"), Some(&[0.5, 0.25][..]));

    // Two experts, the second without a token.
    let gguf = GgufWriter::new()
        .key("general.type", Value::Str("imatrix".into()))
        .tensor_f32("e.weight.in_sum2", &[2, 2], &[8.0, 4.0, 0.0, 0.0])
        .tensor_f32("e.weight.counts", &[1, 2], &[4.0, 0.0])
        .to_bytes();
    let read = ImportanceMatrix::read(&mut Cursor::new(gguf)).unwrap();
    assert_eq!(read.get("e.weight"), Some(&[2.0, 1.0, 1.0, 1.0][..]));

    let written = matrix.to_gguf(&CalibrationText::new(2, 256).name("text.txt")).to_bytes();
    assert_eq!(ImportanceMatrix::read(&mut Cursor::new(&written)).unwrap(), matrix);

    for file in [&legacy[..], &written[..]] {
        for len in 0..file.len().min(400) {
            // Complete entries are required; the data after them in the older format is not.
            let complete = file == &legacy[..] && len >= legacy.len() - 4;
            assert_eq!(ImportanceMatrix::read(&mut Cursor::new(&file[..len])).is_ok(), complete, "{len}");
        }
    }
    assert!(ImportanceMatrix::new().insert("a", vec![1.0, f32::NAN]).is_err());
}

#[test]
fn damaged_files_are_errors() {
    let shape = Shape { layers: 1, width: 32, heads_kv: 8, tied: true, experts: 0 };
    let input = shape.writer().to_bytes();
    let header = read(&input).data_offset() as usize;
    let matrix = {
        let mut matrix = ImportanceMatrix::new();
        matrix.insert("blk.0.attn_q.weight", importance(32)).unwrap();
        matrix.to_gguf(&CalibrationText::new(1, 10)).to_bytes()
    };
    let mut random = SplitMix64::new(11);
    let mut refused = 0;
    for _ in 0..2000 {
        let mut damaged = input.clone();
        for _ in 0..1 + random.next() % 4 {
            damaged[random.next() as usize % header] = random.next() as u8;
        }
        damaged.truncate(input.len() - (random.next() % 3 * 100) as usize);
        let options = QuantizeOptions::new(Mixture::Q4KM).threads(1).allow_requantize(true);
        refused += usize::from(convert(&damaged, &options).is_err());

        let mut damaged = matrix.clone();
        damaged[random.next() as usize % matrix.len()] = random.next() as u8;
        let _ = ImportanceMatrix::read(&mut Cursor::new(damaged));
        let len = random.next() as usize % 300;
        let _ = ImportanceMatrix::read(&mut Cursor::new(random.bytes(len)));
    }
    assert!(refused > 500, "{refused}");
}

/// A file that llama.cpp quantized has the same layout.
#[test]
fn a_real_file_has_the_layout_of_llama_cpp() {
    let Ok(folder) = std::env::var("EXSA_TEST_DATA") else {
        println!("skipped: EXSA_TEST_DATA is not set");
        return;
    };
    let load = |name: &str| std::fs::read(format!("{folder}/models/{name}")).unwrap();
    let source = load("exsa-tiny-f32.gguf");
    for (name, mixture) in [("exsa-tiny-q4_k_m.gguf", Mixture::Q4KM), ("exsa-tiny-q8_0.gguf", Mixture::Q8_0)]
    {
        let reference = read(&load(name));
        let (output, _) = convert(&source, &QuantizeOptions::new(mixture)).unwrap();
        let gguf = read(&output);
        for tensor in reference.tensors() {
            assert_eq!(gguf.tensor(&tensor.name).unwrap().dtype, tensor.dtype, "{name}: {}", tensor.name);
        }
        assert_eq!(gguf.tensors().len(), reference.tensors().len());
    }
}

#[test]
fn a_part_of_a_split_model_is_refused() {
    let input = GgufWriter::new()
        .key("general.architecture", Value::Str("llama".into()))
        .key("split.no", Value::U16(1))
        .key("split.count", Value::U16(3))
        .to_bytes();
    let options = QuantizeOptions::new(Mixture::Q8_0);
    let error = quantize_gguf(&mut Cursor::new(input), Vec::new(), &options, |_| ControlFlow::Continue(()));
    let text = error.unwrap_err().to_string();
    assert!(text.contains("part 2 of 3"), "{text}");
}
