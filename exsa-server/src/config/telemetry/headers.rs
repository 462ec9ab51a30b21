//! Export headers. Their values are secret and appear in no error or log.

use super::TelemetryConfig;
use super::environment::{self, Read};
use axum::http::{HeaderName, HeaderValue};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Maximum bytes of a header file.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Variables with headers, used if the file names no other source.
const VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];

/// Reads the headers of the configured source; the last of duplicate names counts.
///
/// # Errors
///
/// The setting and the problem, without values.
pub(super) fn read(
    config: &TelemetryConfig,
    variables: Read<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, (&'static str, String)> {
    match (&config.headers_file, &config.headers_env) {
        (Some(_), Some(_)) => {
            Err(("headers_env", "'headers_file' is set too; allowed is one of the two".into()))
        }
        (Some(path), None) => {
            of_file(path).map_err(|problem| ("headers_file", format!("{}: {problem}", path.display())))
        }
        (None, Some(name)) => {
            let list = variables(name)
                .ok_or_else(|| ("headers_env", format!("the environment variable {name} is not set")))?;
            of_list(&list).map_err(|problem| ("headers_env", format!("{name}: {problem}")))
        }
        (None, None) => match environment::first(variables, &VARIABLES) {
            Some((name, list)) => {
                of_list(&list).map_err(|problem| ("headers_env", format!("{name}: {problem}")))
            }
            None => Ok(Vec::new()),
        },
    }
}

fn of_file(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| format!("the file cannot be read: {error}"))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file has more than {FILE_BYTES_MAX} bytes"));
    }
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(i, line)| {
            let allowed = || format!("line {} is no header; allowed are lines 'name: value'", i + 1);
            let (name, value) = line.split_once(':').ok_or_else(allowed)?;
            header(name.trim(), value.trim()).ok_or_else(allowed)
        })
        .collect()
}

fn of_list(list: &str) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let allowed = "allowed is name=value,name=value with percent-encoded values";
    let pairs = environment::pairs(list).map_err(|problem| format!("{problem}; {allowed}"))?;
    let header = |(i, (name, value)): (usize, (String, String))| {
        header(&name, &value).ok_or_else(|| format!("pair {} is no header; {allowed}", i + 1))
    };
    pairs.into_iter().enumerate().map(header).collect()
}

fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
}
