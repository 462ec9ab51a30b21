//! Account of a key or a group: charges, reservations, and the amount charged ahead on disk.

use super::amounts::{Amounts, Kind};
use super::bucket::{Bucket, Window};
use super::limits::{Limits, Period};
use super::state::SavedAccount;

/// Share of the smallest limit that is charged ahead on disk.
const AHEAD_SHARE: u64 = 16;
/// Maximum amount charged ahead, which is the cost of a crash for a large quota.
const AHEAD_MAX: u64 = 4096;

/// An account.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    limits: Limits,
    buckets: [Bucket; 3],
    windows: [Window; 3],
    /// Reserved but not charged.
    held: Amounts,
    /// Requests in progress.
    pub(super) streams: u64,
    /// Charged since the state on disk was written.
    since: Amounts,
    /// Amounts that the state on disk charges ahead.
    ahead: Amounts,
    /// Time up to which the account is refilled.
    now: u64,
    /// Load time and amounts charged ahead at that time, until the limits are known.
    unconfirmed: Option<(u64, Amounts)>,
    /// Whether the state on disk is out of date.
    dirty: bool,
    /// Whether there is a state on disk.
    pub(super) stored: bool,
}

/// State of an account at the time of a charge, for a later refund.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    paid: [u128; 3],
    days: [u64; 3],
}

/// A limit with its remaining amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowance {
    /// Kind.
    pub kind: Kind,
    /// Period.
    pub period: Period,
    /// The limit.
    pub limit: u64,
    /// Amount that is available now.
    pub remaining: u64,
    /// Nanoseconds until all of it is available.
    pub(super) reset: u64,
}

impl Account {
    /// Loads an account at `now`. All amounts charged ahead count as used at `now`, since the time of their
    /// use is unknown.
    pub(super) fn load(saved: &SavedAccount, now: u64) -> Self {
        let mut account = Self { now: saved.at, dirty: true, stored: true, ..Self::default() };
        for kind in Kind::ALL {
            let i = kind as usize;
            account.buckets[i] = Bucket::with_debt(Bucket::units(saved.debt[kind]));
            account.windows[i] = Window::new(saved.day, saved.used[kind]);
            account.windows[i].pass(now);
            account.windows[i].charge(saved.ahead[kind]);
        }
        account.unconfirmed = Some((now, saved.ahead));
        account
    }

    /// Sets the limits and advances time. A clock that was set back changes nothing.
    pub(super) fn pass(&mut self, limits: Limits, now: u64) {
        if let Some((loaded, ahead)) = self.unconfirmed.take() {
            self.advance(limits, loaded);
            for kind in Kind::ALL {
                self.buckets[kind as usize].charge(ahead[kind]);
            }
        }
        self.advance(limits, now);
    }

    fn advance(&mut self, limits: Limits, now: u64) {
        let elapsed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        for kind in Kind::ALL {
            let i = kind as usize;
            // The previous limits apply to the time before the change.
            match (self.limits.of(Period::Minute, kind), limits.of(Period::Minute, kind)) {
                (_, None) => self.buckets[i] = Bucket::default(),
                (old, Some(new)) => self.buckets[i].pass(elapsed, old.unwrap_or(new)),
            }
            self.windows[i].pass(self.now);
        }
        // Changed limits need different amounts ahead.
        self.dirty |= self.limits != limits;
        self.limits = limits;
    }

