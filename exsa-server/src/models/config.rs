//! The section `[models]` of the configuration file.

use super::catalog::Models;
use super::draft::DraftEntry;
use super::name;
use super::packed_place::PackedPlace;
use super::remote::RemoteEntry;
use super::units;
use crate::config::Problems;
use exsa_core::backend::{InferenceBackend, KvType, ModelSource, PackedCheck, WeightPages};
use exsa_core::error::LoadError;
use exsa_core::scripted::{ScriptedBackend, ScriptedModel};
use exsa_core::speculate::SpeculationMode;
use exsa_core::{EngineOptions, Mode};
use serde::de::value::{Error as ValueError, MapAccessDeserializer};
use serde::de::{Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The section `[models]`: folders, memory, and a table per model.
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
    /// Folders from which models may be loaded. Without folders, only files named by tables can be loaded.
    pub folders: Vec<PathBuf>,
    /// Whether GGUF files in the folders are models without a table, named by their path in the folder
    /// without `.gguf`.
    pub discover: bool,
    /// Maximum estimated bytes of all models together; no limit by default.
    pub memory: Option<u64>,
    /// Whether a request for an unloaded model starts its load.
    pub load_on_request: bool,
    /// Maximum time for which a request waits for its model to load; without it, such requests are refused
    /// with 503 and `Retry-After`.
    pub load_wait: Option<Duration>,
    /// Share of their speed that running streams keep while a model loads, 0 to 0.99; by default loads run at
    /// full speed.
    pub keep_streams: Option<f32>,
    /// Time without requests after which a model is put to sleep, unless its table overrides it; never by
    /// default.
    pub idle_timeout: Option<Duration>,
    /// Location of packed files: weights in the backend's layout, which later loads and worker processes map;
    /// off by default.
    pub packed_cache: PackedPlace,
    /// Model for requests without a model name. By default, the first model that becomes ready.
    pub active: Option<String>,
    /// The models by name: the tables `[models.NAME]`.
    pub models: BTreeMap<String, ModelEntry>,
}

impl ModelsConfig {
    /// Adds the model of a file besides the tables, loaded at start, named by the file's metadata or name.
    /// Folders do not restrict it.
    ///
    /// # Errors
    ///
    /// The reason why the file cannot be loaded.
    pub fn with_file(mut self, path: &Path, backend: &dyn InferenceBackend) -> Result<Self, LoadError> {
        let info = backend.inspect(&ModelSource::file(path))?;
        let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        let name = name::from_text(&info.name).or_else(|| name::from_text(stem));
        let entry = ModelEntry {
            path: Some(path.to_owned()),
            trusted: true,
            load: Some(true),
            ..ModelEntry::default()
        };
        self.models.entry(name.unwrap_or_else(|| "model".to_owned())).or_insert(entry);
        Ok(self)
    }

    /// Reports invalid settings.
    pub(crate) fn validate(&self, speculation: SpeculationMode, problems: &mut Problems) {
        // Stands in for the server's backend; a check loads nothing.
        let backend = Arc::new(ScriptedBackend::new(ScriptedModel::echo("")));
        let options = EngineOptions::default().speculation(speculation);
        if let Err(error) = Models::prepare(self, backend, options) {
            problems.add(format!("models.{}", error.field()), error.problem());
        }
    }

    /// Returns whether settings that a running server cannot change equal those of `other`.
    pub(crate) fn is_live_change_of(&self, other: &Self) -> bool {
        let fixed = |config: &Self| {
            let Self { folders, discover, memory, load_on_request, .. } = config.clone();
            (folders, discover, memory, load_on_request, config.load_wait, config.keep_streams)
        };
        fixed(self) == fixed(other)
    }
}

