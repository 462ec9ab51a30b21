//! `exsa quantize`: quantizes a model.

use crate::args::QuantizeArgs;
use crate::error::CliError;
use crate::model;
use crate::output::bytes;
use exsa_quant::{ImportanceMatrix, Mixture, QuantizeOptions, quantize_gguf};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::BufWriter;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// Runs the command.
pub(crate) fn quantize(args: &QuantizeArgs) -> Result<(), CliError> {
    let mixture = Mixture::from_name(&args.mixture).ok_or_else(|| {
        let names: Vec<_> = Mixture::all().map(Mixture::name).collect();
        CliError::Usage(format!("unknown mixture '{}'; allowed are {}", args.mixture, names.join(", ")))
    })?;
    let mut options = QuantizeOptions::new(mixture).pure(args.pure).allow_requantize(args.allow_requantize);
    if let Some(threads) = args.threads {
        options = options.threads(threads.into());
    }
    if let Some(path) = &args.importance {
        let mut file = File::open(path).map_err(|error| CliError::file(path, error))?;
        let importance = ImportanceMatrix::read(&mut file).map_err(|error| CliError::file(path, error))?;
        options = options.importance(importance);
    }
    let input = model::file(&args.input)?;
    let mut reader = File::open(&input).map_err(|error| CliError::file(&input, error))?;
    // Written to a temporary name, so that an interrupted run leaves no file that looks complete.
    let mut part = args.output.clone().into_os_string();
    part.push(".part");
    let part = std::path::PathBuf::from(part);
    let writer = create(&args.output, &part)?;
    let begun = Instant::now();
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {eta} {msg}") {
        bar.set_style(style);
    }
    let result = quantize_gguf(&mut reader, BufWriter::new(writer), &options, |progress| {
        bar.set_length(progress.bytes);
        bar.set_position(progress.bytes_done);
        bar.set_message(format!("{} {}", progress.tensor, progress.dtype.name()));
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    let summary = result.map_err(|error| CliError::file(&input, error)).and_then(|summary| {
        std::fs::rename(&part, &args.output).map_err(|error| CliError::file(&args.output, error))?;
        Ok(summary)
    });
    let summary = summary.inspect_err(|_| {
        // An incomplete file is useless.
        let _ = std::fs::remove_file(&part);
    })?;
    println!(
        "{} tensors quantized ({} without importance): {}, before {}; {:.1?}",
        summary.converted,
        summary.without_importance,
        bytes(summary.bytes_after),
        bytes(summary.bytes_before),
        begun.elapsed(),
    );
    Ok(())
}

fn create(output: &Path, part: &Path) -> Result<File, CliError> {
    if output.exists() {
        return Err(CliError::Usage(format!("{} already exists; choose another name", output.display())));
    }
    File::create(part).map_err(|error| CliError::file(part, error))
}
