//! Counts open connections, in total and per address.

use super::limits::ConnectionLimits;
use crate::live::Live;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Interval at which the limit is checked while there is no free slot.
const RECHECK: Duration = Duration::from_secs(1);

/// Open connections. The limits can change at any time; connections over a lowered limit stay until they end.
#[derive(Debug)]
pub(super) struct Places {
    limits: Live<ConnectionLimits>,
    open: Mutex<Open>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One open connection.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

impl Places {
    pub(super) fn new(limits: Live<ConnectionLimits>) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default(), freed: Notify::new() })
    }

    /// Waits until another connection is allowed.
    pub(super) async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.lock().all < self.limits.get().connections_max.max(1) {
                return;
            }
            // The limit can be raised while no connection ends.
            let _ = tokio::time::timeout(RECHECK, freed).await;
        }
    }

    /// Counts a connection, unless its address has reached its limit.
    pub(super) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Option<Place> {
        let mut open = self.lock();
        if let Some(address) = address {
            let count = open.by_address.entry(address).or_default();
            if *count >= self.limits.get().per_address_max.max(1) {
                return None;
            }
            *count += 1;
        }
        open.all += 1;
        drop(open);
        Some(Place { places: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.lock();
        open.all -= 1;
        if let Some(address) = self.address
            && let Some(count) = open.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
        drop(open);
        self.places.freed.notify_one();
    }
}
