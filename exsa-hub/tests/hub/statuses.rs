//! Statuses of errors: which are tried again, and what the user is told.

use super::server::{Content, Reply, Server, content, model, options, pull};
use exsa_hub::HubError;
use std::time::Duration;

#[test]
fn passing_errors_are_tried_again() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(2_500, 1));
    for status in [429, 500, 502, 503, 504, 408] {
        let served = Content::new(file.clone());
        let server = Server::start(move |seen, number| match number % 2 {
            0 => Reply::status(status).header("Retry-After", "0"),
            _ => served.reply(seen),
        });
        let pulled = pull(options(folder.path()).parallel(1), &server.url("/m.gguf")).unwrap();
        assert_eq!(content(&pulled), file, "{status}");
    }
}

#[test]
fn lasting_errors_end_it() {
    let folder = tempfile::tempdir().unwrap();
    for (status, requests) in [(500, 4), (429, 4), (401, 1), (403, 1), (404, 1), (400, 1), (418, 1)] {
        let server = Server::start(move |_, _| {
            let mut reply = Reply::text(r#"{"error": "the kettle \u001b[31m boils"}"#);
            reply.status = status;
            reply
        });
        let error =
            pull(options(folder.path()).retries_max(3), &server.url("/m.gguf?token=secret")).unwrap_err();
        assert_eq!(server.seen().len(), requests, "{status}");
        let text = error.to_string();
        assert!(text.contains(&status.to_string()) && !text.contains("secret"), "{text}");
        assert!(!text.contains('\u{1b}'), "a server does not steer the terminal: {text}");
    }
}

#[test]
fn a_wait_that_is_too_long_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Reply::status(429).header("Retry-After", "3600"));
    let options = options(folder.path()).retry_wait_max(Duration::from_secs(60));
    let error = pull(options, &server.url("/m.gguf")).unwrap_err();
    assert!(matches!(error, HubError::Busy { status: 429, after, .. } if after.as_secs() == 3600), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn no_server_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error =
        pull(options(folder.path()).retries_max(1), &format!("http://127.0.0.1:{port}/m.gguf")).unwrap_err();
    assert!(matches!(error, HubError::Connection { .. }), "{error}");
}

#[test]
fn http_needs_permission_and_https_its_feature() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| Reply::status(500));
    let error = pull(options(folder.path()).allow_http(false), &server.url("/m.gguf")).unwrap_err();
    assert!(matches!(error, HubError::PlainHttp(_)), "{error}");
    assert!(server.seen().is_empty());
    if !cfg!(feature = "tls") {
        let error = pull(options(folder.path()), "https://127.0.0.1:1/m.gguf").unwrap_err();
        assert!(matches!(error, HubError::NoTls(_)) && error.to_string().contains("'tls'"), "{error}");
    }
}
