//! The token goes to the hub alone.

use super::repository::{Files, source};
use super::server::{Content, Reply, Server, content, model, options, pull};
use exsa_hub::{HubError, Token};
use std::sync::Arc;

#[test]
fn the_token_is_not_sent_to_another_host() {
    let (folder, file) = (tempfile::tempdir().unwrap(), model(3_500, 1));
    let served = Content::new(file.clone());
    let storage = Server::start(move |seen, _| served.reply(seen));
    let target = storage.url("/signed?Signature=secret");
    let files = Arc::new(Files::new(&[("m-Q4_0.gguf", file.clone())]));
    let hub = Server::start(move |seen, _| match seen.path.contains("/resolve/") {
        true => files.linked(seen, Reply::status(302).header("Location", target.clone())),
        false => files.reply(seen),
    });
    let token = Token::new("hf_secret").unwrap();
    let options = options(folder.path()).endpoint(hub.url("")).token(Some(token));
    assert_eq!(content(&pull(options, &source("")).unwrap()), file);
    assert!(hub.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer hf_secret")));
    assert_eq!(storage.seen().len(), 4);
    for seen in storage.seen() {
        assert_eq!(seen.header("authorization"), None);
        assert!(!format!("{seen:?}").contains("hf_secret"));
    }
}

#[test]
fn another_name_of_the_same_machine_is_another_host() {
    let folder = tempfile::tempdir().unwrap();
    let files = Arc::new(Files::new(&[("m-Q4_0.gguf", model(500, 1))]));
    let served = Server::start(move |seen, _| Content::new(model(500, 1)).reply(seen));
    let elsewhere = served.other_url("/x");
    let hub = Server::start(move |seen, _| match seen.path.contains("/resolve/") {
        true => files.linked(seen, Reply::status(307).header("Location", elsewhere.clone())),
        false => files.reply(seen),
    });
    let options = options(folder.path()).endpoint(hub.url("")).token(Some(Token::new("t").unwrap()));
    pull(options, &source("")).unwrap();
    assert!(!served.seen().is_empty());
    assert!(served.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn addresses_outside_of_the_hub_get_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|seen, _| Content::new(model(500, 1)).reply(seen));
    let options = options(folder.path()).token(Some(Token::new("t").unwrap()));
    pull(options, &server.url("/m.gguf")).unwrap();
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn refusals_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (status, code, token, advice) in [
        (401, "", None, "HF_TOKEN"),
        (401, "", Some("t"), "not valid"),
        (403, "GatedRepo", None, "gated"),
        (403, "", Some("t"), "gated"),
    ] {
        let hub = Server::start(move |_, _| Reply::status(status).header("X-Error-Code", code));
        let token = token.map(|text| Token::new(text).unwrap());
        let error = pull(options(folder.path()).endpoint(hub.url("")).token(token), &source("")).unwrap_err();
        assert!(matches!(error, HubError::Refused { .. }) && error.to_string().contains(advice), "{error}");
    }
    let missing = Server::start(|_, _| Reply::status(404));
    let error = pull(options(folder.path()).endpoint(missing.url("")), &source("")).unwrap_err();
    assert!(
        matches!(error, HubError::NotFound { hub: true, .. }) && error.to_string().contains("private"),
        "{error}"
    );
}

#[test]
fn hostile_redirects_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for target in ["file:///etc/passwd", "ftp://a/b", "http://", "http://user@host/x", "\u{7f}", "gopher:x"] {
        let server = Server::start(move |_, _| Reply::status(302).header("Location", target));
        let error = pull(options(folder.path()).retries_max(0), &server.url("/m.gguf")).unwrap_err();
        assert!(!matches!(error, HubError::Io { .. }), "{target}: {error}");
    }
    let circle = Server::start(|_, _| Reply::status(302).header("Location", "/m.gguf"));
    let error = pull(options(folder.path()), &circle.url("/m.gguf")).unwrap_err();
    assert!(error.to_string().contains("ten times"), "{error}");
    assert_eq!(circle.seen().len(), 11);
    let silent = Server::start(|_, _| Reply::status(302));
    assert!(pull(options(folder.path()), &silent.url("/m.gguf")).unwrap_err().to_string().contains("target"));
}
