//! Limits wrong keys and tokens by address.
//!
//! Memory is fixed: a keyed hash maps addresses to the buckets of a table. Valid keys are never refused here,
//! so an address that shares its bucket with a hostile one only loses the precise reason of a refusal.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets of the table.
const BUCKETS: usize = 4096;

/// A token bucket: each failure takes one token.
#[derive(Clone, Copy)]
struct Bucket {
    taken: f64,
    /// Time since the creation of the table at which `taken` was current.
    at: Duration,
}

/// Counts failures by address.
pub(super) struct Failures {
    table: Mutex<Table>,
    hasher: RandomState,
    begun: Instant,
}

struct Table {
    buckets: Box<[Bucket]>,
    burst: f64,
    per_second: f64,
}

impl Failures {
    pub(super) fn new(burst: u32, per_minute: u32) -> Self {
        let bucket = Bucket { taken: 0.0, at: Duration::ZERO };
        Self {
            table: Mutex::new(Table {
                buckets: vec![bucket; BUCKETS].into(),
                burst: f64::from(burst.max(1)),
                per_second: f64::from(per_minute.max(1)) / 60.0,
            }),
            hasher: RandomState::new(),
            begun: Instant::now(),
        }
    }

    /// Changes the limits and keeps the failures so far.
    pub(super) fn set_limits(&self, burst: u32, per_minute: u32) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        (table.burst, table.per_second) = (f64::from(burst.max(1)), f64::from(per_minute.max(1)) / 60.0);
    }

    /// Returns an error with the remaining time if the address has no failure left.
    pub(super) fn check(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.with(address, self.begun.elapsed(), |table, taken| table.left(*taken))
    }

    /// Counts a failure.
    ///
    /// # Errors
    ///
    /// The address has none left; contains the time until it has.
    pub(super) fn count(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        self.count_at(address, self.begun.elapsed())
    }

    fn count_at(&self, address: Option<IpAddr>, now: Duration) -> Result<(), Duration> {
        self.with(address, now, |table, taken| {
            table.left(*taken)?;
            *taken += 1.0;
            Ok(())
        })
    }

    fn with<T>(&self, address: Option<IpAddr>, now: Duration, act: impl FnOnce(&Table, &mut f64) -> T) -> T {
        let index = (self.hasher.hash_one(address.map(network)) % BUCKETS as u64) as usize;
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Bucket { mut taken, at } = table.buckets[index];
        taken = (taken - now.saturating_sub(at).as_secs_f64() * table.per_second).max(0.0);
        let result = act(&table, &mut taken);
        table.buckets[index] = Bucket { taken, at: now };
        result
    }
}

impl Table {
    fn left(&self, taken: f64) -> Result<(), Duration> {
        let over = taken + 1.0 - self.burst;
        if over <= 0.0 { Ok(()) } else { Err(Duration::from_secs_f64(over / self.per_second)) }
    }
}

/// Returns the network that counts as one client: an IPv4 address, or the 64 bits that an IPv6 client cannot
/// choose.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_limited_by_address_and_forgotten_in_time() {
        let failures = Failures::new(3, 60);
        let (a, b) = (Some("192.0.2.1".parse().unwrap()), Some("192.0.2.2".parse().unwrap()));
        let second = Duration::from_secs(1);
        for _ in 0..3 {
            assert_eq!(failures.count_at(a, second), Ok(()));
        }
        assert_eq!(failures.count_at(a, second), Err(second));
        assert_eq!(failures.count_at(a, 2 * second), Ok(()));
        assert!(failures.count_at(a, 2 * second).is_err());
        // Two addresses share a bucket in one of 4,096 tables.
        let other = Failures::new(3, 60);
        assert!(failures.count_at(b, 2 * second).is_ok() || other.count_at(b, 2 * second).is_ok());
        for _ in 0..3 {
            assert_eq!(failures.count_at(a, 3600 * second), Ok(()));
        }
    }

    #[test]
    fn other_limits_hold_at_once_for_failures_so_far() {
        let failures = Failures::new(3, 60);
        let second = Duration::from_secs(1);
        for _ in 0..3 {
            assert_eq!(failures.count_at(None, second), Ok(()));
        }
        failures.set_limits(4, 30);
        assert_eq!(failures.count_at(None, second), Ok(()));
        assert_eq!(failures.count_at(None, second), Err(2 * second));
    }

    #[test]
    fn addresses_of_one_client_count_together() {
        let [a, b, c] =
            ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"].map(|a| a.parse().unwrap());
        assert_eq!(network(a), network(b));
        assert_ne!(network(a), network(c));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), network("192.0.2.1".parse().unwrap()));
    }
}
