//! Presets: model, system prompt and settings in a TOML file.

use crate::error::CliError;
use crate::settings::Settings;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A preset.
///
/// ```toml
/// model = "SmolLM2-135M-Instruct-Q4_1.gguf"   # relative to the preset
/// system = "Answer in one sentence."
/// [settings]
/// temperature = 0.3
/// ```
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preset {
    model: Option<PathBuf>,
    /// System prompt.
    pub system: Option<String>,
    #[serde(default)]
    settings: serde_json::Map<String, serde_json::Value>,
}

impl Preset {
    /// Whether the name is a preset file.
    pub(crate) fn is_named(name: &str) -> bool {
        Path::new(name).extension().is_some_and(|extension| extension == "toml")
    }

    /// Reads a preset.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
        let mut preset: Self = toml::from_str(&text).map_err(|error| CliError::file(path, error))?;
        if let (Some(model), Some(folder)) = (&mut preset.model, path.parent())
            && model.as_os_str() != crate::model::BUILTIN
            && !model.to_str().is_some_and(exsa_hub::Source::is_remote)
        {
            *model = folder.join(&*model);
        }
        Ok(preset)
    }

    /// The model as it would be named on the command line.
    pub(crate) fn model(&self) -> Option<String> {
        self.model.as_ref().map(|path| path.to_string_lossy().into_owned())
    }

    /// The validated settings.
    pub(crate) fn settings(&self) -> Result<Settings, CliError> {
        Settings::from_json(self.settings.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_relative_to_the_preset() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        std::fs::write(&path, "model = \"m.gguf\"\nsystem = \"Be brief.\"\n[settings]\ntop_k = 5\n").unwrap();
        let preset = Preset::read(&path).unwrap();
        assert_eq!(preset.model().unwrap(), folder.path().join("m.gguf").to_str().unwrap());
        assert_eq!(preset.system.as_deref(), Some("Be brief."));
        assert!(preset.settings().is_ok());
        std::fs::write(&path, "model = \"hf:owner/repo:Q4_0\"\n").unwrap();
        assert_eq!(Preset::read(&path).unwrap().model().unwrap(), "hf:owner/repo:Q4_0");
        std::fs::write(&path, "modle = \"m.gguf\"\n").unwrap();
        let error = Preset::read(&path).unwrap_err().to_string();
        assert!(error.contains("p.toml") && error.contains("modle"), "{error}");
    }
}
