//! The header `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

/// Delay until a request may be repeated, from a number of seconds or a date. `None` where it is neither.
///
/// A date is relative to `sent`, the response's header `Date`, so that clocks need not agree; to the clock
/// here without it. A date in the past is no delay.
pub(super) fn delay(value: &str, sent: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let sent = sent.and_then(|sent| httpdate::parse_http_date(sent.trim()).ok());
    Some(until.duration_since(sent.unwrap_or_else(SystemTime::now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates() {
        let sent = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:49:38 1994", Some(1)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("99999999999999999999999", None),
            ("tomorrow", None),
            ("Sun, 99 Nov 1994 08:49:40 GMT", None),
            ("", None),
        ] {
            assert_eq!(delay(value, sent), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn without_a_date_of_the_response_the_clock_here_counts() {
        let until = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        for sent in [None, Some("yesterday")] {
            let delay = delay(&until, sent).unwrap();
            assert!((80..=100).contains(&delay.as_secs()), "{delay:?}");
        }
        assert_eq!(delay("Sun, 06 Nov 1994 08:49:37 GMT", None), Some(Duration::ZERO));
    }
}
