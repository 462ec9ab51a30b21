//! Section `[tls]`: certificates.

use super::Problems;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The section `[tls]`: TLS on the TCP addresses, not on UNIX sockets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// PEM file with the server's certificate chain. Setting it enables TLS.
    pub cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    pub key: Option<PathBuf>,
    /// PEM file with the CA certificates for client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether clients must present a certificate.
    pub client_auth: ClientAuth,
}

/// Client certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientAuth {
    /// Not requested.
    #[default]
    None,
    /// Optional, but must be trusted if presented.
    Optional,
    /// Required and must be trusted.
    Required,
}

impl TlsConfig {
    /// Returns whether TLS is enabled.
    pub fn is_on(&self) -> bool {
        self.cert.is_some()
    }

    /// Reports invalid values.
    pub(super) fn validate(&self, problems: &mut Problems) {
        let given = [("cert", &self.cert), ("key", &self.key), ("client_ca", &self.client_ca)];
        if !cfg!(feature = "tls") {
            let names = given.iter().filter(|(_, path)| path.is_some()).map(|(name, _)| *name);
            let auth = (self.client_auth != ClientAuth::None).then_some("client_auth");
            if let Some(name) = names.chain(auth).next() {
                let message = "this exsa-server was built without TLS; build it with --features tls";
                problems.add(format!("tls.{name}"), message);
            }
            return;
        }
        let before = problems.found.len();
        for (name, path) in given {
            if let Some(path) = path {
                super::check_file(&format!("tls.{name}"), path, problems);
            }
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => problems.add("tls.cert", "a certificate needs 'key', the file with its key"),
            (None, Some(_)) => problems.add("tls.key", "a key needs 'cert', the file with its certificate"),
            _ => {}
        }
        if self.client_auth != ClientAuth::None && self.client_ca.is_none() {
            problems.add(
                "tls.client_auth",
                "certificates of clients need 'client_ca', the file with those trusted",
            );
        } else if self.client_auth == ClientAuth::None && self.client_ca.is_some() {
            let message =
                "the certificates are unused; allowed is with client_auth \"optional\" or \"required\"";
            problems.add("tls.client_ca", message);
        } else if self.client_ca.is_some() && self.cert.is_none() {
            problems.add("tls.client_ca", "certificates of clients need TLS: 'cert' and 'key'");
        }
        #[cfg(feature = "tls")]
        if problems.found.len() == before
            && self.is_on()
            && let Err(error) = crate::tls::Tls::open(self)
        {
            problems.add(format!("tls.{}", error.setting()), error);
        }
        #[cfg(not(feature = "tls"))]
        let _ = before;
    }
}
