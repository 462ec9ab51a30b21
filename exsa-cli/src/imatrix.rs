//! `exsa imatrix`: an importance matrix, as llama.cpp's `llama-imatrix` computes it.

use crate::args::ImatrixArgs;
use crate::chunks::{self, Chunks};
use crate::error::CliError;
use crate::model;
use exsa::candle::{Calibration, CandleBackend};
use exsa::core::backend::{LoadOptions, LoadProgress, SessionOptions, ThreadOptions};
use exsa::core::tokenizer::{EncodeOptions, encode_prompt};
use exsa_quant::{CalibrationText, ImportanceMatrix};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a program that was ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Runs the command.
pub(crate) fn imatrix(args: &ImatrixArgs) -> Result<(), CliError> {
    if args.output.exists() {
        let path = args.output.display();
        return Err(CliError::Usage(format!("{path} already exists; choose another name (-o)")));
    }
    let text = chunks::read(args.file.as_deref())?;
    let part = part_of(&args.output);
    let stop = stop_on_interrupt(part.clone())?;
    let mut calibration = load(args)?;
    let tokens = encode_prompt(calibration.tokenizer(), &text, &EncodeOptions::default());
    let special = calibration.tokenizer().special();
    let chunks = Chunks {
        size: chunks::size(args.context, calibration.info())?,
        // The first token of each chunk is replaced by BOS.
        bos: special.bos.filter(|_| special.add_bos),
        tokens: &tokens,
        max: args.chunks.map_or(usize::MAX, usize::from),
    };
    if chunks.count() == 0 {
        let (found, size) = (tokens.len(), chunks.size);
        return Err(CliError::Usage(format!(
            "the text has {found} tokens; at least {size} are needed, one chunk (--context)"
        )));
    }
    // Written to a temporary name, so that an incomplete file never looks complete; created before the work,
    // so that a missing permission is reported at once.
    let file = File::create(&part).map_err(|error| CliError::file(&part, error))?;
    let done = compute(&mut calibration, &chunks, &stop).and_then(|done| {
        if done > 0 {
            write(&calibration, &text_of(args, done, chunks.size), file, &part, &args.output)?;
        }
        Ok(done)
    });
    if !matches!(done, Ok(done) if done > 0) {
        // An empty file is useless.
        let _ = std::fs::remove_file(&part);
    }
    let (done, matrices) = (done?, calibration.sums().count());
    if done < chunks.count() {
        let kept = if done > 0 { format!("; {} has them", args.output.display()) } else { String::new() };
        eprintln!("exsa: stopped after {done} of {} chunks{kept}", chunks.count());
        return Err(CliError::Interrupted);
    }
    println!("{matrices} matrices over {done} chunks of {} tokens: {}", chunks.size, args.output.display());
    Ok(())
}

fn load(args: &ImatrixArgs) -> Result<Calibration, CliError> {
    let source = model::source(&args.model)?;
    let threads = ThreadOptions::new(args.threads);
    let load = LoadOptions::new().device("cpu").threads(threads);
    let options = SessionOptions::new()
        .context_tokens(args.context.get())
        .kv_type(model::kv_type(&args.kv_type)?)
        .threads(threads);
    let calibration = CandleBackend::new().calibration(&source, &load, &options, &mut LoadProgress::none());
    let calibration = calibration.map_err(|error| CliError::Other(format!("{}: {error}", args.model)))?;
    Ok(calibration.output(args.process_output))
}

/// Computes chunks until the end or Ctrl-C. Returns their number.
fn compute(calibration: &mut Calibration, chunks: &Chunks<'_>, stop: &AtomicBool) -> Result<usize, CliError> {
    let bar = ProgressBar::with_draw_target(Some(chunks.count() as u64), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} chunk {pos}/{len} {eta} left") {
        bar.set_style(style);
    }
    let mut done = 0;
    while done < chunks.count() && !stop.load(Ordering::Relaxed) {
        let added = calibration.add(&chunks.tokens(done));
        added.map_err(|error| CliError::Other(format!("chunk {}: {error}", done + 1)))?;
        done += 1;
        bar.set_position(done as u64);
    }
    bar.finish_and_clear();
    Ok(done)
}

/// The first Ctrl-C stops after the current chunk; the second removes `part` and exits.
fn stop_on_interrupt(part: PathBuf) -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::<AtomicBool>::default();
    let stopped = stop.clone();
    let handler = move || {
        if stopped.swap(true, Ordering::Relaxed) {
            let _ = std::fs::remove_file(&part);
            std::process::exit(INTERRUPTED);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| CliError::Other(format!("Ctrl-C: {error}")))?;
    Ok(stop)
}

fn part_of(output: &Path) -> PathBuf {
    let mut part = output.to_owned().into_os_string();
    part.push(".part");
    part.into()
}

fn text_of(args: &ImatrixArgs, chunks: usize, size: usize) -> CalibrationText {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let text = CalibrationText::new(number(chunks), number(size));
    match &args.file {
        Some(path) => text.name(path.to_string_lossy()),
        None => text,
    }
}

/// Writes the matrix to `part` and renames it.
fn write(
    calibration: &Calibration,
    text: &CalibrationText,
    file: File,
    part: &Path,
    output: &Path,
) -> Result<(), CliError> {
    let mut matrix = ImportanceMatrix::new();
    for sums in calibration.sums() {
        let means = sums.squares.iter().map(|sum| (sum / sums.rows.max(1) as f64) as f32);
        matrix.insert(&sums.weight, means.collect()).map_err(|error| CliError::Other(error.to_string()))?;
    }
    let mut writer = BufWriter::new(file);
    let written = matrix.to_gguf(text).write(&mut writer).and_then(|()| writer.flush());
    let synced = written.and_then(|()| writer.get_ref().sync_all());
    synced.map_err(|error| CliError::file(part, error))?;
    std::fs::rename(part, output).map_err(|error| CliError::file(output, error))
}
