//! JSON files of a folder, read within limits, with errors that name file and key.

use serde_json::Value;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Maximum bytes of a configuration.
pub(super) const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Maximum bytes of `tokenizer.json`; that of a vocabulary of 256 Ki tokens has 33 MB.
pub(super) const TOKENIZER_BYTES_MAX: u64 = 128 << 20;

/// A JSON file, or an object in it.
#[derive(Clone, Debug)]
pub(super) struct Json {
    /// Name of the file, and the keys to the object.
    name: String,
    value: Value,
}

impl Json {
    /// Reads the file `name` in `folder`; `None` if there is none.
    pub(super) fn read(folder: &Path, name: &str, bytes_max: u64) -> Result<Option<Self>, String> {
        let Some(bytes) = read_file(folder, name, bytes_max)? else { return Ok(None) };
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| format!("{name} is no JSON: {error}"))?;
        if !value.is_object() {
            return Err(format!("{name} is no JSON object"));
        }
        Ok(Some(Self { name: name.to_owned(), value }))
    }

    /// The value of `key`; `None` if it is missing or null.
    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there, null or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    /// The object of `key`, if it is there.
    pub(super) fn object(&self, key: &str) -> Option<Self> {
        let value = self.value(key).filter(|value| value.is_object())?;
        Some(Self { name: format!("{}: {key}", self.name), value: value.clone() })
    }

    /// The text of `key`, if it is there.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.refuse(key, "a text is expected"))
    }

    /// The truth value of `key`, if it is there.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.refuse(key, "true or false is expected"))
    }

    /// The whole number of `key`, from 0 to 2³² − 1, if it is there.
    pub(super) fn size(&self, key: &str) -> Result<Option<u32>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| u32::try_from(size).ok());
        size.map(Some)
            .ok_or_else(|| self.refuse(key, &format!("a whole number from 0 to {} is expected", u32::MAX)))
    }

    /// The same, which must be there and at least 1.
    pub(super) fn required(&self, key: &str) -> Result<u32, String> {
        let size = self.size(key)?.filter(|size| *size > 0);
        size.ok_or_else(|| self.refuse(key, "a whole number from 1 on is needed"))
    }

    /// The number of `key`, finite in single precision, if it is there.
    pub(super) fn number(&self, key: &str) -> Result<Option<f32>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
        number.map(Some).ok_or_else(|| self.refuse(key, "a finite number is expected"))
    }

    /// The error about the value of `key`.
    pub(super) fn refuse(&self, key: &str, allowed: &str) -> String {
        format!("{}: {key} is {}; {allowed}", self.name, shown(self.value.get(key)))
    }
}

/// The bytes of the file `name` in `folder`; `None` if there is none.
pub(super) fn read_file(folder: &Path, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let file = match File::open(folder.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let len = file.metadata().map_err(failed)?.len();
    if len > bytes_max {
        return Err(format!("{name} has {len} bytes, but {bytes_max} are allowed"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("{name} has more than {bytes_max} bytes"));
    }
    Ok(Some(bytes))
}

/// A value for a message, shortened.
pub(super) fn shown(value: Option<&Value>) -> String {
    /// Characters of a value in a message.
    const SHOWN: usize = 80;
    let text = value.map_or_else(|| "missing".to_owned(), Value::to_string);
    let short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}
