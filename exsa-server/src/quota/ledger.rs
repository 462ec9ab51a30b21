//! The ledger: all accounts, without a clock, threads or a disk.

use super::account::{Account as State, Allowance, Marks, Saving};
use super::amounts::{Amounts, Kind};
use super::error::Refusal;
use super::limits::Limits;
use super::state::SavedAccount;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Owner of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Account {
    /// A key, by its id.
    Key(Arc<str>),
    /// A group, by its name.
    Group(Arc<str>),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl FromStr for Account {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            Some(("key", id)) => Ok(Self::Key(id.into())),
            Some(("group", name)) => Ok(Self::Group(name.into())),
            _ => Err(()),
        }
    }
}

/// Accounts charged for a request, with their limits.
pub(super) type Payers = Vec<(Account, Limits)>;

/// Amounts reserved and charged for a request. It ends with [`Ledger::settle`] or [`Ledger::refund`].
#[derive(Debug)]
pub(super) struct Entry {
    /// The accounts, with their states at the first charge.
    accounts: Vec<(Account, Option<Marks>)>,
    held: Amounts,
    charged: Amounts,
}

/// The accounts.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: HashMap<Account, State>,
}

impl Ledger {
    /// Adds an account loaded from disk.
    pub(super) fn load(&mut self, account: Account, saved: &SavedAccount, now: u64) {
        self.accounts.insert(account, State::load(saved, now));
    }

    /// Reserves `amounts` for all payers, or for none.
    ///
    /// # Errors
    ///
    /// The limit with the longest wait.
    pub(super) fn reserve(&mut self, payers: &Payers, amounts: Amounts, now: u64) -> Result<Entry, Refusal> {
        let mut longest: Option<(u64, Refusal)> = None;
        for (account, limits) in payers {
            let state = self.accounts.entry(account.clone()).or_default();
            state.pass(*limits, now);
            for allowance in state.allowances() {
                let Allowance { kind, period, limit, remaining, .. } = allowance;
                let (scope, requested) = (account.clone(), amounts[kind]);
                if requested > limit {
                    return Err(Refusal::TooLarge { scope, kind, period, limit, requested });
                }
                let wait = state.wait(&allowance, requested);
                if wait > 0 && longest.as_ref().is_none_or(|(longest, _)| wait > *longest) {
                    let wait_time = Duration::from_nanos(wait);
                    let refusal =
                        Refusal::Limit { scope, kind, period, limit, remaining, requested, wait: wait_time };
                    longest = Some((wait, refusal));
                }
            }
            if let Some(limit) = state.streams_max()
                && state.streams >= limit
                && longest.is_none()
            {
                longest =
                    Some((0, Refusal::Streams { scope: account.clone(), limit, streams: state.streams }));
            }
        }
        if let Some((_, refusal)) = longest {
            return Err(refusal);
        }
        for (account, _) in payers {
            self.accounts.entry(account.clone()).or_default().hold(amounts);
        }
        let accounts = payers.iter().map(|(account, _)| (account.clone(), None)).collect();
        Ok(Entry { accounts, held: amounts, charged: Amounts::default() })
    }

    /// Charges a running request up to `total`. A charge never decreases.
    pub(super) fn charge(&mut self, entry: &mut Entry, total: Amounts, now: u64) {
        let more = total.minus(entry.charged);
        if more.is_zero() {
            return;
        }
        let held = more.min(entry.held);
        for (account, marks) in &mut entry.accounts {
            let state = self.accounts.entry(account.clone()).or_default();
            state.pass(state.limits(), now);
            marks.get_or_insert_with(|| state.marks());
            state.charge(more, held);
        }
        entry.held = entry.held.minus(held);
        entry.charged = entry.charged.plus(more);
    }

    /// Ends a request with its `total` usage.
    pub(super) fn settle(&mut self, mut entry: Entry, total: Amounts, now: u64) {
        self.charge(&mut entry, total, now);
        self.release(&entry);
    }

    /// Ends a request and refunds everything.
    pub(super) fn refund(&mut self, entry: Entry, now: u64) {
        for (account, marks) in &entry.accounts {
            if let (Some(state), Some(marks)) = (self.accounts.get_mut(account), marks) {
                state.pass(state.limits(), now);
                state.refund(entry.charged, marks);
            }
        }
        self.release(&entry);
    }

    fn release(&mut self, entry: &Entry) {
        for (account, _) in &entry.accounts {
            if let Some(state) = self.accounts.get_mut(account) {
                state.release(entry.held);
            }
        }
    }

    /// Returns whether the state on disk charges at least the usage of the request's accounts.
    pub(super) fn is_covered(&self, entry: &Entry) -> bool {
        let covered = |account: &Account| self.accounts.get(account).is_none_or(State::is_covered);
        entry.accounts.iter().all(|(account, _)| covered(account))
    }

    /// The allowances of all payers.
    pub(super) fn allowances(&self, payers: &Payers, now: u64) -> Vec<Allowance> {
        let allowances = |(account, limits): &(Account, Limits)| {
            let mut state = self.accounts.get(account).cloned().unwrap_or_default();
            state.pass(*limits, now);
            state.allowances().collect::<Vec<_>>()
        };
        payers.iter().flat_map(allowances).collect()
    }

    /// Returns the states to save; `None` deletes the state of an account that has nothing left.
    pub(super) fn save(&mut self, last: bool, now: u64) -> Vec<(Account, Option<Saving>)> {
        let mut savings = Vec::new();
        self.accounts.retain(|account, state| {
            if state.limits() != Limits::default() {
                state.pass(state.limits(), now);
            }
            if state.is_idle(now) {
                savings.extend(state.stored.then(|| (account.clone(), None)));
                return false;
            }
            savings.extend(state.save(last).map(|saving| (account.clone(), Some(saving))));
            true
        });
        savings
    }

    /// Records whether states were saved.
    pub(super) fn saved(&mut self, savings: &[(Account, Option<Saving>)], done: bool) {
        for (account, saving) in savings {
            match (self.accounts.get_mut(account), saving) {
                (Some(state), Some(saving)) if done => state.saved(saving),
                (Some(state), _) if !done => state.unsaved(),
                _ => {}
            }
        }
    }
}

/// Returns the allowance with the least remaining share among some kinds.
pub(super) fn tightest(allowances: &[Allowance], kinds: &[Kind]) -> Option<Allowance> {
    let share = |allowance: &Allowance| match allowance.limit {
        0 => 0.0,
        limit => allowance.remaining as f64 / limit as f64,
    };
    let of_kinds = allowances.iter().filter(|allowance| kinds.contains(&allowance.kind));
    of_kinds.min_by(|a, b| share(a).total_cmp(&share(b))).copied()
}
