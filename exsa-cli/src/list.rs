//! `exsa list`: downloaded models.

use crate::args::ListArgs;
use crate::error::CliError;
use crate::hub;
use crate::output::bytes;
use serde_json::json;
use std::io::Write;
use std::time::UNIX_EPOCH;

/// Runs the command.
pub(crate) fn list(args: &ListArgs) -> Result<(), CliError> {
    let hub = hub::cache()?;
    let models = hub.models();
    let mut out = std::io::stdout().lock();
    if args.json {
        let models: Vec<_> = models
            .iter()
            .map(|model| {
                let modified = model.modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                json!({
                    "source": model.source,
                    "quantization": model.quant,
                    "bytes": model.bytes,
                    "files": model.files,
                    "modified": modified.map(|time| time.as_secs()),
                })
            })
            .collect();
        return Ok(writeln!(out, "{}", json!(models))?);
    }
    if models.is_empty() {
        eprintln!(
            "There are no models in {}. Download one: exsa pull hf:OWNER/REPO:QUANT",
            hub.cache().display()
        );
        return Ok(());
    }
    let width = models.iter().map(|model| model.source.chars().count()).max().unwrap_or(0).max(6);
    writeln!(out, "{:<width$} {:>10}", "source", "size")?;
    for model in models {
        writeln!(out, "{:<width$} {:>10}", model.source, bytes(model.bytes))?;
    }
    Ok(())
}
