//! TLS 1.2 and 1.3, with client certificates and reloading of the files.

mod subject;

use crate::config::{ClientAuth, TlsConfig};
use crate::live::Live;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Certificates and policies of TLS. Clones share them.
#[derive(Clone, Debug)]
pub struct Tls {
    current: Live<Arc<ServerConfig>>,
}

/// Error of the certificate files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read or is not PEM.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// The setting of the file: `cert`, `key` or `client_ca`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The error.
        source: pem::Error,
    },
    /// A file has no certificate.
    #[error("{} has no certificate; allowed are PEM files with 'BEGIN CERTIFICATE'", path.display())]
    NoCertificate {
        /// The setting of the file.
        setting: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not match, or a certificate is invalid.
    #[error("the certificate cannot be used: {source}")]
    Certificate {
        /// The setting of the file.
        setting: &'static str,
        /// The error.
        source: rustls::Error,
    },
    /// A setting is missing.
    #[error("the setting '{setting}' is missing")]
    Missing {
        /// The setting.
        setting: &'static str,
    },
}

impl TlsError {
    /// The invalid setting: `cert`, `key` or `client_ca`.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::File { setting, .. }
            | Self::NoCertificate { setting, .. }
            | Self::Certificate { setting, .. }
            | Self::Missing { setting } => setting,
        }
    }
}

/// A connection after its handshake.
pub(crate) struct Secured<S> {
    pub(crate) stream: TlsStream<S>,
    pub(crate) http2: bool,
    /// The subject of the client's certificate.
    pub(crate) client_subject: Option<Arc<str>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or its certificates are unusable.
    pub fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self { current: Live::new(read(config)?) })
    }

    /// Reads the files again. The returned function applies them to new connections.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open); the current files stay in use.
    pub fn prepare(&self, config: &TlsConfig) -> Result<impl FnOnce() + Send + use<>, TlsError> {
        let (current, next) = (self.current.clone(), read(config)?);
        Ok(move || current.set(next))
    }

    /// Performs the handshake of a connection.
    pub(crate) async fn accept<S>(&self, stream: S) -> io::Result<Secured<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(Arc::clone(&*self.current.get())).accept(stream).await?;
        let (_, session) = stream.get_ref();
        let http2 = session.alpn_protocol() == Some(b"h2");
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        let client_subject = certificate.map(|certificate| subject::of(certificate).into());
        Ok(Secured { stream, http2, client_subject })
    }
}

fn read(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let cert = config.cert.as_deref().ok_or(TlsError::Missing { setting: "cert" })?;
    let key_path = config.key.as_deref().ok_or(TlsError::Missing { setting: "key" })?;
    let chain = certificates("cert", cert)?;
    let key = PrivateKeyDer::from_pem_file(key_path).map_err(|source| TlsError::File {
        setting: "key",
        path: key_path.to_owned(),
        source,
    })?;
    let provider = Arc::new(ring::default_provider());
    let unusable = |setting| move |source| TlsError::Certificate { setting, source };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(unusable("cert"))?;
    let builder = match verifier(config, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(unusable("cert"))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// Returns the verifier of client certificates; `None` if none are requested.
fn verifier(
    config: &TlsConfig,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if config.client_auth == ClientAuth::None {
        return Ok(None);
    }
    let path = config.client_ca.as_deref().ok_or(TlsError::Missing { setting: "client_ca" })?;
    let unusable = |source| TlsError::Certificate { setting: "client_ca", source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", path)? {
        roots.add(certificate).map_err(unusable)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match config.client_auth {
        ClientAuth::Optional => builder.allow_unauthenticated(),
        _ => builder,
    };
    builder.build().map(Some).map_err(|error| unusable(rustls::Error::General(error.to_string())))
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File { setting, path: path.to_owned(), source };
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
    let certificates = read.map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { setting, path: path.to_owned() });
    }
    Ok(certificates)
}