    /// The limits at the last use.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    fn bucket(&self, kind: Kind) -> Bucket {
        self.buckets[kind as usize]
    }

    /// All limits with the remaining amounts.
    pub(super) fn allowances(&self) -> impl Iterator<Item = Allowance> {
        let pairs = Period::ALL.into_iter().flat_map(|period| Kind::ALL.map(|kind| (period, kind)));
        pairs.filter_map(|(period, kind)| {
            let limit = self.limits.of(period, kind)?;
            let held = self.held[kind];
            let window = self.windows[kind as usize];
            let (remaining, reset) = match period {
                Period::Minute => {
                    (self.bucket(kind).available(limit, held), self.bucket(kind).wait(limit, held, limit))
                }
                Period::Day if window.used() == 0 && held == 0 => (limit, 0),
                Period::Day => (window.available(limit, held), Window::rest(self.now)),
            };
            Some(Allowance { kind, period, limit, remaining, reset })
        })
    }

    /// Nanoseconds until `tokens` of an allowance are available.
    pub(super) fn wait(&self, allowance: &Allowance, tokens: u64) -> u64 {
        match allowance.period {
            _ if allowance.remaining >= tokens => 0,
            Period::Minute => {
                self.bucket(allowance.kind).wait(allowance.limit, self.held[allowance.kind], tokens)
            }
            Period::Day => Window::rest(self.now),
        }
    }

    pub(super) fn streams_max(&self) -> Option<u64> {
        self.limits.streams.value()
    }

    pub(super) fn hold(&mut self, amounts: Amounts) {
        self.held = self.held.plus(amounts);
        self.streams += 1;
        self.dirty = true;
    }

    /// Charges `amounts`, of which `held` were reserved.
    pub(super) fn charge(&mut self, amounts: Amounts, held: Amounts) {
        self.held = self.held.minus(held);
        self.since = self.since.plus(amounts);
        for kind in Kind::ALL {
            if self.limits.of(Period::Minute, kind).is_some() {
                self.buckets[kind as usize].charge(amounts[kind]);
            }
            self.windows[kind as usize].charge(amounts[kind]);
        }
        self.dirty = true;
    }

    pub(super) fn marks(&self) -> Marks {
        Marks { paid: self.buckets.map(Bucket::mark), days: self.windows.map(Window::day) }
    }

    /// Refunds `charged`.
    pub(super) fn refund(&mut self, charged: Amounts, marks: &Marks) {
        for kind in Kind::ALL {
            let i = kind as usize;
            self.buckets[i].refund(charged[kind], marks.paid[i]);
            self.windows[i].refund(charged[kind], marks.days[i]);
        }
        self.dirty = true;
    }

    /// Ends a request and releases `held`.
    pub(super) fn release(&mut self, held: Amounts) {
        self.held = self.held.minus(held);
        self.streams = self.streams.saturating_sub(1);
        self.dirty = true;
    }

    /// Returns whether the state on disk charges at least the amounts charged and reserved here.
    pub(super) fn is_covered(&self) -> bool {
        let exposed = self.since.plus(self.held);
        Kind::ALL
            .into_iter()
            .all(|kind| self.limits.smallest(kind).is_none() || exposed[kind] <= self.ahead[kind])
    }

    /// Returns whether the account has nothing that time would not restore.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let unused =
            self.windows.iter().all(|window| window.used() == 0 || window.day() < Window::day_of(now));
        // An account that was not used since it was loaded has no known limits that pay off its debt.
        let old = self.unconfirmed.is_some_and(|(loaded, _)| Window::day_of(loaded) < Window::day_of(now));
        let paid = old || self.buckets.iter().all(|bucket| bucket.debt() == 0);
        paid && unused && self.streams == 0 && self.held.is_zero()
    }

    /// Returns the state to save, if the disk is out of date; `last` saves without charging ahead.
    pub(super) fn save(&mut self, last: bool) -> Option<Saving> {
        if !self.dirty && self.ahead.is_zero() {
            return None;
        }
        let ahead = match (last, self.dirty) {
            (true, _) => self.held,
            (false, true) => {
                let share = |limit: u64| (limit / AHEAD_SHARE).clamp(1, AHEAD_MAX);
                let share = Amounts::of(|kind| self.limits.smallest(kind).map_or(0, share));
                self.held.plus(share).max(self.ahead.minus(self.since))
            }
            // No use since the last state: nothing is charged ahead until the next.
            (false, false) => self.held,
        };
        if !self.dirty && ahead == self.ahead {
            return None;
        }
        if !self.dirty {
            self.ahead = self.since.plus(ahead);
        }
        self.dirty = false;
        let saved = SavedAccount {
            at: self.now,
            day: self.windows[0].day(),
            used: Amounts::of(|kind| self.windows[kind as usize].used()),
            debt: Amounts::of(|kind| self.buckets[kind as usize].debt_tokens()),
            ahead,
        };
        Some(Saving { saved, since: self.since })
    }

    /// Records that a state was saved.
    pub(super) fn saved(&mut self, saving: &Saving) {
        self.since = self.since.minus(saving.since);
        self.ahead = saving.saved.ahead;
        self.stored = true;
    }

    /// Records that a state could not be saved.
    pub(super) fn unsaved(&mut self) {
        self.dirty = true;
    }
}

/// A state being saved.
#[derive(Clone, Debug)]
pub(super) struct Saving {
    pub(super) saved: SavedAccount,
    /// Charges included in it.
    since: Amounts,
}
