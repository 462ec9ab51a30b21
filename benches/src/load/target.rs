//! Whatever answers requests.

use crate::error::BenchError;
use crate::load::answer::Tokens;
use crate::load::http::Server;
use crate::load::in_process::InProcess;
use crate::load::options::LoadGenOptions;
use crate::load::workload::Planned;

/// Something that answers requests, from many threads at a time.
pub trait Target: Sync {
    /// Its name in the results.
    fn name(&self) -> &str;

    /// Sends `request`, calls `piece` whenever a piece of the answer's text comes, and gives what it took.
    ///
    /// A target whose answer does not have exactly the tokens asked for has to return an error: answers of other lengths could
    /// not be compared.
    fn answer(&self, request: &Planned, piece: &mut dyn FnMut()) -> Result<Tokens, BenchError>;
}

/// All that `options` name, engines first.
pub fn all(options: &LoadGenOptions) -> Result<Vec<Box<dyn Target>>, BenchError> {
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    for backend in &options.engine {
        targets.push(Box::new(InProcess::start(options, backend)?));
    }
    for (name, url) in &options.http {
        targets.push(Box::new(Server::new(name.clone(), url.clone(), options)));
    }
    if targets.is_empty() { Err(BenchError::NoTarget) } else { Ok(targets) }
}
