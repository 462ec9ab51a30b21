//! The hub as configured by the command line or the environment.

use crate::args::PullArgs;
use crate::error::CliError;
use exsa_hub::{Hub, HubOptions, Token};

/// Creates the hub for `exsa pull`.
pub(crate) fn hub(args: &PullArgs) -> Result<Hub, CliError> {
    let mut options = HubOptions::from_env()?
        .revision(&args.revision)
        .projector(!args.no_projector)
        .parallel(args.parallel)
        .allow_http(args.allow_http);
    if let Some(path) = &args.token_file {
        options = options.token(Some(Token::read(path)?));
    }
    if let Some(endpoint) = &args.endpoint {
        options = options.endpoint(endpoint);
    }
    if args.offline {
        options = options.offline(true);
    }
    Ok(Hub::new(options)?)
}

/// Creates the hub with the options of the environment.
#[cfg(feature = "server")]
pub(crate) fn default(allow_http: bool) -> Result<Hub, CliError> {
    Ok(Hub::new(HubOptions::from_env()?.allow_http(allow_http))?)
}

/// Opens the cache, without network access.
pub(crate) fn cache() -> Result<Hub, CliError> {
    Ok(Hub::new(HubOptions::from_env()?.offline(true))?)
}
