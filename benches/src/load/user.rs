//! Simulated users: the times of their requests.

use std::time::Duration;

/// When a user's requests arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// All at once.
    Burst,
    /// One after the other, each so much later than the one before.
    Every(Duration),
    /// At random, independent of one another: so many a second on average.
    Poisson(f64),
}

/// One user's part of the load.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Requests in a round.
    pub requests: usize,
    /// Tokens at the beginning of the prompt that all requests of the round share.
    pub shared: usize,
    /// Tokens of each prompt's own, drawn from this range, both ends included.
    pub own: (usize, usize),
    /// Tokens of each answer.
    pub generate: usize,
    /// When the first one may come.
    pub start: Duration,
    /// When they come.
    pub arrival: Arrival,
}

impl User {
    /// Reads `NAME:KEY=VALUE:…`; what is not said is as in `self`.
    pub fn with(&self, text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let mut user = Self { name: parts.next().unwrap_or_default().into(), ..self.clone() };
        if user.name.is_empty() || user.name.contains('=') {
            return Err(format!("{text}: a user begins with a name: alice:requests=4"));
        }
        for part in parts {
            let known = "requests, shared, own, generate, start, arrival";
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("{part}: KEY=VALUE is expected, with {known}"))?;
            match key {
                "requests" => user.requests = count(value, 1)?,
                "shared" => user.shared = count(value, 0)?,
                "own" => user.own = range(value)?,
                "generate" => user.generate = count(value, 1)?,
                "start" => user.start = seconds(value)?,
                "arrival" => user.arrival = arrival(value)?,
                _ => return Err(format!("{key}: there are {known}")),
            }
        }
        Ok(user)
    }
}

const TOKENS_MAX: usize = 1 << 20;

/// A number from `min` to 2^20.
pub fn count(text: &str, min: usize) -> Result<usize, String> {
    let n = text.parse().ok().filter(|n| (min..=TOKENS_MAX).contains(n));
    n.ok_or_else(|| format!("{text}: a number from {min} to {TOKENS_MAX} is allowed"))
}

/// `N` or `LOW-HIGH`.
pub fn range(text: &str) -> Result<(usize, usize), String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (count(low, 1)?, count(high, 1)?);
    if low <= high { Ok((low, high)) } else { Err(format!("{text}: LOW-HIGH with LOW <= HIGH is allowed")) }
}

/// A time in seconds, fractions allowed.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s: &f64| (0.0..=86_400.0).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("{text}: seconds from 0 to 86400 are allowed"))
}

/// `burst`, `every:SECONDS` or `poisson:RATE`; a slash serves as well as the colon.
pub fn arrival(text: &str) -> Result<Arrival, String> {
    let (kind, value) = text.split_once(['/', ':']).unwrap_or((text, ""));
    match kind {
        "burst" if value.is_empty() => Ok(Arrival::Burst),
        "every" => seconds(value).map(Arrival::Every),
        "poisson" => {
            let rate = value.parse().ok().filter(|rate: &f64| (1e-6..=1e6).contains(rate));
            rate.map(Arrival::Poisson)
                .ok_or_else(|| format!("{text}: requests a second, 0.000001 to 1000000"))
        }
        _ => Err(format!("{text}: burst, every/SECONDS and poisson/RATE are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default() -> User {
        User {
            name: String::new(),
            requests: 16,
            shared: 0,
            own: (128, 128),
            generate: 64,
            start: Duration::ZERO,
            arrival: Arrival::Burst,
        }
    }

    #[test]
    fn a_user_says_what_differs() {
        let user = default().with("light:requests=4:own=10-20:arrival=every/0.5:start=1.5").unwrap();
        assert_eq!((user.name.as_str(), user.requests, user.own, user.generate), ("light", 4, (10, 20), 64));
        assert_eq!(user.arrival, Arrival::Every(Duration::from_millis(500)));
        assert_eq!(user.start, Duration::from_millis(1500));
        assert_eq!(arrival("poisson:2.5").unwrap(), Arrival::Poisson(2.5));
        assert_eq!(default().with("bob").unwrap(), User { name: "bob".into(), ..default() });
    }

    #[test]
    fn nonsense_is_refused_with_what_is_allowed() {
        for (text, words) in [
            ("", "begins with a name"),
            ("requests=4", "begins with a name"),
            ("a:b", "KEY=VALUE"),
            ("a:colour=red", "requests, shared"),
            ("a:requests=0", "from 1"),
            ("a:own=9-3", "LOW <= HIGH"),
            ("a:start=-1", "seconds"),
            ("a:start=NaN", "seconds"),
            ("a:arrival=never", "burst"),
            ("a:arrival=poisson/0", "requests a second"),
        ] {
            let error = default().with(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
