//! The hub with the options of the command line, and the cache alone.

use crate::args::PullArgs;
use crate::error::CliError;
use exsa_hub::{Hub, HubOptions, Token};

/// The hub of `exsa pull`.
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

/// The hub by the environment alone.
#[cfg(feature = "server")]
pub(crate) fn default(allow_http: bool) -> Result<Hub, CliError> {
    Ok(Hub::new(HubOptions::from_env()?.allow_http(allow_http))?)
}

/// The cache, without a network.
pub(crate) fn cache() -> Result<Hub, CliError> {
    Ok(Hub::new(HubOptions::from_env()?.offline(true))?)
}
