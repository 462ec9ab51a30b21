//! The account of a key or a group: charges, reservations, and the part that is on the disk ahead.

use super::amounts::{Amounts, Kind};
use super::bucket::{Bucket, Window};
use super::limits::{Limits, Period};
use super::state::SavedAccount;

/// The share of the smallest limit that is charged on the disk ahead of use.
const AHEAD_SHARE: u64 = 16;
/// The most that is charged ahead: what a crash costs a large quota.
const AHEAD_MAX: u64 = 4096;

/// An account.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    limits: Limits,
    buckets: [Bucket; 3],
    windows: [Window; 3],
    /// Reserved and not charged.
    held: Amounts,
    /// Requests in progress.
    pub(super) streams: u64,
    /// Charged since the state on the disk was taken.
    since: Amounts,
    /// Amounts that the state on the disk charges ahead.
    ahead: Amounts,
    /// Time to which time has passed.
    now: u64,
    /// Time of loading and amounts that were charged ahead then, before the limits are known.
    unconfirmed: Option<(u64, Amounts)>,
    /// Whether the state on the disk differs.
    dirty: bool,
    /// Whether there is a state on the disk.
    pub(super) stored: bool,
}

/// State of an account at the time of a charge, by which it can be taken back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    paid: [u128; 3],
    days: [u64; 3],
}

/// An account's allowance of a kind in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowance {
    /// Kind.
    pub kind: Kind,
    /// Period.
    pub period: Period,
    /// The limit.
    pub limit: u64,
    /// Amount that can be used now.
    pub remaining: u64,
    /// Nanoseconds until all of it can be used.
    pub(super) reset: u64,
}

impl Account {
    /// An account from the disk, loaded at `now`. All that was charged ahead counts as used, and as used at
    /// `now`: the time of its use is not known.
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

    /// Sets the limits and lets time pass. A clock that was set back changes nothing.
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
            // The limits before a change hold for the time before it.
            match (self.limits.of(Period::Minute, kind), limits.of(Period::Minute, kind)) {
                (_, None) => self.buckets[i] = Bucket::default(),
                (old, Some(new)) => self.buckets[i].pass(elapsed, old.unwrap_or(new)),
            }
            self.windows[i].pass(self.now);
        }
        // Other limits need other amounts ahead.
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

    /// Nanoseconds until `tokens` of an allowance can be used.
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

    /// Takes back `charged`.
    pub(super) fn refund(&mut self, charged: Amounts, marks: &Marks) {
        for kind in Kind::ALL {
            let i = kind as usize;
            self.buckets[i].refund(charged[kind], marks.paid[i]);
            self.windows[i].refund(charged[kind], marks.days[i]);
        }
        self.dirty = true;
    }

    /// Ends a request: gives back `held`.
    pub(super) fn release(&mut self, held: Amounts) {
        self.held = self.held.minus(held);
        self.streams = self.streams.saturating_sub(1);
        self.dirty = true;
    }

    /// Whether the state on the disk charges at least what is charged and reserved here.
    pub(super) fn is_covered(&self) -> bool {
        let exposed = self.since.plus(self.held);
        Kind::ALL
            .into_iter()
            .all(|kind| self.limits.smallest(kind).is_none() || exposed[kind] <= self.ahead[kind])
    }

    /// Whether nothing is left that time would not bring back.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let unused =
            self.windows.iter().all(|window| window.used() == 0 || window.day() < Window::day_of(now));
        // An account that was not used since it was loaded has no limits that pay off its debt.
        let old = self.unconfirmed.is_some_and(|(loaded, _)| Window::day_of(loaded) < Window::day_of(now));
        let paid = old || self.buckets.iter().all(|bucket| bucket.debt() == 0);
        paid && unused && self.streams == 0 && self.held.is_zero()
    }

    /// The state to be saved, if it differs from the one on the disk; `last` saves without charging ahead.
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

    /// Takes note of a state that is on the disk.
    pub(super) fn saved(&mut self, saving: &Saving) {
        self.since = self.since.minus(saving.since);
        self.ahead = saving.saved.ahead;
        self.stored = true;
    }

    /// Takes note of a state that could not be saved.
    pub(super) fn unsaved(&mut self) {
        self.dirty = true;
    }
}

/// A state on its way to the disk.
#[derive(Clone, Debug)]
pub(super) struct Saving {
    pub(super) saved: SavedAccount,
    /// Charges that are in it.
    since: Amounts,
}
