//! Section `[listen]`: the addresses that the server listens on.

use super::Problems;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The section `[listen]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ListenConfig {
    /// Whether to listen on TCP; with `false`, only on the UNIX socket. `true` by default.
    pub tcp: bool,
    /// IP address; 127.0.0.1 by default.
    pub host: IpAddr,
    /// TCP port; 8080 by default, 0 selects a free one.
    pub port: u16,
    /// Additional addresses with ports.
    pub also: Vec<SocketAddr>,
    /// Path of a UNIX socket; none by default.
    pub unix: Option<PathBuf>,
    /// Permissions of the UNIX socket as octal digits; `0600` by default.
    pub unix_mode: String,
    /// Whether addresses beyond loopback are allowed without authentication.
    pub insecure_no_auth: bool,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            tcp: true,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            also: Vec::new(),
            unix: None,
            unix_mode: "0600".into(),
            insecure_no_auth: false,
        }
    }
}

impl ListenConfig {
    /// The TCP addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        if !self.tcp {
            return Vec::new();
        }
        let mut addresses = vec![SocketAddr::new(self.host, self.port)];
        addresses.extend(&self.also);
        addresses
    }

    /// The permissions of the UNIX socket; `None` if [`unix_mode`](Self::unix_mode) is not octal.
    pub fn mode(&self) -> Option<u32> {
        let octal = (3..=4).contains(&self.unix_mode.len()) && !self.unix_mode.starts_with('+');
        let mode = u32::from_str_radix(&self.unix_mode, 8).ok().filter(|_| octal)?;
        (mode <= 0o777).then_some(mode)
    }

    /// Reports invalid values; `authenticated` says whether clients are authenticated.
    pub(super) fn validate(&self, authenticated: bool, problems: &mut Problems) {
        if !self.tcp && self.unix.is_none() {
            problems.add(
                "listen.tcp",
                "false leaves the server without an address; allowed is false with 'unix'",
            );
        }
        if self.mode().is_none() {
            let message = format!(
                "'{}' is no mode; allowed are octal digits from \"0000\" to \"0777\"",
                self.unix_mode
            );
            problems.add("listen.unix_mode", message);
        }
        if let Some(path) = &self.unix {
            if !cfg!(unix) {
                problems.add("listen.unix", "UNIX sockets are not available on this system");
            } else if !path.parent().is_some_and(|folder| folder.as_os_str().is_empty() || folder.is_dir()) {
                problems.add("listen.unix", format!("the folder of {} does not exist", path.display()));
            }
        }
        let addresses = self.addresses();
        for (i, address) in addresses.iter().enumerate() {
            let setting = match i.checked_sub(1) {
                None => "listen.host".to_owned(),
                Some(also) => format!("listen.also.{also}"),
            };
            if !address.ip().is_loopback() && !authenticated && !self.insecure_no_auth {
                let message = format!(
                    "{} is reachable from other machines and the server has no authentication; bind to 127.0.0.1, or \
                     set insecure_no_auth (--insecure-no-auth) if something in front of it authenticates",
                    address.ip()
                );
                problems.add(setting, message);
            } else if address.port() != 0 && addresses.iter().take(i).any(|other| other == address) {
                problems.add(setting, format!("{address} is listed twice"));
            }
        }
    }
}
