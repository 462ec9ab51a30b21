//! The web page at `/`: static files inside the binary.
//!
//! The page contains no secrets and needs no key; the routes that it calls check the key entered by the user.

use crate::http::error::ApiError;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Only scripts, styles and requests of this server; texts never become HTML; no frame around the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the page.
struct Asset {
    path: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($path:literal)*) => {
        &[$(Asset { path: $path, bytes: include_bytes!(concat!("../page/", $path)) }),*]
    };
}

/// All files below `/assets`; the document is the first.
const ASSETS: &[Asset] = assets! {
    "index.html"
    "api.js"
    "app.js"
    "chat/announcer.js"
    "chat/answer.js"
    "chat/conversation.js"
    "chat/message.js"
    "chat/models.js"
    "chat/settings.js"
    "chat/tool_call.js"
    "chat/view.js"
    "dom.js"
    "format.js"
    "icon.svg"
    "key.js"
    "live/cache.js"
    "live/chart.js"
    "live/latency.js"
    "live/model_card.js"
    "live/models.js"
    "live/queues.js"
    "live/throughput.js"
    "live/view.js"
    "markdown/blocks.js"
    "markdown/inline.js"
    "markdown/render.js"
    "sse.js"
    "style/base.css"
    "style/chat.css"
    "style/controls.css"
    "style/live.css"
    "style/markdown.css"
};

impl Asset {
    fn find(path: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.path == path)
    }

    fn content_type(&self) -> &'static str {
        match self.path.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            _ => "image/svg+xml",
        }
    }

    fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }

    /// Returns the file, or 304 if the client has it.
    fn respond(&self, headers: &HeaderMap) -> Response {
        let etag = self.etag();
        let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        let unchanged = known.is_some_and(|known| {
            known
                .split(',')
                .any(|tag| matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == etag)
        });
        let fields = [
            (header::CONTENT_TYPE, self.content_type()),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            // Browsers revalidate each time, so that a new server version is not mixed with old files.
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        ];
        let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let body = if unchanged { &[][..] } else { self.bytes };
        (status, fields, [(header::ETAG, etag)], body).into_response()
    }
}

/// The document.
pub(crate) async fn index(headers: HeaderMap) -> Result<Response, ApiError> {
    file("index.html", &headers)
}

/// A file below `/assets`.
pub(crate) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    file(&path, &headers)
}

fn file(path: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    match Asset::find(path) {
        Some(asset) => Ok(asset.respond(headers)),
        None => {
            let message = format!("the page has no file '{path}'");
            Err(ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("unknown_url"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn every_file_of_the_page_is_served() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/page"));
        let relative = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let present: BTreeSet<_> = files(root).iter().map(relative).collect();
        let served: BTreeSet<_> = ASSETS.iter().map(|asset| asset.path.to_owned()).collect();
        assert_eq!(present, served);
    }

    #[test]
    fn no_file_refers_to_another_origin_or_needs_inline_code() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            let addresses = text.match_indices("://").map(|(at, _)| &text[at..]);
            let foreign: Vec<_> = addresses.filter(|text| !text.starts_with("://www.w3.org/")).collect();
            assert!(foreign.is_empty(), "{}", asset.path);
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style="]
            {
                assert!(!text.contains(forbidden), "{}: {forbidden}", asset.path);
            }
        }
    }
}
