//! The section `[models]` of the configuration file.

use super::name;
use super::units;
use exsa_core::Mode;
use exsa_core::backend::{InferenceBackend, KvType, ModelSource};
use exsa_core::error::LoadError;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The models of a server: folders, memory, and a table for each model.
///
/// ```
/// use exsa_server::models::ModelsConfig;
///
/// let config: ModelsConfig = serde_json::from_value(serde_json::json!({
///     "folders": ["/srv/models"],
///     "memory": "8 GiB",
///     "chat": {"path": "chat.gguf", "load": true, "aliases": ["default"]},
/// }))?;
/// assert_eq!(config.models["chat"].load, Some(true));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ModelsConfig {
    /// Folders from which models may be loaded. Without any, only the files that the tables name can be loaded.
    pub folders: Vec<PathBuf>,
    /// Whether GGUF files in the folders are models without a table, under their path in the folder less `.gguf`.
    pub discover: bool,
    /// Maximum bytes of all models together, by the backend's estimates; no limit by default.
    pub memory: Option<u64>,
    /// Whether a request for an unloaded model starts its load.
    pub load_on_request: bool,
    /// Maximum time for which a request waits for the load of its model; without it, such requests are refused with 503
    /// and `Retry-After`.
    pub load_wait: Option<Duration>,
    /// Share of their speed that running streams keep while a model loads, 0 to 0.99; loads run at full speed by
    /// default.
    pub keep_streams: Option<f32>,
    /// Time without requests after which a model is put to sleep, unless its table says otherwise; never by default.
    pub idle_timeout: Option<Duration>,
    /// Name of the model for requests that name none. Without it, the model that becomes ready first.
    pub active: Option<String>,
    /// The models by name: the tables `[models.NAME]`.
    pub models: BTreeMap<String, ModelEntry>,
}

impl ModelsConfig {
    /// The model of a file alone, loaded at start, under the name that the file gives it, or its own.
    ///
    /// # Errors
    ///
    /// The reason for which the file cannot be loaded.
    pub fn of_file(path: &Path, backend: &dyn InferenceBackend) -> Result<Self, LoadError> {
        let info = backend.inspect(&ModelSource::file(path))?;
        let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let name = name::from_text(&info.name).or_else(|| name::from_text(stem));
        let entry = ModelEntry { path: Some(path.to_owned()), load: Some(true), ..ModelEntry::default() };
        let models = BTreeMap::from([(name.unwrap_or_else(|| "model".to_owned()), entry)]);
        Ok(Self { models, ..Self::default() })
    }
}

/// A model's table. In place of settings that are absent, the engine's defaults hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelEntry {
    /// The GGUF file: absolute, or relative to one of the folders; `NAME.gguf` by default.
    pub path: Option<PathBuf>,
    /// Whether the model is the one inside the program, in place of a file.
    pub builtin: bool,
    /// Further names in requests.
    pub aliases: Vec<String>,
    /// Whether the model is loaded when the server starts; by default, unless `load_on_request` is set.
    pub load: Option<bool>,
    /// Whether the model is never evicted and never put to sleep for being idle.
    pub pinned: bool,
    /// Time without requests after which the model is put to sleep.
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Option<Duration>,
    /// What the scheduler optimizes.
    pub mode: Option<Mode>,
    /// Target inter-token latency of the balanced mode.
    #[serde(deserialize_with = "units::duration")]
    pub inter_token_target: Option<Duration>,
    /// Time without service after which a class gets one turn ahead of more urgent classes.
    #[serde(deserialize_with = "units::duration")]
    pub ageing: Option<Duration>,
    /// Maximum sequences that are generated at a time.
    pub sequences: Option<NonZeroUsize>,
    /// Maximum tokens in one sequence.
    pub context: Option<NonZeroUsize>,
    /// Threads that compute.
    pub threads: Option<NonZeroUsize>,
    /// Maximum requests that wait for a sequence.
    pub queue: Option<NonZeroUsize>,
    /// Maximum requests of one user that wait for a sequence.
    pub user_queue: Option<NonZeroUsize>,
    /// Element type of cached keys: f32, f16, bf16, q8_0, q4_0.
    #[serde(deserialize_with = "kv_type")]
    pub key_type: Option<KvType>,
    /// Element type of cached values.
    #[serde(deserialize_with = "kv_type")]
    pub value_type: Option<KvType>,
    /// Maximum bytes of the KV cache.
    #[serde(deserialize_with = "units::bytes")]
    pub kv_bytes: Option<u64>,
    /// A file with a chat template (Jinja) in place of the model's own.
    pub chat_template: Option<PathBuf>,
    /// Name of a chat template: one of the model, or a built-in one such as `chatml`.
    pub chat_template_name: Option<String>,
}

