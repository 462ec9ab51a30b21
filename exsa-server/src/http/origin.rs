//! Checks of `Host` and `Origin` against DNS rebinding and requests of foreign pages.

use crate::http::error::ApiError;
use crate::listener::{Connection, Transport};
use crate::options::ServerOptions;
use crate::state::AppState;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;
use std::sync::Arc;

/// Accepts a request only if its `Host` names this server and it was not sent by a foreign page.
pub(crate) async fn check(
    State(state): State<Arc<AppState>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let local =
        request.extensions().get::<Connection>().is_some_and(|from| from.transport == Transport::Unix);
    permitted(&state.options.get(), request.headers(), authority, local)?;
    Ok(next.run(request).await)
}

fn permitted(
    options: &ServerOptions,
    headers: &HeaderMap,
    authority: Option<&str>,
    local: bool,
) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    let host = text(header::HOST).or(authority).unwrap_or_default();
    let name = without_port(host);
    let known = |name: &str| options.allowed_hosts.iter().any(|host| host.eq_ignore_ascii_case(name));
    // Web pages cannot reach a UNIX socket.
    if !local && !options.any_host && !is_loopback(name) && !known(name) {
        let message =
            format!("'{host}' is not a host name of this server; the option allowed_hosts lists them");
        return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, "invalid_request_error", message)
            .code("host_not_allowed"));
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    if own || options.allowed_origins.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    let message =
        format!("pages of {origin} may not use this server; the option allowed_origins lists who may");
    Err(ApiError::new(StatusCode::FORBIDDEN, "invalid_request_error", message).code("origin_not_allowed"))
}

/// Returns the host of an authority: `[::1]:8080` and `localhost:8080` without their ports.
fn without_port(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    }
}

fn is_loopback(name: &str) -> bool {
    let local = name.eq_ignore_ascii_case("localhost");
    local || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(options: &ServerOptions, host: &str, origin: Option<&str>) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        permitted(options, &headers, None, false).map_err(|error| error.to_string())
    }

    #[test]
    fn loopback_names_alone_are_hosts_by_default() {
        let options = ServerOptions::default();
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.9.9.9", "[::1]:8080", "[::1]"] {
            assert_eq!(status(&options, host, None), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:8080", "10.0.0.1", "", "[::2]:80", "127.0.0.1.nip.io"]
        {
            assert!(status(&options, host, None).is_err(), "{host}");
        }
        assert_eq!(status(&options.allowed_host("a.example"), "A.example:443", None), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let options = ServerOptions::default();
        assert_eq!(status(&options, "localhost:8080", Some("http://localhost:8080")), Ok(()));
        for origin in ["http://localhost:9090", "https://evil.example", "null"] {
            assert!(status(&options, "localhost:8080", Some(origin)).is_err(), "{origin}");
        }
        let options = options.allowed_origin("https://app.example");
        assert_eq!(status(&options, "localhost:8080", Some("https://app.example")), Ok(()));
    }
}
