//! Loads models with llama.cpp, or only their sizes.

use crate::device;
use crate::ffi::{self, Model, ModelSettings, Weights};
use crate::header_check;
use crate::options::ModelOptions;
use crate::source::{Bytes, Checked};
use exsa_core::backend::{LoadOptions, LoadProgress};
use exsa_core::error::LoadError;

/// Loads the model `checked`.
pub(crate) fn load(
    checked: &Checked<'_>,
    model_options: &ModelOptions,
    options: &LoadOptions,
    progress: &mut LoadProgress<'_>,
) -> Result<Model, LoadError> {
    open(checked, model_options, options, progress, false)
}

/// Sizes the model `checked` without allocating or reading its weights: only contexts for measuring can be
/// created from it.
pub(crate) fn dry_run(
    checked: &Checked<'_>,
    model_options: &ModelOptions,
    options: &LoadOptions,
) -> Result<Model, LoadError> {
    open(checked, model_options, options, &mut LoadProgress::none(), true)
}

fn open(
    checked: &Checked<'_>,
    model_options: &ModelOptions,
    options: &LoadOptions,
    progress: &mut LoadProgress<'_>,
    dry_run: bool,
) -> Result<Model, LoadError> {
    instruction_set()?;
    header_check::check(&checked.gguf)?;
    ffi::init();
    let devices = device::choose(options.device.as_deref())?;
    let bytes = checked.info.weights_bytes;
    progress.report(0, bytes)?;
    let settings = ModelSettings {
        options: model_options,
        devices: devices.as_deref(),
        overrides: &checked.overrides,
        bytes,
        dry_run,
    };
    let weights = match &checked.bytes {
        Bytes::Files(paths) => Weights::Files(paths),
        Bytes::Memory(bytes) => Weights::Memory(bytes),
    };
    let model = Model::load(&weights, &settings, progress).map_err(|error| explain(error, checked))?;
    refuse_unsupported(&model, &checked.info.architecture)?;
    Ok(model)
}

/// Converts llama.cpp's log of a failure to one of core's errors, if it is a known one.
fn explain(error: LoadError, checked: &Checked<'_>) -> LoadError {
    match error {
        LoadError::Backend(text) if text.contains("unknown model architecture") => LoadError::Unsupported {
            what: format!("architecture {}", checked.info.architecture),
            supported: format!("those of llama.cpp {}", ffi::version()),
        },
        LoadError::Backend(text) if text.is_empty() => {
            LoadError::Backend("llama.cpp could not load the model and gave no reason".to_owned())
        }
        other => other,
    }
}

/// Refuses models that do not generate token by token.
fn refuse_unsupported(model: &Model, architecture: &str) -> Result<(), LoadError> {
    let what = match model.parts() {
        (true, true) => "an encoder before its decoder",
        _ if model.is_diffusion() => "diffusion",
        _ => return Ok(()),
    };
    Err(LoadError::Unsupported {
        what: format!("{architecture}, a model with {what}"),
        supported: "models that continue a text or compute embeddings of it".to_owned(),
    })
}

/// Refuses processors without the instructions that llama.cpp was compiled for, beyond those of the Rust
/// target.
fn instruction_set() -> Result<(), LoadError> {
    #[cfg(all(target_arch = "x86_64", not(feature = "dynamic-backends")))]
    {
        use std::arch::is_x86_feature_detected as has;
        let all = has!("avx2") && has!("fma") && has!("f16c") && has!("bmi2");
        if !all {
            return Err(LoadError::Unsupported {
                what: "this processor".to_owned(),
                supported: "AVX2, FMA, F16C and BMI2, or a build with the feature dynamic-backends"
                    .to_owned(),
            });
        }
    }
    Ok(())
}
