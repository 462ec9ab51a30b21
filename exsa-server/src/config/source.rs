//! Sources of a configuration, at start and at every reload: the file and the flags.

use super::problem::{ConfigError, Place, Problem, Problems};
use super::{Config, read};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Maximum bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Overrides settings; returns each setting with the flag that set it.
type Overrides = dyn Fn(&mut Config) -> Vec<(&'static str, &'static str)> + Send + Sync;

/// A configuration file with its overrides.
pub struct ConfigSource {
    file: Option<PathBuf>,
    overrides: Box<Overrides>,
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ConfigSource").field("file", &self.file).finish_non_exhaustive()
    }
}

impl ConfigSource {
    /// Creates a source; without a file, the defaults are used.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, overrides: Box::new(|_| Vec::new()) }
    }

    /// Sets a function that overrides settings after the file is read. It returns the settings that it has
    /// set, such as `listen.port`, each with the flag that errors should name.
    #[must_use]
    pub fn overrides(
        mut self,
        set: impl Fn(&mut Config) -> Vec<(&'static str, &'static str)> + Send + Sync + 'static,
    ) -> Self {
        self.overrides = Box::new(set);
        self
    }

    /// The file.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file and the overrides, and validates all values.
    ///
    /// # Errors
    ///
    /// All problems, with their locations. Files named by settings are checked too.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_with(|_, _| {})
    }

    /// Like [`load`](Self::load), with additional checks of files that a server could start without.
    ///
    /// # Errors
    ///
    /// All problems, with their locations.
    pub fn check(&self) -> Result<Config, ConfigError> {
        self.load_with(|config, problems| config.access.check_import(problems))
    }

    /// Like [`load`](Self::load), with further checks, which also run if other problems were found.
    ///
    /// # Errors
    ///
    /// All problems, with their locations.
    pub fn load_with(&self, check: impl FnOnce(&Config, &mut Problems)) -> Result<Config, ConfigError> {
        let text = match &self.file {
            Some(file) => read_text(file)?,
            None => String::new(),
        };
        self.read(&text, check)
    }

    fn read(&self, text: &str, check: impl FnOnce(&Config, &mut Problems)) -> Result<Config, ConfigError> {
        let (document, mut config, mut problems) = read::Document::parse::<Config>(text);
        let flags = (self.overrides)(&mut config);
        let mut invalid = Problems::default();
        config.validate(&mut invalid);
        check(&config, &mut invalid);
        let place = |setting: &str| {
            let flag = flags.iter().find(|(set, _)| *set == setting);
            flag.map_or_else(|| document.place(setting), |(_, flag)| Place::Flag(flag))
        };
        let invalid = invalid.found.into_iter();
        let invalid: Vec<_> =
            invalid.map(|problem| Problem { place: place(&problem.setting), ..problem }).collect();
        // Unreadable values have their defaults, whose problems do not concern the file.
        let unread = |problem: &Problem| problems.iter().any(|other| other.setting == problem.setting);
        let invalid: Vec<_> = invalid.into_iter().filter(|problem| !unread(problem)).collect();
        problems.extend(invalid);
        problems.sort_by_key(|problem| match &problem.place {
            Place::File { line, column, .. } => (*line, *column),
            _ => (usize::MAX, 0),
        });
        // Files that are read twice report their problems twice.
        problems.dedup();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(self.file(), problems)) }
    }
}

fn read_text(file: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| ConfigError::whole(Some(file), format!("the file cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::whole(
            Some(file),
            format!("the file is larger than {FILE_BYTES_MAX} bytes"),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(bytes);
        let message = "the text is not UTF-8".to_owned();
        let place = Place::of(&text, valid..valid + 1);
        ConfigError::new(Some(file), vec![Problem { setting: String::new(), message, place }])
    })
}