/// A model's table. Absent settings default to the engine's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelEntry {
    /// The GGUF file: absolute, or relative to one of the folders; `NAME.gguf` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Whether the file may be outside the folders; only for files of the command line.
    #[serde(skip)]
    pub(super) trusted: bool,
    /// Whether the model is the built-in one instead of a file.
    pub builtin: bool,
    /// Aliases in requests.
    pub aliases: Vec<String>,
    /// Whether the model is loaded at start; true by default unless `load_on_request` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<bool>,
    /// Whether the model is exempt from eviction and idle sleep.
    pub pinned: bool,
    /// Time without requests after which the model is put to sleep.
    #[serde(with = "units::duration", skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Scheduler mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Target inter-token latency of the balanced mode.
    #[serde(with = "units::duration", skip_serializing_if = "Option::is_none")]
    pub inter_token_target: Option<Duration>,
    /// Time without service after which a class gets one turn before more urgent classes.
    #[serde(with = "units::duration", skip_serializing_if = "Option::is_none")]
    pub ageing: Option<Duration>,
    /// Maximum concurrent sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequences: Option<NonZeroUsize>,
    /// Maximum tokens in one sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<NonZeroUsize>,
    /// Compute threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroUsize>,
    /// Maximum waiting requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<NonZeroUsize>,
    /// Maximum waiting requests per user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_queue: Option<NonZeroUsize>,
    /// Element type of cached keys: f32, f16, bf16, q8_0, q4_0.
    #[serde(with = "kv_type", skip_serializing_if = "Option::is_none")]
    pub key_type: Option<KvType>,
    /// Element type of cached values.
    #[serde(with = "kv_type", skip_serializing_if = "Option::is_none")]
    pub value_type: Option<KvType>,
    /// Maximum bytes of the KV cache.
    #[serde(with = "units::bytes", skip_serializing_if = "Option::is_none")]
    pub kv_bytes: Option<u64>,
    /// LoRA adapters loaded with the model, by name: GGUF files or PEFT folders.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub adapters: BTreeMap<String, PathBuf>,
    /// Maximum loaded adapters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapters_max: Option<NonZeroUsize>,
    /// Maximum bytes of all adapters in memory.
    #[serde(with = "units::bytes", skip_serializing_if = "Option::is_none")]
    pub adapter_bytes: Option<u64>,
    /// Maximum rank of an adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_rank: Option<NonZeroUsize>,
    /// A draft model: the table `[models.NAME.draft]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<DraftEntry>,
    /// A file with a chat template (Jinja) that replaces the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<PathBuf>,
    /// Name of a chat template: one of the model, or a built-in one such as `chatml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template_name: Option<String>,
    /// Metadata in place of the file's, each `KEY=TYPE:VALUE` with the types int, float, bool and str.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub override_kv: Vec<String>,
    /// Location of the model's packed file, overriding that of all models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed_cache: Option<PackedPlace>,
    /// Memory of weights from a packed file: `shared` (default) or `huge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed_pages: Option<WeightPages>,
    /// When checksums of a packed file are checked: `header` (default), `load` or `background`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed_check: Option<PackedCheck>,
    /// Number of worker processes for the model, instead of an engine in the server's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<NonZeroUsize>,
    /// Maximum private memory of each worker in bytes, without shared pages.
    #[serde(with = "units::bytes", skip_serializing_if = "Option::is_none")]
    pub worker_memory: Option<u64>,
    /// Remote engines for the model, instead of a local engine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remote: Vec<RemoteEntry>,
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

/// Element types of a cache by their names.
mod kv_type {
    use super::*;

    pub(super) fn serialize<S: Serializer>(kv_type: &Option<KvType>, to: S) -> Result<S::Ok, S::Error> {
        kv_type.map(KvType::name).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<KvType>, D::Error> {
        let name = String::deserialize(from)?;
        let unknown = || D::Error::custom(format!("'{name}' is not one of f32, f16, bf16, q8_0, q4_0"));
        KvType::from_name(&name).map(Some).ok_or_else(unknown)
    }
}

/// A key of the table `[models]`.
enum Key {
    Setting(Setting),
    Model(String),
}

/// The settings of the table `[models]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Setting {
    Folders,
    Discover,
    Memory,
    LoadOnRequest,
    LoadWait,
    KeepStreams,
    IdleTimeout,
    PackedCache,
    Active,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let key = String::deserialize(from)?;
        if let Ok(setting) =
            Setting::deserialize(key.as_str().into_deserializer()).map_err(|_: ValueError| ())
        {
            return Ok(Self::Setting(setting));
        }
        match name::check(&key) {
            Ok(()) => Ok(Self::Model(key)),
            Err(problem) => Err(D::Error::custom(format!("model name '{key}': {problem}"))),
        }
    }
}

