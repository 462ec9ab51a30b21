//! Keys and tokens in the headers of a request.

use super::refusal;
use super::secret::PresentedKey;
use crate::http::error::ApiError;
use axum::http::{HeaderMap, HeaderName, header};

/// Header in which clients of Anthropic's API send their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Credential of a request.
#[derive(Debug)]
pub(super) enum Credential<'a> {
    /// An API key of this server.
    Key(PresentedKey<'a>),
    /// Any other text: a token, or an invalid credential.
    Token(&'a str),
}

impl<'a> Credential<'a> {
    /// Reads `Authorization: Bearer` and `x-api-key`.
    ///
    /// # Errors
    ///
    /// There is none, more than one, or one in another form. Messages never contain it.
    pub(super) fn find(headers: &'a HeaderMap) -> Result<Self, ApiError> {
        let mut found: Option<&str> = None;
        for value in headers.get_all(header::AUTHORIZATION) {
            let text =
                value.to_str().map_err(|_| refusal::invalid("Authorization: the value is not ASCII"))?;
            let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(refusal::invalid("Authorization: the scheme must be Bearer"));
            }
            one(&mut found, rest.trim())?;
        }
        for value in headers.get_all(API_KEY) {
            let text = value.to_str().map_err(|_| refusal::invalid("x-api-key: the value is not ASCII"))?;
            one(&mut found, text.trim())?;
        }
        match found {
            None | Some("") => {
                let message =
                    "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'";
                Err(refusal::unauthorized("missing_api_key", message))
            }
            Some(text) => Ok(PresentedKey::parse(text).map_or(Self::Token(text), Self::Key)),
        }
    }
}

/// Accepts a credential. Two different ones are refused, since it would be ambiguous which one counts.
fn one<'a>(found: &mut Option<&'a str>, text: &'a str) -> Result<(), ApiError> {
    match found.replace(text) {
        Some(other) if other != text => Err(refusal::invalid("the request has two different keys")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn read(fields: &[(&'static str, &[u8])]) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        match Credential::find(&headers) {
            Ok(Credential::Key(key)) => Ok(format!("key {}", key.id)),
            Ok(Credential::Token(token)) => Ok(token.to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn both_headers_are_read() {
        let key = super::super::secret::SecretText::generate("00112233aabbccdd").unwrap();
        let bearer = format!("bearer {}", key.expose());
        for fields in [
            &[("authorization", bearer.as_bytes())][..],
            &[("x-api-key", key.expose().as_bytes())],
            &[("authorization", bearer.as_bytes()), ("x-api-key", key.expose().as_bytes())],
        ] {
            assert_eq!(read(fields), Ok("key 00112233aabbccdd".into()));
        }
        assert_eq!(read(&[("authorization", b"Bearer a.b.c")]), Ok("a.b.c".into()));
        for (fields, word) in [
            (&[][..], "needed"),
            (&[("authorization", &b"Bearer"[..])], "needed"),
            (&[("x-api-key", b" ")], "needed"),
            (&[("authorization", b"Basic YTpi")], "Bearer"),
            (&[("authorization", b"Bearer \xff")], "ASCII"),
            (&[("authorization", b"Bearer a"), ("x-api-key", b"b")], "two different"),
        ] {
            let error = read(fields).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_headers_are_read_without_panic_and_errors_quote_nothing(
            values in prop::collection::vec(("(authorization|x-api-key)", prop::collection::vec(32u8..=255, 0..60)), 0..3),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &values {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::from_bytes(value)) {
                    headers.append(name, value);
                }
            }
            if let Err(error) = Credential::find(&headers) {
                for (_, value) in &values {
                    let text = String::from_utf8_lossy(value);
                    prop_assert!(text.len() < 20 || !error.to_string().contains(&*text));
                }
            }
        }
    }
}
