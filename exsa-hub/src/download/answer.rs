//! Validates the response head of a range request.

use super::state::State;
use crate::error::HubError;
use crate::transport::Reply;
use ureq::http::{HeaderMap, StatusCode, header};

/// Response to a range request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The range, which may end earlier than requested.
    Part {
        /// End of the bytes that follow.
        end: u64,
        /// Length of the whole file.
        total: u64,
        /// Validator of the version.
        validator: Option<String>,
    },
    /// The complete file.
    Whole {
        /// Its length, if it is stated.
        total: Option<u64>,
        /// Whether the end of the file can be distinguished from a lost connection.
        delimited: bool,
        /// Validator of the version.
        validator: Option<String>,
    },
    /// Another version than the one already downloaded in part.
    Changed,
}

impl Answer {
    /// Validates the response head of a request for the bytes from `begin` to before `end`.
    ///
    /// # Errors
    ///
    /// The response head is invalid.
    pub(super) fn of(
        reply: &Reply,
        (begin, end): (u64, u64),
        known: Option<&State>,
    ) -> Result<Self, HubError> {
        let nonsense = |problem: String| HubError::Protocol { url: reply.url.clone(), problem };
        let headers = reply.response.headers();
        let validator = validator(headers);
        let differs = |total: Option<u64>| {
            known.is_some_and(|known| {
                total.is_some_and(|total| total != known.total)
                    || (validator.is_some() && known.validator.is_some() && validator != known.validator)
            })
        };
        match reply.response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header_text(headers, header::CONTENT_RANGE.as_str());
                let (first, last, total) = range.and_then(content_range).ok_or_else(|| {
                    nonsense(format!(
                        "a part without a range that makes sense: {:?}",
                        range.unwrap_or_default()
                    ))
                })?;
                if first != begin {
                    return Err(nonsense(format!("the part begins at {first} instead of {begin}")));
                }
                if differs(Some(total)) {
                    return Ok(Self::Changed);
                }
                Ok(Self::Part { end: (last + 1).min(end), total, validator })
            }
            StatusCode::OK => {
                let total =
                    header_text(headers, header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
                if differs(total) {
                    return Ok(Self::Changed);
                }
                let chunked = headers.contains_key(header::TRANSFER_ENCODING);
                Ok(Self::Whole { total, delimited: chunked || total.is_some(), validator })
            }
            StatusCode::RANGE_NOT_SATISFIABLE if known.is_some() => Ok(Self::Changed),
            StatusCode::RANGE_NOT_SATISFIABLE => Err(nonsense("the file is empty".to_owned())),
            status => Err(nonsense(format!("status {status} instead of a file"))),
        }
    }
}

/// Returns a validator that is allowed in `If-Range`: a strong ETag, else the date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let tag = header_text(headers, "etag").filter(|tag| tag.starts_with('"') && tag.len() > 2);
    tag.or_else(|| header_text(headers, "last-modified")).filter(|text| text.len() <= 256).map(str::to_owned)
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Parses first byte, last byte and length of `bytes 0-9/20`.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    (first <= last && last < total).then_some((first, last, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 0-9/20"), Some((0, 9, 20)));
        for text in [
            "",
            "bytes */20",
            "bytes 0-9/*",
            "bytes 5-4/20",
            "bytes 0-20/20",
            "items 0-9/20",
            "bytes 0-+9/20",
        ] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }

    #[test]
    fn weak_tags_are_no_validators() {
        let of = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            validator(&headers)
        };
        assert_eq!(of(&[("etag", "\"a\""), ("last-modified", "d")]).as_deref(), Some("\"a\""));
        assert_eq!(of(&[("etag", "W/\"a\""), ("last-modified", "d")]).as_deref(), Some("d"));
        assert_eq!(of(&[("etag", "W/\"a\"")]), None);
        assert_eq!(of(&[("etag", "\"\"")]), None);
    }
}
