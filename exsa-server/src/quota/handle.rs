//! [`Quotas`]: the ledger with a clock, a disk, and a saving thread.

use super::account::Allowance;
use super::amounts::{Amounts, Kind};
use super::error::{QuotaError, Refusal};
use super::ledger::{Account, Entry, Ledger, Payers};
use super::limits::{Limits, QuotaConfig};
use super::store::Store;
use parking_lot::{Condvar, Mutex, RwLock};
use redb::Database;
use std::fmt;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tracing::error;

/// The quotas. Clones share them.
///
/// Charges are durable before they are acknowledged: the state on disk always charges at least the used and
/// reserved amounts. `docs/quotas.md` states the rule.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    config: RwLock<Arc<QuotaConfig>>,
    ledger: Mutex<Ledger>,
    store: Option<Store>,
    /// Locked while states are written: at most one write runs, and it includes everything before it.
    saving: Mutex<()>,
    signal: Arc<Signal>,
    /// Number of writes so far, for waiting on the next one.
    writes: watch::Sender<u64>,
}

/// Messages to the saving thread.
#[derive(Debug, Default)]
struct Signal {
    wanted: Mutex<Wanted>,
    wake: Condvar,
}

impl Signal {
    fn send(&self, set: impl FnOnce(&mut Wanted)) {
        set(&mut self.wanted.lock());
        self.wake.notify_all();
    }
}

#[derive(Debug, Default)]
struct Wanted {
    save: bool,
    closed: bool,
}

impl Quotas {
    /// Opens the quotas in a database. Without one they start fresh with each process.
    ///
    /// # Errors
    ///
    /// The configuration is invalid, or the database cannot be read.
    pub fn open(config: QuotaConfig, database: Option<Arc<Database>>) -> Result<Self, QuotaError> {
        config.check().map_err(|(setting, problem)| QuotaError::Config(format!("{setting}: {problem}")))?;
        let store = database.map(Store::open).transpose()?;
        let ledger = store.as_ref().map(|store| store.load(now())).transpose()?.unwrap_or_default();
        let inner = Arc::new(Inner {
            config: RwLock::new(Arc::new(config)),
            ledger: Mutex::new(ledger),
            store,
            saving: Mutex::new(()),
            signal: Arc::new(Signal::default()),
            writes: watch::Sender::new(0),
        });
        let (weak, signal) = (Arc::downgrade(&inner), inner.signal.clone());
        let builder = thread::Builder::new().name("exsa-quota".into());
        builder.spawn(move || keep_saved(&weak, &signal)).map_err(QuotaError::Thread)?;
        Ok(Self(inner))
    }

    /// Replaces limits and keeps the usage so far.
    ///
    /// # Errors
    ///
    /// The configuration is invalid; the previous one stays.
    pub fn reconfigure(&self, config: QuotaConfig) -> Result<(), QuotaError> {
        config.check().map_err(|(setting, problem)| QuotaError::Config(format!("{setting}: {problem}")))?;
        *self.0.config.write() = Arc::new(config);
        Ok(())
    }

    /// The configuration.
    pub fn config(&self) -> Arc<QuotaConfig> {
        self.0.config.read().clone()
    }

    /// Returns the limited accounts of a caller: its own, with the limits of its record, and its group's.
    pub(crate) fn payers(&self, id: &Arc<str>, own: Option<&Limits>, group: Option<&Arc<str>>) -> Payers {
        let config = self.config();
        let own = own.copied().unwrap_or_default().over(config.default);
        let own = config.keys.get(&**id).map_or(own, |limits| limits.over(own));
        let group = group.and_then(|name| Some((Account::Group(name.clone()), *config.groups.get(&**name)?)));
        let all = [Some((Account::Key(id.clone()), own)), group].into_iter().flatten();
        let limited = all.filter(|(_, limits)| !limits.is_empty());
        limited.map(|(account, limits)| (account, limits.shared(config.share))).collect()
    }

    /// Returns the maximum output tokens that all payers can reserve.
    pub(crate) fn output_max(&self, payers: &Payers) -> Option<u64> {
        payers.iter().filter_map(|(_, limits)| limits.smallest(Kind::OutputTokens)).min()
    }

