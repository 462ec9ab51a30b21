//! Quantization errors of Exsa and of ggml, type by type.
//!
//! ```text
//! cargo run --release -p exsa-quant --example errors -- GGML_QUANTIZE [--model F.gguf] [--types Q4_K,Q6_K] [--reference]
//! ```
//!
//! `GGML_QUANTIZE` is the program built from `tools/ggml_quantize.c`. The values are pseudo-random and close
//! to normal, or the matrices of a model, dequantized. A line has the squared error relative to the sum of
//! squares, weighted by column importance where the column says so, and the ratio of the two errors: below 1
//! Exsa's blocks are closer. `--reference` prints the lines of `tests/data/ggml_errors.txt` instead.

use exsa_core::gguf::{GgmlType, Gguf};
use exsa_quant::{can_quantize, dequantize, quantize};
use std::error::Error;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[path = "../tests/support/mod.rs"]
mod support;
use support::{SplitMix64, every_type, importance, relative_error};

/// Values of a model's tensor that are compared: whole rows, at most.
const VALUES_MAX: usize = 1 << 19;

struct Matrix {
    columns: usize,
    values: Vec<f32>,
    importance: Vec<f32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let ggml =
        arguments.next().ok_or("usage: errors GGML_QUANTIZE [--model F] [--types A,B] [--reference]")?;
    let (mut model, mut types, mut reference) = (None, None, false);
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--model" => model = arguments.next(),
            "--types" => types = arguments.next(),
            "--reference" => reference = true,
            _ => return Err(format!("no such option: {option}").into()),
        }
    }
    let matrices = match &model {
        Some(path) => load(Path::new(path))?,
        None => {
            let mut random = SplitMix64::new(1);
            let values = random.bell_values(64 * 1024);
            vec![Matrix { columns: 1024, values, importance: importance(1024) }]
        }
    };
    if !reference {
        println!(
            "type       plain: ours      ggml   ratio   weighted: ours      ggml   ratio   ours s  ggml s"
        );
    }
    let wanted = |dtype: &GgmlType| {
        types.as_ref().is_none_or(|types: &String| types.split(',').any(|t| t == dtype.name()))
    };
    for dtype in every_type().filter(|dtype| can_quantize(*dtype) && dtype.block_len() > 1).filter(wanted) {
        let mut sums = [[0.0; 2]; 2];
        let mut count = 0.0;
        let mut times = [Duration::ZERO; 2];
        for matrix in
            matrices.iter().filter(|matrix| (matrix.columns as u64).is_multiple_of(dtype.block_len()))
        {
            count += 1.0;
            for (weighted, sums) in sums.iter_mut().enumerate() {
                let importance = (weighted == 1).then_some(&matrix.importance[..]);
                let start = Instant::now();
                let mut ours = Vec::new();
                quantize(dtype, &matrix.values, matrix.columns, importance, &mut ours)?;
                times[0] += start.elapsed();
                let start = Instant::now();
                let theirs = quantize_by_ggml(&ggml, dtype, matrix, importance)?;
                times[1] += start.elapsed();
                sums[0] += error(dtype, &ours, matrix, importance)?;
                sums[1] += error(dtype, &theirs, matrix, importance)?;
            }
        }
        let [[plain, plain_ggml], [weighted, weighted_ggml]] = sums.map(|pair| pair.map(|sum| sum / count));
        if reference {
            println!("{dtype} {plain_ggml:e} {weighted_ggml:e}");
        } else {
            println!(
                "{:8} {plain:13.3e} {plain_ggml:9.3e} {:7.4} {weighted:16.3e} {weighted_ggml:9.3e} {:7.4} {:8.2} {:7.2}",
                dtype.name(),
                plain / plain_ggml,
                weighted / weighted_ggml,
                times[0].as_secs_f64(),
                times[1].as_secs_f64(),
            );
        }
    }
    Ok(())
}

fn error(
    dtype: GgmlType,
    blocks: &[u8],
    matrix: &Matrix,
    importance: Option<&[f32]>,
) -> Result<f64, Box<dyn Error>> {
    let mut values = vec![0.0; matrix.values.len()];
    dequantize(dtype, blocks, &mut values)?;
    Ok(relative_error(&matrix.values, &values, matrix.columns, importance))
}

fn quantize_by_ggml(
    program: &str,
    dtype: GgmlType,
    matrix: &Matrix,
    importance: Option<&[f32]>,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("exsa-quant-errors-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let [values, weights, out] = ["values", "weights", "out"].map(|name| folder.join(name));
    std::fs::write(&values, bytes(&matrix.values))?;
    let mut command = Command::new(program);
    command.args([dtype.id().to_string(), matrix.columns.to_string()]).arg(&values);
    match importance {
        Some(importance) => {
            std::fs::write(&weights, bytes(importance))?;
            command.arg(&weights);
        }
        None => {
            command.arg("-");
        }
    }
    let status = command.arg(&out).status()?;
    if !status.success() {
        return Err(format!("{program}: {status}").into());
    }
    let blocks = std::fs::read(&out)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(blocks)
}

/// The matrices of some layers of a model.
fn load(path: &Path) -> Result<Vec<Matrix>, Box<dyn Error>> {
    let mut file = std::fs::File::open(path)?;
    let gguf = Gguf::read(&mut file)?;
    let mut matrices = Vec::new();
    for tensor in gguf.tensors() {
        let chosen =
            ["blk.0.", "blk.7.", "blk.15.", "token_embd."].iter().any(|part| tensor.name.starts_with(part));
        if tensor.shape.len() != 2 || !chosen {
            continue;
        }
        let columns = tensor.shape[0] as usize;
        let row_bytes = tensor.bytes / tensor.shape[1];
        let rows = (VALUES_MAX / columns).min(tensor.shape[1] as usize);
        file.seek(SeekFrom::Start(tensor.offset))?;
        let mut bytes = vec![0; rows * row_bytes as usize];
        file.read_exact(&mut bytes)?;
        let mut values = vec![0.0; rows * columns];
        dequantize(tensor.dtype, &bytes, &mut values)?;
        matrices.push(Matrix { columns, values, importance: importance(columns) });
    }
    Ok(matrices)
}
