//! Conversion of a file, one part of a tensor at a time.

use super::rules::planned_types;
use super::{Mixture, Progress, QuantizeError, QuantizeOptions, QuantizeSummary};
use crate::{QuantError, dequantize, quantize};
use exsa_core::gguf::{GgmlType, Gguf, GgufError, GgufStream, GgufWriter, TensorInfo, Value};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;

/// Values that a thread converts at a time; a row may be longer.
const VALUES_PER_THREAD: u64 = 1 << 20;

/// Bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Version of the block formats, stated in files.
const QUANTIZATION_VERSION: u32 = 2;

/// Reads a GGUF and writes it with its matrices quantized as [`QuantizeOptions`] say.
///
/// Metadata is kept, apart from the file type and the numbers of a split; vectors, norms and other small
/// tensors are copied. Each tensor is converted in parts, so memory use is a few MiB per thread, whatever the
/// size of the file. `progress` is called before each part; if it returns `Break`, the conversion is
/// cancelled.
///
/// ```
/// use exsa_core::gguf::{GgmlType, Gguf, GgufWriter, Value};
/// use exsa_quant::{Mixture, QuantizeOptions, quantize_gguf};
/// use std::{io::Cursor, ops::ControlFlow};
///
/// let input = GgufWriter::new()
///     .key("general.architecture", Value::Str("llama".into()))
///     .tensor_f32("blk.0.attn_q.weight", &[256, 2], &[0.5; 512])
///     .to_bytes();
/// let mut output = Vec::new();
/// let options = QuantizeOptions::new(Mixture::Q4KM);
/// quantize_gguf(&mut Cursor::new(input), &mut output, &options, |_| ControlFlow::Continue(()))?;
/// let gguf = Gguf::read(&mut Cursor::new(output))?;
/// assert_eq!(gguf.tensors()[0].dtype, GgmlType::Q4K);
/// # Ok::<(), exsa_quant::QuantizeError>(())
/// ```
///
/// # Errors
///
/// [`QuantizeError`], after which the output is incomplete.
pub fn quantize_gguf<R: Read + Seek, W: Write>(
    reader: &mut R,
    writer: W,
    options: &QuantizeOptions,
    mut progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<QuantizeSummary, QuantizeError> {
    let gguf = Gguf::read(reader)?;
    if let Some(split) = gguf.split()? {
        let problem = format!(
            "it is part {} of {} of a split model; a model in one file is needed",
            split.index + 1,
            split.count
        );
        return Err(GgufError::Split { file: "the input".to_owned(), problem }.into());
    }
    let types = planned_types(&gguf, options)?;
    check(&gguf, &types, options)?;
    let mut stream = header(&gguf, &types, options).start(writer).map_err(QuantizeError::Write)?;
    let bytes = gguf.tensors().iter().map(|tensor| tensor.bytes).sum();
    let mut summary = QuantizeSummary { bytes_before: bytes, ..QuantizeSummary::default() };
    let mut bytes_done = 0;
    for (index, (tensor, dtype)) in gguf.tensors().iter().zip(&types).enumerate() {
        let mut report = |done: u64| {
            let point = Progress {
                tensor: &tensor.name,
                dtype: *dtype,
                index,
                tensors: types.len(),
                bytes_done: bytes_done + done,
                bytes,
            };
            if progress(point).is_break() { Err(QuantizeError::Cancelled) } else { Ok(()) }
        };
        if *dtype == tensor.dtype {
            copy(reader, &mut stream, tensor, &mut report)?;
        } else {
            let importance = options.importance.as_ref().and_then(|matrix| matrix.get(&tensor.name));
            summary.converted += 1;
            summary.without_importance += usize::from(importance.is_none());
            convert(reader, &mut stream, tensor, *dtype, importance, options.threads, &mut report)?;
        }
        bytes_done += tensor.bytes;
        summary.bytes_after += bytes_of(tensor, *dtype);
    }
    stream.finish().map_err(QuantizeError::Write)?;
    Ok(summary)
}

/// Refuses already quantized tensors, and importance that does not match, before anything is written.
fn check(gguf: &Gguf, types: &[GgmlType], options: &QuantizeOptions) -> Result<(), QuantizeError> {
    for (tensor, dtype) in gguf.tensors().iter().zip(types).filter(|(tensor, dtype)| tensor.dtype != **dtype)
    {
        let name = || tensor.name.clone();
        if !crate::can_quantize(*dtype) {
            let source = QuantError::NotQuantizable(*dtype);
            return Err(QuantizeError::Tensor { tensor: name(), row: 0, source });
        }
        if tensor.dtype.block_len() > 1 && !options.allow_requantize {
            return Err(QuantizeError::Requantize { tensor: name(), dtype: tensor.dtype });
        }
        let importance = options.importance.as_ref().and_then(|matrix| matrix.get(&tensor.name));
        let embedding = matches!(tensor.name.as_str(), "token_embd.weight" | "output.weight");
        match importance {
            Some(importance) => {
                let needed = tensor.shape[0] * experts(tensor);
                if importance.len() as u64 != needed {
                    return Err(QuantizeError::ImportanceLength {
                        tensor: name(),
                        found: importance.len(),
                        needed,
                    });
                }
            }
            None if options.mixture == Mixture::Q2KS && *dtype == GgmlType::Q2K && !embedding => {
                let (dtype, mixture) = (*dtype, options.mixture);
                return Err(QuantizeError::ImportanceMissing { tensor: name(), dtype, mixture });
            }
            None => {}
        }
    }
    Ok(())
}

/// The output's header.
fn header(gguf: &Gguf, types: &[GgmlType], options: &QuantizeOptions) -> GgufWriter {
    const REPLACED: [&str; 6] = [
        "general.file_type",
        "general.quantization_version",
        "general.alignment",
        "split.no",
        "split.count",
        "split.tensors.count",
    ];
    // The parser has checked that the alignment is at most 64 KiB.
    let mut writer = GgufWriter::new().alignment(gguf.alignment() as u32);
    for (key, value) in gguf.metadata().iter().filter(|(key, _)| !REPLACED.contains(key)) {
        writer = writer.key(key, value.clone());
    }
    writer = writer
        .key("general.file_type", Value::U32(options.mixture.file_type()))
        .key("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    for (tensor, dtype) in gguf.tensors().iter().zip(types) {
        writer = writer.declare(&tensor.name, &tensor.shape, *dtype, bytes_of(tensor, *dtype));
    }
    writer
}

/// Bytes of a tensor whose rows are whole blocks of `dtype`. The result does not overflow: there are fewer
/// than 8 bytes per element, and the number of elements was checked when the file was read.
fn bytes_of(tensor: &TensorInfo, dtype: GgmlType) -> u64 {
    (tensor.elements() / dtype.block_len()).saturating_mul(dtype.block_bytes())
}

/// Number of matrices in a tensor with separate importance.
fn experts(tensor: &TensorInfo) -> u64 {
    tensor.shape.get(2).copied().unwrap_or(1)
}

type Report<'a> = &'a mut dyn FnMut(u64) -> Result<(), QuantizeError>;

fn copy<R: Read + Seek, W: Write>(
    reader: &mut R,
    stream: &mut GgufStream<W>,
    tensor: &TensorInfo,
    report: Report<'_>,
) -> Result<(), QuantizeError> {
    let mut part = vec![0; COPY_BYTES.min(tensor.bytes as usize)];
    let mut done = 0;
    while done < tensor.bytes {
        report(done)?;
        let len = part.len().min((tensor.bytes - done) as usize);
        read_at(reader, tensor, done, &mut part[..len])?;
        stream.write(&part[..len]).map_err(QuantizeError::Write)?;
        done += len as u64;
    }
    Ok(())
}

fn convert<R: Read + Seek, W: Write>(
    reader: &mut R,
    stream: &mut GgufStream<W>,
    tensor: &TensorInfo,
    dtype: GgmlType,
    importance: Option<&[f32]>,
    threads: usize,
    report: Report<'_>,
) -> Result<(), QuantizeError> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let columns = tensor.shape[0] as usize;
    let row_bytes = (tensor.shape[0] / tensor.dtype.block_len() * tensor.dtype.block_bytes()) as usize;
    let rows = tensor.elements() / tensor.shape[0];
    let rows_of_expert = tensor.shape.get(1).copied().unwrap_or(1);
    let rows_per_thread = (VALUES_PER_THREAD / tensor.shape[0]).max(1);
    let mut part = Vec::new();
    let mut row = 0;
    while row < rows {
        report(row * row_bytes as u64)?;
        // A part does not extend beyond an expert, since it uses the importance of that expert.
        let expert_end = (row / rows_of_expert + 1) * rows_of_expert;
        let end = expert_end.min(row + rows_per_thread * threads as u64);
        part.resize((end - row) as usize * row_bytes, 0);
        read_at(reader, tensor, row * row_bytes as u64, &mut part)?;
        let importance = importance.map(|importance| {
            let expert = (row / rows_of_expert) as usize % (importance.len() / columns);
            &importance[expert * columns..][..columns]
        });
        let piece_bytes = row_bytes * (end - row).div_ceil(threads as u64) as usize;
        let results: Vec<Result<Vec<u8>, QuantError>> = std::thread::scope(|scope| {
            let pieces = part.chunks(piece_bytes).map(|piece| {
                scope.spawn(move || convert_rows(tensor.dtype, piece, dtype, columns, importance))
            });
            // Starts all threads before waiting for the first.
            let handles: Vec<_> = pieces.collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        for result in results {
            let blocks = result.map_err(|source| QuantizeError::Tensor {
                tensor: tensor.name.clone(),
                row,
                source,
            })?;
            stream.write(&blocks).map_err(QuantizeError::Write)?;
        }
        row = end;
    }
    Ok(())
}

/// Converts whole rows of blocks.
fn convert_rows(
    from: GgmlType,
    bytes: &[u8],
    to: GgmlType,
    columns: usize,
    importance: Option<&[f32]>,
) -> Result<Vec<u8>, QuantError> {
    let values = bytes.len() / from.block_bytes() as usize * from.block_len() as usize;
    let mut values = vec![0.0; values];
    dequantize(from, bytes, &mut values)?;
    let mut out = Vec::with_capacity(values.len() / to.block_len() as usize * to.block_bytes() as usize);
    quantize(to, &values, columns, importance, &mut out)?;
    Ok(out)
}

/// Reads bytes of a tensor from `at` on.
fn read_at<R: Read + Seek>(
    reader: &mut R,
    tensor: &TensorInfo,
    at: u64,
    into: &mut [u8],
) -> Result<(), QuantizeError> {
    let read = reader.seek(SeekFrom::Start(tensor.offset + at)).and_then(|_| reader.read_exact(into));
    read.map_err(|source| QuantizeError::Read { tensor: tensor.name.clone(), source })
}
