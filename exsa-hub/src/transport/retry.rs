//! Retries of requests.

use crate::cancel::Cancel;
use crate::error::HubError;
use crate::options::HubOptions;
use std::time::{Duration, SystemTime};

/// Maximum delay between two retries that a server did not ask for.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Reason for a failed request.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A retry may help.
    Again {
        /// The error if it does not.
        error: HubError,
        /// Delay that the server asks for.
        after: Option<Duration>,
        /// Status of the answer, if there was one.
        status: Option<u16>,
    },
    /// A retry does not help.
    Final(HubError),
}

impl Fault {
    /// Creates a fault after which the request may be retried.
    pub(crate) fn again(error: HubError) -> Self {
        Self::Again { error, after: None, status: None }
    }
}

impl From<HubError> for Fault {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// Limits of retries.
#[derive(Clone, Debug)]
pub(crate) struct Retries {
    max: u32,
    backoff: Duration,
    wait_max: Duration,
}

impl Retries {
    pub(crate) fn new(options: &HubOptions) -> Self {
        Self { max: options.retries_max, backoff: options.backoff, wait_max: options.retry_wait_max }
    }

    /// Sleeps before a retry. `failures` counts consecutive ones.
    ///
    /// # Errors
    ///
    /// The fault's error if no retry is allowed, or [`HubError::Cancelled`].
    pub(crate) fn wait(&self, cancel: &Cancel, fault: Fault, failures: u32) -> Result<(), HubError> {
        let (error, after, status) = match fault {
            Fault::Final(error) => return Err(error),
            Fault::Again { error, after, status } => (error, after, status),
        };
        if let (Some(after), Some(status), HubError::Status { url, .. }) = (after, status, &error)
            && after > self.wait_max
        {
            return Err(HubError::Busy { url: url.clone(), status, after });
        }
        if failures > self.max {
            return Err(error);
        }
        let doubled =
            self.backoff.saturating_mul(1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        cancel.sleep(after.unwrap_or(Duration::ZERO).max(doubled.min(BACKOFF_MAX)))
    }
}

/// Returns the delay of a `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date relative to
/// `sent`, the `Date` header of the response.
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

    fn status(after: Option<Duration>) -> Fault {
        let error = HubError::Status { url: "u".into(), status: 429, message: String::new() };
        Fault::Again { error, after, status: Some(429) }
    }

    #[test]
    fn delays_are_seconds_or_dates() {
        let sent = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        for (value, seconds) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(delay(value, sent), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn repetitions_end() {
        let options = HubOptions::new("c")
            .retries_max(2)
            .backoff(Duration::ZERO)
            .retry_wait_max(Duration::from_secs(9));
        let (retries, cancel) = (Retries::new(&options), Cancel::new());
        retries.wait(&cancel, status(None), 1).unwrap();
        retries.wait(&cancel, status(None), 2).unwrap();
        assert!(matches!(retries.wait(&cancel, status(None), 3), Err(HubError::Status { status: 429, .. })));
        let long = retries.wait(&cancel, status(Some(Duration::from_secs(10))), 1).unwrap_err();
        assert!(long.to_string().contains("wait 10 s"), "{long}");
        let last = retries.wait(&cancel, HubError::Changed("f".into()).into(), 1);
        assert!(matches!(last, Err(HubError::Changed(_))));
        cancel.cancel();
        let cancelled = retries.wait(&cancel, status(Some(Duration::from_secs(9))), 1);
        assert!(matches!(cancelled, Err(HubError::Cancelled)));
    }
}