    /// Reserves amounts for all payers. Waits for the disk if the reservation exceeds the amount charged
    /// ahead, so it may block.
    ///
    /// # Errors
    ///
    /// The limit that refuses the request.
    pub(crate) fn reserve(&self, payers: &Payers, amounts: Amounts) -> Result<Reservation, Refusal> {
        let entry = self.0.ledger.lock().reserve(payers, amounts, now())?;
        let reservation = Reservation { quotas: self.clone(), entry: Some(entry) };
        while !reservation.is_durable() {
            self.0.save(false).map_err(|error| Refusal::Store(error.to_string()))?;
        }
        Ok(reservation)
    }

    /// The allowances of payers.
    pub(crate) fn allowances(&self, payers: &Payers) -> Vec<Allowance> {
        self.0.ledger.lock().allowances(payers, now())
    }

    /// Writes the final state: nothing is charged ahead beyond the reservations of running requests.
    ///
    /// # Errors
    ///
    /// The database cannot be written.
    pub fn close(&self) -> Result<(), QuotaError> {
        self.0.signal.send(|wanted| wanted.closed = true);
        self.0.save(true).map_err(QuotaError::Store)
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Inner {
    fn save(&self, last: bool) -> Result<(), redb::Error> {
        let Some(store) = &self.store else { return Ok(()) };
        let _saving = self.saving.lock();
        let savings = self.ledger.lock().save(last, now());
        let done = if savings.is_empty() { Ok(()) } else { store.save(&savings) };
        self.ledger.lock().saved(&savings, done.is_ok());
        self.writes.send_modify(|writes| *writes += 1);
        done
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.signal.send(|wanted| wanted.closed = true);
    }
}

/// Saves periodically, and when a running request needs it, until the quotas are closed or dropped.
fn keep_saved(quotas: &Weak<Inner>, signal: &Signal) {
    loop {
        let Some(interval) = quotas.upgrade().map(|inner| inner.config.read().save_interval) else { return };
        let mut wanted = signal.wanted.lock();
        if !wanted.save && !wanted.closed {
            signal.wake.wait_for(&mut wanted, interval);
        }
        if wanted.closed {
            return;
        }
        wanted.save = false;
        drop(wanted);
        let Some(inner) = quotas.upgrade() else { return };
        if let Err(failure) = inner.save(false) {
            error!("the state of the quotas cannot be written: {failure}");
        }
    }
}

/// Reserved amounts of a request. Dropping it settles with the amounts charged so far.
#[derive(Debug)]
pub(crate) struct Reservation {
    quotas: Quotas,
    entry: Option<Entry>,
}

impl Reservation {
    /// Charges the running request up to `total`. Returns whether the charge is already on disk; otherwise a
    /// write is pending.
    pub(crate) fn charge(&mut self, total: Amounts) -> bool {
        let inner = &self.quotas.0;
        if let Some(entry) = &mut self.entry {
            inner.ledger.lock().charge(entry, total, now());
        }
        let durable = self.is_durable();
        if !durable {
            inner.signal.send(|wanted| wanted.save = true);
        }
        durable
    }

    /// Returns whether the disk charges at least the used and reserved amounts of the request's accounts.
    pub(crate) fn is_durable(&self) -> bool {
        let inner = &self.quotas.0;
        inner.store.is_none() || self.entry.as_ref().is_none_or(|entry| inner.ledger.lock().is_covered(entry))
    }

    /// Resolves at the next write.
    pub(crate) fn writes(&self) -> watch::Receiver<u64> {
        self.quotas.0.writes.subscribe()
    }

    /// Ends the request with its `total` usage.
    pub(crate) fn settle(mut self, total: Amounts) {
        if let Some(entry) = self.entry.take() {
            self.quotas.0.ledger.lock().settle(entry, total, now());
        }
    }

    /// Ends the request and refunds everything.
    pub(crate) fn refund(mut self) {
        if let Some(entry) = self.entry.take() {
            self.quotas.0.ledger.lock().refund(entry, now());
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.quotas.0.ledger.lock().settle(entry, Amounts::default(), now());
        }
    }
}

/// The time in nanoseconds since 1970.
fn now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
