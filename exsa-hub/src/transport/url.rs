//! URLs: origins, redirect targets, and the form shown in messages.

use crate::name;
use ureq::http::Uri;

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Returns the origin of an http or https address.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        // A user name in an authority could disguise the host.
        if uri.authority()?.as_str().contains('@') {
            return None;
        }
        Some(Self { https, host, port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }) })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.https
    }
}

/// Resolves a reference relative to another address.
pub(super) fn joined(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let text = if reference.contains("://") && !reference.starts_with('/') {
        reference.to_owned()
    } else if let Some(rest) = reference.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{}{reference}", base.authority()?)
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{}{folder}/{reference}", base.authority()?)
    };
    let uri: Uri = text.parse().ok()?;
    uri.authority().is_some().then_some(uri)
}

/// Returns an address for messages: without its query, which may contain a signature, and without control
/// characters.
pub(crate) fn shown(url: &str) -> String {
    name::printable(url.split(['?', '#']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_joined() {
        let base: Uri = "https://a.org:8/x/y?q".parse().unwrap();
        for (reference, joined_to) in [
            ("https://b.org/z?s=1#f", Some("https://b.org/z?s=1")),
            ("//b.org/z", Some("https://b.org/z")),
            ("/z", Some("https://a.org:8/z")),
            ("z", Some("https://a.org:8/x/z")),
            ("https://", None),
            ("a b", None),
        ] {
            assert_eq!(
                joined(&base, reference).map(|uri| uri.to_string()).as_deref(),
                joined_to,
                "{reference}"
            );
        }
    }

    #[test]
    fn origins_have_scheme_host_and_port() {
        let of = |url: &str| Origin::of(&url.parse().unwrap());
        assert_eq!(of("https://A.org/x"), of("https://a.org:443"));
        assert_ne!(of("https://a.org"), of("http://a.org"));
        assert_ne!(of("https://a.org"), of("https://a.org:8443"));
        assert_eq!(of("ftp://a.org"), None);
        assert_eq!(of("https://a.org@evil.org/x"), None);
    }

    #[test]
    fn signatures_are_not_shown() {
        assert_eq!(shown("https://a.org/x?Signature=secret"), "https://a.org/x");
    }
}
