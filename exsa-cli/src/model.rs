//! Models by name: files, downloaded models, and the built-in model.

use crate::args::EngineArgs;
use crate::error::CliError;
use crate::hub;
use exsa::core::gguf::{GgmlType, Gguf};
use exsa::core::model_file::ModelFile;
use exsa::{Engine, EngineBuilder, InferenceBackend, KvType, ModelSource};
use exsa_hub::Source;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Name of the built-in model.
pub(crate) const BUILTIN: &str = "builtin";

/// Delay of the progress bar: small models load faster.
const BAR_AFTER: Duration = Duration::from_millis(300);

/// Resolves a model name of the command line.
pub(crate) fn source(name: &str) -> Result<ModelSource, CliError> {
    if name == BUILTIN {
        return Ok(exsa::tiny::GGUF.into());
    }
    Ok(file(name)?.into())
}

/// Resolves a model name of the command line to a file: a path, or the source of a downloaded model.
pub(crate) fn file(name: &str) -> Result<PathBuf, CliError> {
    if Source::is_remote(name) {
        return Ok(hub::cache()?.cached(&name.parse()?)?.model);
    }
    let path = PathBuf::from(name);
    if !path.exists() {
        return Err(CliError::Other(format!(
            "there is no file '{name}'; a model is a GGUF file, a fetched one such as hf:OWNER/REPO:QUANT (exsa pull \
             fetches, exsa list lists them), or '{BUILTIN}' for the model inside this program"
        )));
    }
    Ok(path)
}

/// Reads the header of a model.
pub(crate) fn header(name: &str) -> Result<Gguf, CliError> {
    let file =
        ModelFile::open(&source(name)?).map_err(|error| CliError::Other(format!("{name}: {error}")))?;
    Ok(file.gguf().clone())
}

/// Creates a builder with the options of the command line.
pub(crate) fn builder(args: &EngineArgs) -> Result<EngineBuilder, CliError> {
    let mut builder = Engine::builder().threads(args.threads.map_or(0, usize::from));
    builder = match args.backend.as_deref() {
        None | Some("candle") => builder.backend(exsa::candle::CandleBackend::new()),
        #[cfg(feature = "llamacpp")]
        Some("llamacpp") => builder.backend(exsa::llamacpp::LlamaCppBackend::new()),
        Some(other) => return Err(no_backend(other)),
    };
    if let Some(device) = &args.device {
        builder = builder.device(device);
    }
    if let Some(tokens) = args.context {
        builder = builder.context_tokens(tokens.into());
    }
    if let Some(name) = &args.kv_type {
        builder = builder.kv_type(kv_type(name)?);
    }
    for item in &args.override_kv {
        builder = builder.metadata_override(&item.key, item.value.clone());
    }
    if let Some(name) = &args.quantize {
        let dtype = GgmlType::from_name(name);
        let unknown = || {
            CliError::Usage(format!("there is no type '{name}' of weights; there are Q8_0, Q4_K and others"))
        };
        builder = builder.quantize(dtype.ok_or_else(unknown)?);
    }
    Ok(builder)
}

/// Returns a backend by name.
pub(crate) fn backend(name: Option<&str>) -> Result<Box<dyn InferenceBackend>, CliError> {
    match name {
        None | Some("candle") => Ok(Box::new(exsa::candle::CandleBackend::new())),
        #[cfg(feature = "llamacpp")]
        Some("llamacpp") => Ok(Box::new(exsa::llamacpp::LlamaCppBackend::new())),
        Some(other) => Err(no_backend(other)),
    }
}

fn no_backend(name: &str) -> CliError {
    let names = if cfg!(feature = "llamacpp") { "candle, llamacpp" } else { "candle" };
    CliError::Usage(format!("unknown backend '{name}'; this build has: {names}"))
}

/// Parses an element type of the KV cache.
pub(crate) fn kv_type(name: &str) -> Result<KvType, CliError> {
    let types = [KvType::F32, KvType::F16, KvType::Q8_0];
    types
        .into_iter()
        .find(|kv_type| kv_type.name() == name)
        .ok_or_else(|| CliError::Usage(format!("unknown KV type '{name}'; allowed are f32, f16 and q8_0")))
}

/// Loads a model and starts an engine, with a progress bar on a terminal.
pub(crate) fn load(name: &str, builder: EngineBuilder) -> Result<Engine, CliError> {
    let source = source(name)?;
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("loading {bar:30} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let (begun, shown) = (Instant::now(), bar.clone());
    let builder = builder.progress(move |done, total| {
        if begun.elapsed() > BAR_AFTER {
            shown.set_length(total);
            shown.set_position(done);
        }
        true
    });
    let engine = builder.load(source);
    bar.finish_and_clear();
    engine.map_err(|error| CliError::Other(format!("{name}: {error}")))
}