/// Settings of [`ModelEntry`] that a request to load or reload a model can change.
pub(super) const CHANGEABLE: [&str; 13] = [
    "pinned",
    "idle_timeout",
    "mode",
    "inter_token_target",
    "ageing",
    "sequences",
    "context",
    "threads",
    "queue",
    "user_queue",
    "key_type",
    "value_type",
    "kv_bytes",
];

fn kv_type<'de, D: Deserializer<'de>>(from: D) -> Result<Option<KvType>, D::Error> {
    let name = String::deserialize(from)?;
    let unknown = || D::Error::custom(format!("'{name}' is not one of f32, f16, bf16, q8_0, q4_0"));
    KvType::from_name(&name).map(Some).ok_or_else(unknown)
}

/// A wrapper for the settings whose form is not their type's own.
struct Seconds(Option<Duration>);
struct Bytes(Option<u64>);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        units::duration(from).map(Self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        units::bytes(from).map(Self)
    }
}

/// Settings and tables of models share one table. It is read key by key, not by `flatten`, so that errors keep their
/// line.
impl<'de> Deserialize<'de> for ModelsConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = ModelsConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("settings of all models, and a table for each model")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModelsConfig, A::Error> {
                let mut config = ModelsConfig::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "folders" => config.folders = map.next_value()?,
                        "discover" => config.discover = map.next_value()?,
                        "memory" => config.memory = map.next_value::<Bytes>()?.0,
                        "load_on_request" => config.load_on_request = map.next_value()?,
                        "load_wait" => config.load_wait = map.next_value::<Seconds>()?.0,
                        "keep_streams" => config.keep_streams = Some(map.next_value()?),
                        "idle_timeout" => config.idle_timeout = map.next_value::<Seconds>()?.0,
                        "active" => config.active = Some(map.next_value()?),
                        _ => {
                            name::check(&key).map_err(|problem| {
                                A::Error::custom(format!("model name '{key}': {problem}"))
                            })?;
                            let entry = map.next_value().map_err(|error| unknown_setting(&key, error))?;
                            config.models.insert(key, entry);
                        }
                    }
                }
                Ok(config)
            }
        }
        from.deserialize_map(Read)
    }
}

/// The error of a key that is neither a setting nor the name of a table.
fn unknown_setting<E: Error>(key: &str, error: E) -> E {
    if error.to_string().starts_with("invalid type") {
        return E::custom(format!(
            "'{key}' is neither a setting (folders, discover, memory, load_on_request, load_wait, keep_streams, \
             idle_timeout, active) nor the table of a model: {error}"
        ));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Result<ModelsConfig, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_and_tables_share_one_table() {
        let config = read(json!({
            "folders": ["a", "b"], "memory": "2 GiB", "keep_streams": 0.9, "load_wait": "30s", "idle_timeout": 60,
            "org/name": {"path": "x.gguf", "mode": "latency", "sequences": 4, "key_type": "q8_0", "ageing": "2s"},
        }));
        let config = config.unwrap();
        assert_eq!((config.memory, config.load_wait), (Some(2 << 30), Some(Duration::from_secs(30))));
        let entry = &config.models["org/name"];
        assert_eq!((entry.mode, entry.key_type), (Some(Mode::Latency), Some(KvType::Q8_0)));
        assert_eq!((entry.sequences.map(NonZeroUsize::get), entry.load), (Some(4), None));
        assert_eq!(read(json!({})).unwrap(), ModelsConfig::default());
    }

    #[test]
    fn errors_name_the_setting_and_what_is_allowed() {
        for (value, words) in [
            (json!({"folder": ["a"]}), "neither a setting"),
            (json!({"a b": {}}), "only letters"),
            (json!({"../x": {}}), "'..'"),
            (json!({"list": {}}), "/v1/models/"),
            (json!({"a": {"sequence": 1}}), "unknown field"),
            (json!({"a": {"sequences": 0}}), "nonzero"),
            (json!({"a": {"key_type": "f8"}}), "q8_0"),
            (json!({"a": {"mode": "fast"}}), "unknown variant"),
            (json!({"memory": "2 GiBs"}), "512 MiB"),
            (json!({"load_wait": -1}), "seconds"),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
