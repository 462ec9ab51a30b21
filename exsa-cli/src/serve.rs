//! `exsa serve`: the server; downloads the model first if necessary.

use crate::args::ServeArgs;
use crate::error::CliError;
use crate::{ended, hub, model, pull};
use exsa_hub::{Cancel, Source};
use std::path::PathBuf;

/// Runs the command.
pub(crate) fn serve(args: ServeArgs) -> Result<(), CliError> {
    let ServeArgs { source, allow_http, mut server } = args;
    let named = source.or_else(|| server.model()?.to_str().map(str::to_owned));
    match named.filter(|name| name != model::BUILTIN) {
        Some(name) if Source::is_remote(&name) && server.serves() => {
            server = server.with_model(fetched(&name, allow_http)?);
        }
        Some(name) if Source::is_remote(&name) => {}
        Some(name) => server = server.with_model(name),
        None => {}
    }
    ended(exsa_server::cli::run(&server))
}

/// Returns the file of a source: cached, or else downloaded.
fn fetched(name: &str, allow_http: bool) -> Result<PathBuf, CliError> {
    let source: Source = name.parse()?;
    if let Ok(cached) = hub::cache()?.cached(&source) {
        return Ok(cached.model);
    }
    // Ctrl-C ends the program here, since the server installs its handlers later; the download can be
    // continued.
    Ok(pull::fetch(&hub::default(allow_http)?, &source, &Cancel::new())?.model)
}
