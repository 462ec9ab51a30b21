//! Source of a provider's keys: a file, or OpenID Connect Discovery 1.0.

use super::config::{JwtConfig, JwtConfigError, is_loopback_url, is_safe_url};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
#[cfg(feature = "tls")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use ureq::Agent;
#[cfg(feature = "tls")]
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Maximum bytes of a document.
const BYTES_MAX: u64 = 1 << 20;

/// Timeout of a request to the provider.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The source of a provider's keys.
pub(super) enum KeySource {
    File(PathBuf),
    Discovery { issuer: String, agent: Agent },
}

/// The used fields of a provider's metadata.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl KeySource {
    pub(super) fn new(config: &JwtConfig) -> Result<Self, JwtConfigError> {
        match &config.jwks_file {
            Some(path) => Ok(Self::File(path.clone())),
            None => Ok(Self::Discovery { issuer: config.issuer.clone(), agent: agent(config)? }),
        }
    }

    /// Reads the key set. Blocks for up to twenty seconds.
    ///
    /// # Errors
    ///
    /// Describes the problem and its location.
    pub(super) fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => {
                let read =
                    read_limited(File::open(path).map_err(|error| format!("{}: {error}", path.display()))?);
                read.map_err(|error| format!("{}: {error}", path.display()))
            }
            Self::Discovery { issuer, agent } => {
                let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
                let metadata: Metadata = serde_json::from_slice(&get(agent, &address)?)
                    .map_err(|error| format!("{address}: this is no metadata of a provider: {error}"))?;
                if metadata.issuer != *issuer {
                    return Err(format!("{address}: the issuer is '{}', not '{issuer}'", metadata.issuer));
                }
                let keys = metadata.jwks_uri;
                // A remote provider must not point the server to a service on its own machine.
                if !is_safe_url(&keys) || (is_loopback_url(&keys) && !is_loopback_url(issuer)) {
                    return Err(format!("{address}: jwks_uri '{keys}' does not begin with https://"));
                }
                get(agent, &keys)
            }
        }
    }
}

fn agent(config: &JwtConfig) -> Result<Agent, JwtConfigError> {
    let mut agent =
        Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0).max_redirects_will_error(true);
    #[cfg(feature = "tls")]
    if let Some(path) = &config.ca_file {
        let roots = read_roots(path).map_err(|problem| JwtConfigError::new("ca_file", problem))?;
        let roots = RootCerts::new_with_certs(&roots);
        agent = agent.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    if is_loopback_url(&config.issuer) {
        agent = agent.proxy(None);
    }
    Ok(agent.build().into())
}

fn get(agent: &Agent, address: &str) -> Result<Vec<u8>, String> {
    let at = |error: ureq::Error| format!("{address}: {error}");
    let response = agent.get(address).header("accept", "application/json").call().map_err(at)?;
    response.into_body().into_with_config().limit(BYTES_MAX).read_to_vec().map_err(at)
}

fn read_limited(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("the file has more than {BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// The certificates of a PEM file.
///
/// # Errors
///
/// Describes the problem and its location.
#[cfg(feature = "tls")]
pub(crate) fn read_roots(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let at = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    let pem = File::open(path).and_then(read_limited).map_err(|error| at(&error))?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| at(&error))? {
            roots.push(certificate);
        }
    }
    if roots.is_empty() { Err(at(&"the file has no certificate")) } else { Ok(roots) }
}
