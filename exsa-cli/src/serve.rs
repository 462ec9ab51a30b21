//! `exsa serve`: the server, with a model that is fetched first where it has to be.

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

/// The file of a source: from the cache, without a network, or else fetched.
fn fetched(name: &str, allow_http: bool) -> Result<PathBuf, CliError> {
    let source: Source = name.parse()?;
    if let Ok(cached) = hub::cache()?.cached(&source) {
        return Ok(cached.model);
    }
    // Ctrl-C ends the program, as the server sets handlers of its own later; the download can be continued
    // all the same.
    Ok(pull::fetch(&hub::default(allow_http)?, &source, &Cancel::new())?.model)
}