/// A model's table; unlike the derived deserializer, refuses a list of values.
struct Table(ModelEntry);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Table;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "the table of a model, or one of the settings folders, discover, memory, load_on_request, \
                     load_wait, keep_streams, idle_timeout, packed_cache, active",
                )
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table, A::Error> {
                ModelEntry::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }
        from.deserialize_map(Read)
    }
}

/// A duration or a size as the value of a key.
struct Seconds(Option<Duration>);
struct Bytes(Option<u64>);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        units::duration::deserialize(from).map(Self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        units::bytes::deserialize(from).map(Self)
    }
}

/// Settings and model tables share one TOML table. It is read key by key, not with `flatten`, so that errors
/// keep their line.
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
                while let Some(key) = map.next_key::<Key>()? {
                    let setting = match key {
                        Key::Setting(setting) => setting,
                        Key::Model(name) => {
                            let Table(entry) = map.next_value()?;
                            config.models.insert(name, entry);
                            continue;
                        }
                    };
                    match setting {
                        Setting::Folders => config.folders = map.next_value()?,
                        Setting::Discover => config.discover = map.next_value()?,
                        Setting::Memory => config.memory = map.next_value::<Bytes>()?.0,
                        Setting::LoadOnRequest => config.load_on_request = map.next_value()?,
                        Setting::LoadWait => config.load_wait = map.next_value::<Seconds>()?.0,
                        Setting::KeepStreams => config.keep_streams = Some(map.next_value()?),
                        Setting::IdleTimeout => config.idle_timeout = map.next_value::<Seconds>()?.0,
                        Setting::PackedCache => config.packed_cache = map.next_value()?,
                        Setting::Active => config.active = Some(map.next_value()?),
                    }
                }
                Ok(config)
            }
        }
        from.deserialize_map(Read)
    }
}

impl Serialize for ModelsConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        /// Only the settings, in the form in which they are read.
        #[derive(Serialize)]
        struct Settings<'a> {
            folders: &'a [PathBuf],
            discover: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            memory: Option<u64>,
            load_on_request: bool,
            #[serde(with = "units::duration", skip_serializing_if = "Option::is_none")]
            load_wait: Option<Duration>,
            #[serde(skip_serializing_if = "Option::is_none")]
            keep_streams: Option<f32>,
            #[serde(with = "units::duration", skip_serializing_if = "Option::is_none")]
            idle_timeout: Option<Duration>,
            #[serde(skip_serializing_if = "Option::is_none")]
            active: Option<&'a str>,
            #[serde(flatten)]
            models: &'a BTreeMap<String, ModelEntry>,
        }
        let Self { folders, discover, memory, load_on_request, .. } = self;
        let Self { load_wait, keep_streams, idle_timeout, active, models, .. } = self;
        let settings = Settings {
            folders,
            discover: *discover,
            memory: *memory,
            load_on_request: *load_on_request,
            load_wait: *load_wait,
            keep_streams: *keep_streams,
            idle_timeout: *idle_timeout,
            active: active.as_deref(),
            models,
        };
        settings.serialize(to)
    }
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
        assert_eq!(read(serde_json::to_value(&config).unwrap()).unwrap(), config);
        assert_eq!(read(json!({})).unwrap(), ModelsConfig::default());
    }

    #[test]
    fn errors_name_the_setting_and_what_is_allowed() {
        for (value, words) in [
            (json!({"folder": ["a"]}), "one of the settings folders"),
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
