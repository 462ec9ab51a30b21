//! TLS: versions, certificates of clients, a reload beside open connections, slow handshakes.

use crate::certificates::{Authority, Identity};
use crate::served::{Served, app, ask, folder};
use exsa_server::Live;
use exsa_server::config::{ClientAuth, ConfigSource, TlsConfig};
use exsa_server::listener::{ConnectionLimits, Listeners};
use exsa_server::tls::Tls;
use rcgen::DnType;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, SupportedProtocolVersion};

pub struct Site {
    folder: PathBuf,
    authority: Authority,
    clients: Authority,
    pub config: TlsConfig,
}

impl Site {
    pub fn new(client_auth: ClientAuth) -> Self {
        let (folder, authority, clients) = (folder(), Authority::new(1), Authority::new(2));
        authority.issue(&["localhost"], &[], 3).write(&folder, "server");
        std::fs::write(folder.join("clients.pem"), &clients.pem).unwrap();
        let mut config = TlsConfig::default();
        config.cert = Some(folder.join("server.pem"));
        config.key = Some(folder.join("server.key"));
        config.client_auth = client_auth;
        config.client_ca = (client_auth != ClientAuth::None).then(|| folder.join("clients.pem"));
        Self { folder, authority, clients, config }
    }

    pub async fn serve(&self, tls: &Tls, limits: ConnectionLimits) -> (Served, SocketAddr) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        (Served::start(Listeners::new().tls(tcp, tls.clone()), app(), &Live::new(limits)), address)
    }

    async fn connect(
        &self,
        address: SocketAddr,
        identity: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
    ) -> io::Result<TlsStream<TcpStream>> {
        self.connect_as(address, identity, version, &[]).await
    }

    /// Connects and offers application protocols.
    pub async fn connect_as(
        &self,
        address: SocketAddr,
        identity: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
        protocols: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
    }

    /// The answer to a request on a new connection; `None` if the server refuses the connection.
    async fn ask(&self, address: SocketAddr, identity: Option<&Identity>) -> Option<String> {
        let mut stream = self.connect(address, identity, &TLS13).await.ok()?;
        // With TLS 1.3 the refusal comes after the client's part of the handshake.
        let mut byte = [0; 1];
        let early = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut byte)).await;
        if early.is_ok() {
            return None;
        }
        Some(ask(&mut stream, "localhost", "/").await)
    }
}

/// The serial number of the certificate that the server has shown, which is the seed of its key.
fn serial(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn requests_come_over_both_versions() {
    let site = Site::new(ClientAuth::None);
    let (served, address) = site.serve(&Tls::open(&site.config).unwrap(), ConnectionLimits::default()).await;
    for version in [&TLS12, &TLS13] {
        let mut stream = site.connect(address, None, version).await.unwrap();
        assert!(ask(&mut stream, "localhost", "/").await.ends_with("Tls -"), "{version:?}");
    }
    assert!(served.stop().await);
}

#[tokio::test]
async fn required_certificates_are_verified_and_name_the_client() {
    let site = Site::new(ClientAuth::Required);
    let (served, address) = site.serve(&Tls::open(&site.config).unwrap(), ConnectionLimits::default()).await;
    let subject = [(DnType::OrganizationName, "Example"), (DnType::CommonName, "alice")];
    let alice = site.clients.issue(&[], &subject, 10);
    let stranger = Authority::new(4).issue(&[], &subject, 11);
    let answer = site.ask(address, Some(&alice)).await;
    assert!(answer.as_deref().is_some_and(|text| text.ends_with("Tls CN=alice,O=Example")), "{answer:?}");
    assert_eq!(site.ask(address, Some(&stranger)).await, None);
    assert_eq!(site.ask(address, None).await, None);
    assert!(served.stop().await);
}

#[tokio::test]
async fn optional_certificates_may_be_left_out_but_not_forged() {
    let site = Site::new(ClientAuth::Optional);
    let (served, address) = site.serve(&Tls::open(&site.config).unwrap(), ConnectionLimits::default()).await;
    let answer = site.ask(address, None).await;
    assert!(answer.as_deref().is_some_and(|text| text.ends_with("Tls -")), "{answer:?}");
    let stranger = Authority::new(4).issue(&[], &[(DnType::CommonName, "mallory")], 11);
    assert_eq!(site.ask(address, Some(&stranger)).await, None);
    assert!(served.stop().await);
}

#[tokio::test]
async fn a_reload_serves_the_new_certificate_and_keeps_open_connections() {
    let site = Site::new(ClientAuth::None);
    let tls = Tls::open(&site.config).unwrap();
    let (served, address) = site.serve(&tls, ConnectionLimits::default()).await;
    let mut old = site.connect(address, None, &TLS13).await.unwrap();
    ask(&mut old, "localhost", "/").await;
    // A key that is another certificate's changes nothing.
    let renewed = site.authority.issue(&["localhost"], &[], 5);
    std::fs::write(site.folder.join("other.pem"), "").unwrap();
    let mut wrong = site.config.clone();
    site.authority.issue(&["localhost"], &[], 6).write(&site.folder, "wrong");
    wrong.key = Some(site.folder.join("wrong.key"));
    assert!(tls.prepare(&wrong).is_err());
    assert_eq!(serial(&site.connect(address, None, &TLS13).await.unwrap()), serial(&old));
    renewed.write(&site.folder, "server");
    tls.prepare(&site.config).unwrap()();
    let mut new = site.connect(address, None, &TLS13).await.unwrap();
    assert_eq!(serial(&new), renewed.chain()[0].to_vec());
    assert!(ask(&mut old, "localhost", "/").await.ends_with("Tls -"));
    assert!(ask(&mut new, "localhost", "/").await.ends_with("Tls -"));
    drop((old, new));
    assert!(served.stop().await);
}

#[tokio::test]
async fn slow_handshakes_hold_a_place_and_end() {
    let site = Site::new(ClientAuth::None);
    let limits = ConnectionLimits::default().connections_max(1).handshake_timeout(Duration::from_millis(300));
    let (served, address) = site.serve(&Tls::open(&site.config).unwrap(), limits).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let begun = std::time::Instant::now();
    let mut other = site.connect(address, None, &TLS13).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(ask(&mut other, "localhost", "/").await.ends_with("Tls -"));
    drop(other);
    assert!(served.stop().await);
}

#[test]
fn wrong_files_are_named_with_their_line() {
    let site = Site::new(ClientAuth::None);
    let file = site.folder.join("exsa.toml");
    std::fs::write(site.folder.join("empty.pem"), "").unwrap();
    site.authority.issue(&["localhost"], &[], 6).write(&site.folder, "other");
    let path = |name: &str| site.folder.join(name).display().to_string();
    let cases = [
        ("server.pem", "other.key", "exsa.toml:2:8: tls.cert: the certificate cannot be used: "),
        ("empty.pem", "server.key", "exsa.toml:2:8: tls.cert: "),
        ("server.pem", "empty.pem", "exsa.toml:3:7: tls.key: "),
        ("server.pem", "none.key", "exsa.toml:3:7: tls.key: "),
    ];
    for (cert, key, expected) in cases {
        std::fs::write(&file, format!("[tls]\ncert = \"{}\"\nkey = \"{}\"\n", path(cert), path(key)))
            .unwrap();
        let error = ConfigSource::new(Some(file.clone())).load().unwrap_err().to_string();
        assert!(error.contains(expected), "{cert} {key}: {error}");
    }
}
