//! `/openapi.json`.

use crate::harness::{app, get};
use axum::http::StatusCode;
use std::collections::BTreeSet;
use std::path::Path;

/// The sources of the server.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => {
                let source = std::fs::read_to_string(path).unwrap();
                let code = source.split("#[cfg(test)]").next().unwrap();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                found.push(lines.collect::<Vec<_>>().join("\n"));
            }
            false => {}
        }
    }
}

/// The routes that the sources name, as `METHOD /path`: axum's router does not list its own, and some are
/// there only with certain parts of the server.
fn routes() -> BTreeSet<String> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let mut routes = BTreeSet::new();
    for part in found.iter().flat_map(|source| source.split(".route(").skip(1)) {
        let Some(rest) = part.trim_start().strip_prefix('"') else { continue };
        let (path, rest) = rest.split_once('"').unwrap();
        let handlers = rest.split([';', '}']).next().unwrap();
        // Routes that only tell that they are not supported.
        if handlers.contains("no_files") {
            continue;
        }
        for (call, method) in [("get(", "GET"), ("post(", "POST"), ("delete(", "DELETE"), ("put(", "PUT")] {
            if handlers.contains(&format!(" {call}")) || handlers.contains(&format!(".{call}")) {
                routes.insert(format!("{method} {}", path.replace("{*", "{")));
            }
        }
    }
    routes
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let reply = get(&app("x"), "/openapi.json").await;
    assert_eq!(reply.status, StatusCode::OK);
    let document = reply.json();
    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            documented.insert(format!("{} {path}", method.to_ascii_uppercase()));
        }
    }
    let routes = routes();
    assert!(routes.len() > 30, "{routes:?}");
    let missing: Vec<_> = routes.difference(&documented).collect();
    let surplus: Vec<_> = documented.difference(&routes).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "not documented: {missing:?}; no routes: {surplus:?}");
}
